// Choosing by clicks and keys: ranges grow and shrink, single ones come and go.
import assert from "node:assert/strict";
import test from "node:test";
import { Selection } from "../../ui/static/selection.js";

const shown = [10, 11, 12, 13, 14].map((id) => ({ id }));
const sorted = (selection) => [...selection.ids].sort((a, b) => a - b);

test("a range reaches from where Shift began, and shrinks again", () => {
  const selection = new Selection();
  selection.extend(shown, 11, 14);
  assert.deepEqual(sorted(selection), [11, 12, 13, 14]);
  selection.extend(shown, 14, 12);
  assert.deepEqual(sorted(selection), [11, 12]);
  selection.extend(shown, 12, 10);
  assert.deepEqual(sorted(selection), [10, 11]);
});

test("what was chosen singly stays beside a range", () => {
  const selection = new Selection();
  selection.toggle(14);
  selection.anchor = null;
  selection.extend(shown, 10, 11);
  selection.extend(shown, 11, 10);
  assert.deepEqual(sorted(selection), [10, 14]);
  selection.toggle(14);
  assert.deepEqual(sorted(selection), [10]);
});

test("a new order does not lose what is chosen, a vanished anchor does no harm", () => {
  const selection = new Selection();
  selection.extend(shown, 10, 11);
  selection.extend([13, 12, 11].map((id) => ({ id })), 13, 12);
  assert.ok(selection.has(12));
});

test("what no longer exists is no longer chosen", () => {
  const selection = new Selection();
  selection.set([10, 11]);
  selection.add([12]);
  selection.keep(new Map([[11, {}]]));
  assert.deepEqual(sorted(selection), [11]);
  selection.clear();
  assert.equal(selection.size, 0);
});
