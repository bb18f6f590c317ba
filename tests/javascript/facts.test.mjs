// Filters, order and chips of Curate over a handful of invented images.
import assert from "node:assert/strict";
import test from "node:test";
import {
  arrange,
  chips,
  EMPTY,
  filterFrom,
  filterText,
  histogram,
  itemsOf,
  matches,
  shortWords,
  SORTS,
  sortsOf,
  weakest,
  without,
} from "../../ui/static/facts.js";

const NAMES = ["tissue", "organ", "tip"];
const columns = {
  classes: NAMES,
  versions: ["base", "v1"],
  masks: [
    { blob: "aa", classes: [1, 2], rarest: 2, rarity: 0.1 },
    { blob: "bb", classes: [1], rarest: 1, rarity: 0.9 },
  ],
  id: [1, 2, 3, 4],
  blob: ["b1", "b2", "b3", "b4"],
  mask: [0, 0, 1, 1],
  version: [0, 1, 1, 0],
  state: [0, 1, 2, 3],
  is_drawn: [1, 0, 0, 0],
  is_composite: [0, 0, 0, 1],
  seed: ["5", "6", "7", "8"],
  created: [10, 20, 30, 40],
  selector: [0.9, 0.31, null, 0.7],
  judge: [0.4, 0.3, null, 0.75],
  disagreement: [0.5, 0.01, null, 0.05],
  class_dice: [
    [0.94, 0.5, null, 0.7],
    [0.31, 0.6, null, null],
  ],
  quality: [1, 0.4, 0.8, null],
  farther: [0.995, 0, 0.5, null],
  gate: [0, 1, 2, null],
  quadrant: [3, 0, null, 1],
  votes: [3, 2, 0, 1],
  wins: [1, 0, null, 0.5],
  flagged: [1, 0, 0, 0],
  flagged_by_me: [0, 0, 0, 0],
  favourite: [0, 1, 0, 0],
  color: ["102030", null, null, null],
};
const items = itemsOf(columns);
const ids = (filter, sort = "newest") => arrange(items, { ...EMPTY, ...filter }, sort).map((item) => item.id);

test("columns become one object per image", () => {
  assert.equal(items.length, 4);
  assert.deepEqual([items[1].version, items[1].curation, items[1].label_map_blob], ["v1", "accepted", "aa"]);
  assert.equal(items[3].isComposite, true);
});

test("the weakest asked class is told in words", () => {
  assert.deepEqual(weakest(items[0]), { index: 2, dice: 0.31 });
  assert.equal(shortWords(items[0], NAMES), "misses tip, 31\u00a0%");
  assert.equal(shortWords(items[1], NAMES), "organ in part, 50\u00a0%");
  assert.equal(shortWords(items[3], NAMES), "finds everything");
  assert.equal(shortWords(items[2], NAMES), "not scored yet");
});

for (const [name, filter, expected] of [
  ["none", {}, [4, 3, 2, 1]],
  ["state", { state: "accepted" }, [2]],
  ["all chosen classes", { classes: [1, 2] }, [2, 1]],
  ["segmenter, both ends included", { selector: [31, 70] }, [4, 2]],
  ["judge", { judge: [0, 30] }, [2]],
  ["disagreement", { disagreement: [20, 100] }, [1]],
  ["quality", { quality: [0, 80] }, [3, 2]],
  ["rarity", { rarity: [0, 50] }, [2, 1]],
  ["votes won", { votes: "won" }, [1]],
  ["votes lost", { votes: "lost" }, [2]],
  ["no votes", { votes: "none" }, [3]],
  ["some votes", { votes: "some" }, [4, 2, 1]],
  ["version", { version: "v1" }, [3, 2]],
  ["made in Draw", { made: "draw" }, [1]],
  ["flagged by anybody", { flagged: true }, [1]],
  ["favourites", { favourite: true }, [2]],
  ["very close to a real image", { veryClose: true }, [1]],
  ["refused by the quality check", { refused: true }, [3, 2]],
  ["hard and right", { use: "prize" }, [2]],
  ["easy, wrong or unreal", { use: "doubtful" }, [1]],
  ["same mask", { mask: "bb" }, [4, 3]],
  ["chosen on the map", { ids: new Set([1, 3]) }, [3, 1]],
])
  test(`a filter by ${name} keeps what it says`, () => assert.deepEqual(ids(filter), expected));

test("an unknown value passes only the full range", () => {
  assert.ok(matches(items[2], EMPTY));
  assert.ok(!matches(items[2], { ...EMPTY, selector: [0, 99] }));
});

for (const [sort, expected] of [
  ["newest", [4, 3, 2, 1]],
  ["best", [1, 4, 2, 3]],
  ["worst", [2, 4, 1, 3]],
  ["judge", [2, 1, 4, 3]],
  ["weakest", [1, 2, 4, 3]],
  ["doubtful", [1, 4, 2, 3]],
  ["hardest", [2, 4, 3, 1]],
  ["quality", [2, 3, 1, 4]],
  ["close", [1, 3, 2, 4]],
  ["votes", [1, 2, 4, 3]],
  ["wins", [1, 4, 2, 3]],
  ["rarest", [2, 1, 4, 3]],
  ["flagged", [1, 4, 3, 2]],
  ["version", [4, 1, 3, 2]],
  ["mask", [1, 2, 3, 4]],
])
  test(`sorted by ${sort}, unknown ones come last`, () => assert.deepEqual(ids({}, sort), expected));

test("every order of the list is tested above", () => assert.equal(Object.keys(SORTS).length, 15));

test("each active filter is a chip, and taking all away gives the empty filter", () => {
  let filter = { ...EMPTY, classes: [1, 2], selector: [20, 100], rarity: [0, 10], votes: "won", version: "v1", flagged: true };
  const texts = chips(filter, NAMES).map((chip) => chip.text);
  const expected = ["with organ", "with tip", "Segmenter \u2265 20\u00a0%", "class in \u2264 10\u00a0% of masks", "votes: mostly won"];
  assert.deepEqual(texts, [...expected, "version v1", "flagged"]);
  for (const { key } of chips(filter, NAMES)) filter = without(filter, key);
  assert.deepEqual(filter, { ...EMPTY });
});

test("in classification an image is one class, told by its probability and by what it is taken for", () => {
  const names = ["dissection", "clipping", "bleeding"];
  const found = itemsOf({
    ...columns, classes: names, masks: [{ blob: "aa", classes: [0], rarest: 0, rarity: 0.5 }, { blob: "bb", classes: [2], rarest: 2, rarity: 0.1 }],
    class_dice: [[0.9, 0.31, null, 0.1], [0, 0.6, null, 0.2], [0.1, 0.09, null, 0.7]], seen: [0, 1, null, 2],
  });
  assert.deepEqual(found.map((item) => shortWords(item, names)), [
    "looks like dissection", "dissection? Looks like clipping", "not scored yet", "looks like bleeding"]);
  assert.deepEqual(weakest(found[1]), { index: 0, dice: 0.31 });
  assert.equal(shortWords({ ...found[0], selector: 0.5 }, names), "dissection, but not sure");
  const ids = (classes) => arrange(found, { ...EMPTY, classes }, "newest").map((item) => item.id);
  assert.deepEqual([ids([0]), ids([0, 2]), ids([1])], [[2, 1], [4, 3, 2, 1], []]);
  const filter = { ...EMPTY, classes: [0], selector: [50, 100], mask: "aa" };
  assert.deepEqual(chips(filter, names, true).map((chip) => chip.text), ["asked for dissection", "Classifier \u2265 50\u00a0%", "same class"]);
  assert.ok(!sortsOf(true).some(([key]) => key === "weakest") && sortsOf(false).length === 15);
  assert.equal(Object.fromEntries(sortsOf(true)).mask, "By class");
});

test("a filter survives the browser's memory, nonsense does not", () => {
  const filter = { ...EMPTY, state: "pending", classes: [2], judge: [10, 90], favourite: true };
  assert.deepEqual(filterFrom(filterText(filter)), filter);
  assert.deepEqual(filterFrom(filterText({ ...filter, ids: new Set([1]) })).ids, null);
  for (const text of [null, "", "no json", "[]", '{"selector":[1],"state":"great","votes":7,"classes":["x"],"version":3}'])
    assert.deepEqual(filterFrom(text), { ...EMPTY });
});

test("a histogram counts known values, the last bin includes 100 %", () => {
  assert.deepEqual(histogram(items, "quality", 4), [0, 1, 0, 2]);
});
