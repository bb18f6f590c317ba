// Looking closely and the words at the end of a block.
import assert from "node:assert/strict";
import test from "node:test";
import { leaning } from "../../ui/static/vote_agreement.js";
import { sentences } from "../../ui/static/vote_card.js";
import { difference, panBy, WHOLE, zoomAt } from "../../ui/static/vote_look.js";

test("zooming keeps the point under the pointer where it is", () => {
  let view = WHOLE;
  for (const [factor, x, y] of [[2, 0.25, 0.5], [1.5, 0.4, 0.6]]) {
    const before = [(x - view.x) / view.zoom, (y - view.y) / view.zoom]; // place in the picture
    view = zoomAt(view, factor, x, y);
    assert.ok(Math.abs((x - view.x) / view.zoom - before[0]) < 1e-12 && Math.abs((y - view.y) / view.zoom - before[1]) < 1e-12);
  }
  assert.equal(view.zoom, 3);
});

test("the picture always covers its frame", () => {
  assert.deepEqual(zoomAt(WHOLE, 0.5, 0.2, 0.2), WHOLE);
  assert.equal(zoomAt(WHOLE, 100, 0.5, 0.5).zoom, 12);
  const near = zoomAt(WHOLE, 4, 0.5, 0.5);
  assert.deepEqual(panBy(near, 9, -9), { zoom: 4, x: 0, y: -3 });
  assert.deepEqual(zoomAt(panBy(near, 9, -9), 0.25, 0.5, 0.5), WHOLE);
});

test("the difference is the largest of the channels, four times, the same both ways", () => {
  const first = [10, 20, 30, 255, 0, 0, 0, 255, 200, 0, 0, 255],
    second = [10, 25, 28, 255, 0, 0, 0, 255, 0, 0, 0, 255];
  assert.deepEqual([...difference(first, second)], [20, 20, 20, 255, 0, 0, 0, 255, 255, 255, 255, 255]);
  assert.deepEqual(difference(second, first), difference(first, second));
});

test("the end of a block in words", () => {
  const told = { repeats: { hits: 4, total: 5 }, agreement: { hits: 1, total: 1 }, changed_pairs: 23, weak: [] };
  assert.deepEqual(sentences(told), [
    "You agreed with yourself on 4 of 5 repeats.",
    "You agreed with the others on 1 of 1 pair that they have judged, too.",
    "Your votes changed 23 training pairs.",
  ]);
  const empty = { repeats: { total: 0 }, agreement: { total: 0 }, changed_pairs: 1, weak: [] };
  assert.match(sentences(empty).join(" "), /No pair was shown to you twice.*Nobody else.*1 training pair\./);
  const weak = [{ class: "bleeding", votes: 4, dice: 0.45 }];
  assert.match(sentences({ ...told, weak }).at(-1), /^On 4 pairs the images differ most in bleeding, .*weak \(45.% on real images\)/);
});

test("a leaning is named only where chance is unlikely", () => {
  assert.equal(leaning({ left: { hits: 6, total: 10 }, left_p: 0.75 }), "no side is preferred");
  assert.match(leaning({ left: { hits: 19, total: 20 }, left_p: 0.001 }), /^the left side/);
  assert.match(leaning({ left: { hits: 1, total: 20 }, left_p: 0.001 }), /^the right side/);
});
