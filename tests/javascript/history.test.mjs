// What an image is compared with when its mask was changed.
import assert from "node:assert/strict";
import test from "node:test";
import { History } from "../../ui/static/history.js";

const sample = (id, values = {}) => ({
  id, blob: `b${id}`, seed: "7", adapter: "base", label_map_blob: `mask${id}`, source_blob: null, is_part: false, ...values,
});
const before = (present, ...others) => History.prototype.before.call({ items: [{ version: "base", samples: others }] }, present);

test("a part stands beside the picture that it was made in", () => {
  assert.equal(before(sample(2, { source_blob: "real", is_part: true }), sample(1)), "real");
});

test("what was painted as a whole into a picture stands beside what the mask before gave in that picture", () => {
  const painted = { source_blob: "real" };
  assert.equal(before(sample(2, painted), sample(1, painted)), "b1");
  assert.equal(before(sample(2, painted)), null);
  assert.equal(before(sample(2, painted), sample(1, { source_blob: "another" })), null);
  assert.equal(before(sample(2, painted), sample(1, { ...painted, is_part: true })), null);
});

test("whole scenes stand beside whole scenes of the same seed", () => {
  assert.equal(before(sample(3), sample(1, { seed: "8" }), sample(2)), "b2");
  assert.equal(before(sample(3), sample(2, { label_map_blob: "mask3" }), sample(1, { source_blob: "real", is_part: true })), null);
});
