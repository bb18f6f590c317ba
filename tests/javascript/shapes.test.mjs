// Edits of whole shapes, against small pictures worked out by hand and definitions by brute force.
import assert from "node:assert/strict";
import test from "node:test";
import { makePen } from "../../ui/static/raster.js";
import {
  componentAt,
  components,
  copyClass,
  dropIslands,
  fillHoles,
  grow,
  moveShape,
  nearest,
  shrink,
  smooth,
  statistics,
} from "../../ui/static/shapes.js";

const grid = (rows) => Uint8Array.from(rows.join(""), Number);
const text = (labels, w) => labels.join("").match(new RegExp(`.{${w}}`, "g"));
const random = (seed) => () => ((seed = (seed * 1103515245 + 12345) & 0x7fffffff), seed / 0x7fffffff);

test("components are 4-connected and know whether they touch the border", () => {
  const { list } = components(grid(["1010", "0100", "0000"]), 4, 3);
  assert.deepEqual(
    list.map((item) => [item.label, item.count, item.touchesBorder]),
    [
      [1, 1, true],
      [0, 1, true],
      [1, 1, true],
      [0, 8, true],
      [1, 1, false],
    ],
  );
});

test("statistics count pixels, components and holes", () => {
  const found = statistics(grid(["111110", "100112", "111110", "113112", "111111"]), 6, 5);
  assert.deepEqual(found.get(1), { pixels: 23, components: 1, holes: 2 });
  assert.deepEqual(found.get(2), { pixels: 2, components: 2, holes: 0 });
  assert.deepEqual(found.get(0), { pixels: 4, components: 3, holes: 0 });
});

test("holes of background are filled, other classes inside and bays are kept", () => {
  const labels = grid(["1111110", "1001210", "1111110", "1110111", "1100011"]);
  assert.deepEqual(fillHoles(labels, 7, 5, 1), [1, 1, 2, 1]);
  assert.deepEqual(text(labels, 7), ["1111110", "1111210", "1111110", "1110111", "1100011"]);
  assert.equal(fillHoles(labels, 7, 5, 2), null);
});

test("islands below the given size go to what surrounds them", () => {
  const labels = grid(["11000", "11020", "00000", "33323", "33333"]);
  assert.deepEqual(dropIslands(labels, 5, 5, 2, 2), [3, 1, 3, 3]);
  assert.deepEqual(text(labels, 5), ["11000", "11000", "00000", "33333", "33333"]);
  assert.equal(dropIslands(labels, 5, 5, 1, 4), null);
  assert.ok(dropIslands(labels, 5, 5, 1, 5));
  assert.deepEqual(text(labels, 5)[0], "00000");
});

test("growing takes a disc around the class where the pen may paint; shrinking undoes it on open ground", () => {
  const labels = grid(["0000000", "0000000", "0000000", "0001000", "0000000", "0000022", "0000022"]);
  grow(labels, 7, 7, 2, makePen(1, { rule: "protect" }));
  assert.deepEqual(text(labels, 7), ["0000000", "0001000", "0011100", "0111110", "0011100", "0001022", "0000022"]);
  shrink(labels, 7, 7, 2, 1);
  assert.deepEqual(text(labels, 7)[3], "0001000");
  assert.equal(labels.filter((value) => value === 1).length, 1);
});

test("a class at the picture's border does not shrink from it", () => {
  const labels = grid(["1111", "1111", "0000"]);
  shrink(labels, 4, 3, 1, 1);
  assert.deepEqual(text(labels, 4), ["1111", "0000", "0000"]);
});

test("smoothing takes off a bump and fills a notch", () => {
  const labels = grid(["000000000", "000010000", "111111111", "111111111", "111101111", "111111111"]);
  smooth(labels, 9, 6, 1, makePen(1));
  assert.deepEqual(text(labels, 9), ["000000000", "000000000", "111111111", "111111111", "111111111", "111111111"]);
});

test("the nearest source is exact", () => {
  const draw = random(3),
    w = 23,
    h = 17;
  for (let round = 0; round < 30; round++) {
    const sources = new Set(Array.from({ length: 1 + Math.floor(draw() * 12) }, () => Math.floor(draw() * w * h)));
    const { distance2, source } = nearest(w, h, (i) => sources.has(i));
    for (let i = 0; i < w * h; i++) {
      const to = (j) => ((i % w) - (j % w)) ** 2 + (Math.floor(i / w) - Math.floor(j / w)) ** 2;
      const best = Math.min(...[...sources].map(to));
      assert.equal(distance2[i], best);
      assert.ok(sources.has(source[i]) && to(source[i]) === best);
    }
  }
});

test("without any source there is none", () => {
  const { source } = nearest(3, 2, () => false);
  assert.deepEqual([...source], [-1, -1, -1, -1, -1, -1]);
  const labels = grid(["11", "11"]);
  shrink(labels, 2, 2, 1, 1);
  assert.deepEqual(text(labels, 2), ["11", "11"]);
});

test("a component is moved whole; what it leaves takes its surroundings", () => {
  const labels = grid(["000333", "012333", "000333", "000333"]),
    mask = componentAt(labels, 6, 4, 1, 1).mask;
  componentAt(labels, 6, 4, 2, 1).mask.forEach((value, i) => (mask[i] |= value));
  moveShape(labels, 6, 4, mask, { dx: 2, dy: 1 });
  assert.deepEqual(text(labels, 6), ["000333", "000333", "000123", "000333"]);
});

test("turning by a quarter four times gives the shape back; scaling by two quadruples it", () => {
  const labels = grid(["0000000", "0000000", "0011000", "0010000", "0010000", "0000000", "0000000"]),
    start = text(labels, 7);
  for (let turn = 0; turn < 4; turn++) {
    const mask = Uint8Array.from(labels, (value) => (value ? 1 : 0));
    moveShape(labels, 7, 7, mask, { angle: Math.PI / 2 });
    assert.equal(labels.filter(Boolean).length, 4);
    if (turn === 3) {
      const found = text(labels, 7).filter((row) => row.includes("1"));
      assert.deepEqual(found.map((row) => row.replace(/^0+|0+$/g, "")), start.filter((row) => row.includes("1")).map((row) => row.replace(/^0+|0+$/g, ""))); // prettier-ignore
    }
  }
  const square = grid(["000000", "000000", "001100", "001100", "000000", "000000"]);
  moveShape(square, 6, 6, Uint8Array.from(square), { scale: 2 });
  assert.deepEqual(text(square, 6), ["000000", "011110", "011110", "011110", "011110", "000000"]);
});

test("a class is taken over by the pen's rule, and what was it only here becomes what it is there", () => {
  const labels = grid(["1102", "1122"]),
    other = grid(["1010", "3011"]);
  assert.deepEqual(copyClass(labels, 4, other, makePen(1, { rule: "protect" })), [0, 0, 2, 1]);
  assert.deepEqual(text(labels, 4), ["1012", "3022"]);
  copyClass(labels, 4, other, makePen(1));
  assert.deepEqual(text(labels, 4), ["1012", "3011"]);
});
