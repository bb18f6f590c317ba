import assert from "node:assert/strict";
import { test } from "node:test";
import { combine } from "../../ui/static/merge.js";

const bytes = (text) => Uint8Array.from(text, Number);

test("what only one side changed is taken from that side", () => {
  const merged = combine(bytes("000000"), bytes("110000"), bytes("000022"));
  assert.deepEqual([...merged.labels], [1, 1, 0, 0, 2, 2]);
  assert.deepEqual([merged.mine, merged.theirs, merged.both], [2, 2, 0]);
});

test("where both painted differently mine counts, and it is said", () => {
  const merged = combine(bytes("000"), bytes("101"), bytes("220"));
  assert.deepEqual([...merged.labels], [1, 2, 1]);
  assert.deepEqual([merged.mine, merged.theirs, merged.both], [1, 1, 1]);
});

test("the same change on both sides is no conflict, and an erased pixel is a change", () => {
  const merged = combine(bytes("1133"), bytes("2033"), bytes("2100"));
  assert.deepEqual([...merged.labels], [2, 0, 0, 0]);
  assert.deepEqual([merged.mine, merged.theirs, merged.both], [1, 2, 0]);
});

test("neither input is changed", () => {
  const mine = bytes("12"), theirs = bytes("00");
  combine(bytes("00"), mine, theirs);
  assert.deepEqual([...mine, ...theirs], [1, 2, 0, 0]);
});
