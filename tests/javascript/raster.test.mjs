// Drawing on label maps, against definitions by brute force.
import assert from "node:assert/strict";
import test from "node:test";
import {
  flood,
  makeEraser,
  makePen,
  paintBox,
  paintCapsule,
  paintPolygon,
  paintSquare,
  wand,
} from "../../ui/static/raster.js";

const W = 40,
  H = 30;
const empty = () => new Uint8Array(W * H);
const random = (seed) => () => ((seed = (seed * 1103515245 + 12345) & 0x7fffffff), seed / 0x7fffffff);
const grid = (rows) => Uint8Array.from(rows.join(""), Number);
const text = (labels, w) => labels.join("").match(new RegExp(`.{${w}}`, "g"));

function expected(belongs, labels = empty(), pen = makePen(1)) {
  for (let y = 0; y < H; y++)
    for (let x = 0; x < W; x++)
      if (belongs(x + 0.5, y + 0.5) && (!pen.allows || pen.allows[labels[y * W + x]])) labels[y * W + x] = pen.value;
  return labels;
}

test("a round brush marks the pixels whose centre is within its radius of the line", () => {
  const draw = random(1);
  for (let i = 0; i < 400; i++) {
    const [x0, y0, x1, y1] = [draw() * 60 - 10, draw() * 50 - 10, draw() * 60 - 10, draw() * 50 - 10],
      radius = 0.8 + draw() * 9,
      found = empty();
    const box = paintCapsule(found, W, H, x0, y0, x1, y1, radius, makePen(1));
    const length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2;
    const wanted = expected((x, y) => {
      const t = Math.max(0, Math.min(1, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length2));
      return (x - x0 - t * (x1 - x0)) ** 2 + (y - y0 - t * (y1 - y0)) ** 2 <= radius ** 2;
    });
    assert.deepEqual(found, wanted);
    assertBox(found, box);
  }
});

function assertBox(labels, box) {
  const touched = [...labels.keys()].filter((i) => labels[i]);
  if (!touched.length) return assert.equal(box, null);
  const xs = touched.map((i) => i % W),
    ys = touched.map((i) => Math.floor(i / W));
  assert.deepEqual(box, [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
}

test("a dot of one pixel is drawn by the smallest brush wherever it stands", () => {
  for (const [x, y] of [
    [3, 4],
    [3.5, 4.5],
    [3.99, 4.01],
  ]) {
    const found = empty();
    paintCapsule(found, W, H, x, y, x, y, 0.5, makePen(1));
    assert.ok(found[4 * W + 3] === 1);
  }
});

test("a square brush of n pixels is n pixels wide and covers the swept area", () => {
  for (const [x, y] of [
    [10, 10],
    [10.3, 10.8],
    [10.5, 10.5],
  ])
    for (const side of [1, 2, 5, 8]) {
      const found = empty();
      paintSquare(found, W, H, x, y, x, y, side / 2, makePen(1));
      const columns = new Set([...found.keys()].filter((i) => found[i]).map((i) => i % W));
      const rows = new Set([...found.keys()].filter((i) => found[i]).map((i) => Math.floor(i / W)));
      assert.deepEqual([columns.size, rows.size], [side, side]);
    }
  const draw = random(2);
  for (let i = 0; i < 200; i++) {
    const [x0, y0, x1, y1] = [draw() * 40, draw() * 30, draw() * 40, draw() * 30],
      r = 1.3 + draw() * 4,
      found = empty();
    paintSquare(found, W, H, x0, y0, x1, y1, r, makePen(1));
    const inSquare = (x, y) => {
      // Some point of the segment lies within r of (x, y) in both directions.
      const range = (a, d, c) => (d ? [(c - r - a) / d, (c + r - a) / d].sort((p, q) => p - q) : Math.abs(c - a) <= r ? [0, 1] : [1, 0]);
      const [a, b] = range(x0, x1 - x0, x),
        [c, d] = range(y0, y1 - y0, y);
      return Math.max(a, c, 0) <= Math.min(b, d, 1);
    };
    assert.deepEqual(found, expected(inSquare));
  }
});

test("polygon and box take the pixels whose centre is inside, whichever way they are drawn", () => {
  const found = empty(),
    other = empty();
  paintPolygon(found, W, H, [[2, 3], [12, 3], [12, 9], [2, 9]], makePen(2)); // prettier-ignore
  paintBox(other, W, H, 12, 9, 2, 3, makePen(2));
  assert.deepEqual(found, other);
  assert.equal(found.filter(Boolean).length, 60);
  const bow = empty();
  paintPolygon(bow, W, H, [[0, 0], [10, 10], [10, 0], [0, 10]], makePen(1)); // prettier-ignore
  assert.equal(bow[5 * W + 5 - 4], 1);
  assert.equal(bow[1 * W + 5], 0);
});

test("a pen that protects others paints background and its own class only", () => {
  const labels = grid(["0012", "0012", "3333"]),
    pen = makePen(1, { rule: "protect" });
  paintBox(labels, 4, 3, 0, 0, 4, 3, pen);
  assert.deepEqual(text(labels, 4), ["1112", "1112", "3333"]);
});

test("a pen that stays inside a class, and an eraser of one class", () => {
  const labels = grid(["0012", "0012", "3333"]);
  paintBox(labels, 4, 3, 0, 0, 4, 3, makePen(4, { rule: "inside", inside: 3 }));
  assert.deepEqual(text(labels, 4), ["0012", "0012", "4444"]);
  paintBox(labels, 4, 3, 0, 0, 4, 3, makeEraser(2));
  assert.deepEqual(text(labels, 4), ["0010", "0010", "4444"]);
  paintBox(labels, 4, 3, 0, 0, 4, 1, makeEraser());
  assert.deepEqual(text(labels, 4), ["0000", "0010", "4444"]);
});

test("fill stops at other classes and joins 4-connected pixels only", () => {
  const labels = grid(["0100", "1000", "0011"]);
  assert.equal(flood(labels, 4, 3, 0, 0, makePen(0)), null);
  assert.deepEqual(flood(labels, 4, 3, 0, 0, makePen(5)), [0, 0, 0, 0]);
  flood(labels, 4, 3, 3, 0, makePen(6));
  assert.deepEqual(text(labels, 4), ["5166", "1666", "6611"]);
  assert.equal(flood(labels, 4, 3, 1, 0, makePen(2, { rule: "protect" })), null);
});

test("the wand takes connected pixels of like colour", () => {
  const labels = new Uint8Array(6),
    grey = [10, 14, 30, 10, 22, 12];
  const pixels = Uint8ClampedArray.from(grey.flatMap((value) => [value, value, value, 255]));
  wand(labels, pixels, 3, 2, 0, 0, 5, makePen(1));
  assert.deepEqual(text(labels, 3), ["110", "100"]);
});
