// Plane geometry of the map and of zoomed pictures, against cases worked out by hand.
import assert from "node:assert/strict";
import test from "node:test";
import { enclosed, isInside, nearestTo, panned, WHOLE, zoomed } from "../../ui/static/lasso.js";

const SQUARE = [
  [0, 0],
  [10, 0],
  [10, 10],
  [0, 10],
];
const HOOK = [
  [0, 0],
  [10, 0],
  [10, 10],
  [6, 10],
  [6, 4],
  [0, 4],
];

test("a point is inside or outside, also of a hook", () => {
  assert.ok(isInside(5, 5, SQUARE) && !isInside(11, 5, SQUARE) && !isInside(-1, -1, SQUARE));
  assert.ok(isInside(2, 2, HOOK) && isInside(8, 8, HOOK) && !isInside(2, 8, HOOK));
});

test("the direction of the loop does not matter", () => {
  for (const [x, y] of [
    [2, 2],
    [2, 8],
    [8, 8],
  ])
    assert.equal(isInside(x, y, HOOK), isInside(x, y, [...HOOK].reverse()));
});

test("a lasso encloses points, leaves out those hidden, and needs three corners", () => {
  const [xs, ys] = [
    [5, 8, 12, 2],
    [5, 8, 5, 8],
  ];
  assert.deepEqual(enclosed(xs, ys, SQUARE), [0, 1, 3]);
  assert.deepEqual(enclosed(xs, ys, HOOK), [1]);
  assert.deepEqual(
    enclosed(xs, ys, SQUARE, (index) => index !== 0),
    [1, 3],
  );
  assert.deepEqual(enclosed(xs, ys, SQUARE.slice(0, 2)), []);
});

test("the nearest point counts within reach only", () => {
  assert.equal(nearestTo(0, 0, [3, 1, 9], [0, 1, 9], 5), 1);
  assert.equal(nearestTo(0, 0, [30], [0], 5), -1);
  assert.equal(
    nearestTo(0, 0, [3, 1], [0, 1], 5, (index) => index === 0),
    0,
  );
});

test("zooming keeps the point under the pointer where it is", () => {
  let view = WHOLE;
  for (const [x, y, factor] of [
    [0.3, 0.6, 2],
    [0.5, 0.5, 1.7],
    [0.35, 0.55, 1.2],
  ]) {
    const before = (x - view.x) / view.scale;
    view = zoomed(view, x, y, factor);
    assert.ok(Math.abs((x - view.x) / view.scale - before) < 1e-9);
  }
});

test("the content always covers the frame, and zooming out ends at the whole", () => {
  const far = panned(zoomed(WHOLE, 0.9, 0.9, 4), 5, -5);
  assert.deepEqual([far.x, far.y], [0, 1 - far.scale]);
  assert.deepEqual(zoomed(far, 0.2, 0.2, 0.001), { ...WHOLE });
  assert.equal(zoomed(WHOLE, 0.5, 0.5, 1e9).scale, 16);
});
