// The picture of what a segmenter misses, in words.
import assert from "node:assert/strict";
import test from "node:test";
import { gapWords, heat, summary } from "../../ui/static/weakness.js";

const classes = { polyp: { recall: 0.8 }, tip: { recall: 0.62 } };

test("a gap is told as a person would", () => {
  assert.equal(gapWords({ class: "polyp", axis: "size", name: "small" }), "small polyp");
  assert.equal(gapWords({ class: "shaft", axis: "contrast", name: "faint" }), "faint shaft");
  assert.equal(gapWords({ class: "shaft", axis: "place", name: "bottom right" }), "shaft at the bottom right");
  assert.equal(gapWords({ class: "shaft", axis: "place", name: "centre" }), "shaft in the centre");
});

test("the class that is found least comes first, then the gaps within classes", () => {
  const gaps = [{ class: "polyp", axis: "size", name: "small", recall: 0.41 }];
  assert.equal(summary({ classes, gaps: [] }, false), "Found least: tip, 62\u00a0%.");
  assert.equal(summary({ classes, gaps }, false), "Found least: tip, 62\u00a0%. Within a class it misses most: small polyp (41\u00a0% found).");
  assert.equal(summary({ classes, gaps }, true), "Recognised least: tip, 62\u00a0%.");
  assert.equal(summary({ classes: {}, gaps: [] }, false), "");
});

test("cells are the hotter the more is missed", () => {
  assert.deepEqual([1, 0.75, 0.5, 0.1].map(heat), [0, 0.5, 1, 1]);
});
