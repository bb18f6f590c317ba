// The pure parts of the Align tab: minutes, words, lamps at their limits, lanes of the tree.
import assert from "node:assert/strict";
import test from "node:test";
import { deciderInWords, doubtInWords, singleInWords } from "../../ui/static/align_pairs.js";
import { estimate, fidelityInWords, roughly, singlesInWords, votesInWords } from "../../ui/static/align_plan.js";
import { trialInWords } from "../../ui/static/align_verdict.js";
import { lamps, lampsInWords, pictureRows, smoothed } from "../../ui/static/curves.js";
import { lanes } from "../../ui/static/versions.js";

const ALARMS = { winner_ratio: 1.25, accuracy_gap: 0.15, min_held_pairs: 24, gradient_ratio: 5, gradient_steps: 3 };
const curve = (...values) => values.map((value, index) => [index + 1, value]);
const states = (metrics) => lamps(metrics, ALARMS).map((lamp) => lamp.state);

test("minutes follow steps, batch, tests and their masks", () => {
  const pace = { step_s: 1, check_s: 10, start_s: 6, batch_size: 8, gate_masks: 32 };
  assert.equal(estimate(pace, { steps: 100, gate_every: 50, gate_masks: 32, batch_size: 8 }), 6 + 100 + 20);
  assert.equal(estimate(pace, { steps: 100, gate_every: 30, gate_masks: 16, batch_size: 4 }), 3 + 50 + 4 * 5);
  assert.deepEqual([20, 126, 1500, 9000].map(roughly), ["under a minute", "about 2 min", "about 25 min", "about 2.5 h"]);
});

test("votes are told against scores", () => {
  const none = { num: 0, people: 0, agreed: 0, overruled: 0, tipped: 0, left_out: 0 };
  assert.equal(votesInWords(none), "No votes yet: scores alone decide.");
  assert.equal(
    votesInWords({ num: 46, people: 2, agreed: 20, overruled: 12, tipped: 3, left_out: 4 }),
    "46 votes by 2 people: 20 pairs where the score agrees, 3 that the score left open, 12 that overrule the score. 4 more on images that cannot be used.",
  );
});

test("where the scores have something to repair is told with its weakest class", () => {
  const weakest = { class: 2, synthetic: 0.31, real: 0.62 };
  const named = (index) => ["tissue", "liver", "tip"][index];
  assert.equal(fidelityInWords(null, named), "");
  assert.equal(
    fidelityInWords({ synthetic: 0.51, real: 0.7, weakest }, named),
    "Masks are found less well in synthetic images (overlap 0.51) than in real ones (0.70), least of all tip (0.31, real 0.62): aligning can repair that.",
  );
  assert.equal(
    fidelityInWords({ synthetic: 0.68, real: 0.7, weakest }, named),
    "Masks are found as well in synthetic images (overlap 0.68) as in real ones (0.70): scores leave little to repair, votes may.",
  );
});

test("before the first test no lamp judges", () => {
  assert.deepEqual(states({}), ["idle", "idle", "idle", "idle"]);
  assert.equal(lampsInWords(lamps({}, ALARMS)), "Not measured yet.");
});

test("lamps turn at the limits that stop a run", () => {
  const calm = { winner_ratio: curve(1.05), accuracy_gap: curve(0.02), gradient_ratio: curve(1, 1, 1), loss: curve(0.6), held_pairs: curve(30) };
  assert.deepEqual(states(calm), ["calm", "calm", "calm", "calm"]);
  assert.equal(states({ ...calm, winner_ratio: curve(1.2) })[0], "near");
  assert.equal(states({ ...calm, winner_ratio: curve(1.2, 1.26) })[0], "alarm");
  assert.equal(states({ ...calm, accuracy_gap: curve(0.12) })[1], "near");
  assert.equal(states({ ...calm, accuracy_gap: curve(0.16) })[1], "alarm");
  assert.equal(states({ ...calm, accuracy_gap: curve(0.5), held_pairs: curve(10) })[1], "idle"); // too few to judge
  assert.equal(states({ ...calm, not_a_number: curve(1) })[3], "alarm");
  assert.equal(lampsInWords(lamps({ ...calm, winner_ratio: curve(1.3) }, ALARMS)), "Alarm: winner error.");
});

test("one high gradient is near, three in a row are an alarm", () => {
  assert.equal(states({ gradient_ratio: curve(1, 1, 9) })[2], "near");
  assert.equal(states({ gradient_ratio: curve(9, 9, 1, 9, 9) })[2], "near");
  assert.equal(states({ gradient_ratio: curve(1, 9, 6, 7) })[2], "alarm");
  assert.equal(states({ gradient_ratio: curve(9, 9, 9, 1, 1, 1) })[2], "calm");
});

test("smoothing is a running mean that keeps the steps", () => {
  assert.deepEqual(smoothed([[1, 2], [2, 4], [3, 9]], 2), [[1, 2], [2, 3], [3, 6.5]]);
});

test("live pictures are rows of masks, columns of steps", () => {
  const rows = pictureRows([
    ["image 2", 50, "d"],
    ["image 10", 0, "x"],
    ["label map 2", 0, "m"],
    ["image 2", 0, "c"],
  ]);
  assert.deepEqual(rows, [
    { number: 2, map: "m", cells: [[0, "c"], [50, "d"]] },
    { number: 10, map: null, cells: [[0, "x"]] },
  ]);
});

test("the blind test is told with its interval", () => {
  const found = { new: 13, old: 4, even: 3, skipped: 0, people: 1, rate: 13 / 17, interval: [0.527, 0.904] };
  assert.equal(trialInWords(found, "You"), "You preferred the new version in 13 of 17 (interval 53 to 90\u00a0%); 3 without a preference.");
  assert.equal(trialInWords(null, "You"), "You saw no difference yet.");
  const ties = { rate: null, interval: null, new: 0, old: 0, even: 2, skipped: 1 };
  assert.equal(trialInWords(ties, "You"), "You preferred neither version: 2 without a preference, 1 skipped.");
});

test("a chain stays in one lane, however long", () => {
  const items = Array.from({ length: 30 }, (_, index) => ({ id: 30 - index, parent: 29 - index || "base" }));
  const rows = lanes([...items, { id: "base", parent: null }]);
  assert.ok(rows.every((row) => row.lane === 0 && !row.passing.length));
  assert.deepEqual(rows.map((row) => row.down).slice(-2), [true, false]);
});

test("branches run beside each other and meet at their parent", () => {
  // 4 and 3 both come from 2; 1 is the root.
  const rows = lanes([{ id: 4, parent: 2 }, { id: 3, parent: 2 }, { id: 2, parent: 1 }, { id: 1, parent: null }]);
  assert.deepEqual(rows.map((row) => row.lane), [0, 1, 0, 0]);
  assert.deepEqual(rows[1].passing, [0]);
  assert.deepEqual(rows[2].from, [0, 1]);
  assert.deepEqual(rows[3], { lane: 0, from: [0], passing: [], down: false });
});

test("who decided a pair, and what speaks against the segmenter", () => {
  const said = (decider, num_people = 0, num_against = 0, reason = null) => deciderInWords({ decider, reason, num_people, num_against });
  assert.deepEqual(
    [said("ruling", 1), said("vote", 1), said("vote", 2, 1), said("agreed", 2), said("score"), said("real"), said(null, 0, 0, "both_good")],
    [
      "The lead decided",
      "1 person decided",
      "2 of 3 people decided",
      "2 people and the score agree",
      "The score decided",
      "The real image wins",
      "People see no difference",
    ],
  );
  const doubt = (weak_dice, confidence) =>
    doubtInWords({ separating_class: 1, weak_dice, confidence }, [{ name: "tissue" }, { name: "bleeding" }]).replaceAll("\u00a0", " ");
  assert.equal(doubt(null, null), "");
  assert.equal(doubt(0.45, null), "The segmenter is weak on bleeding (45 % on real images).");
  assert.equal(doubt(0.45, 0.61), "The segmenter is weak on bleeding (45 % on real images) and only 61 % sure.");
});

test("single images in words", () => {
  const counts = { liked: 0, disliked: 0, real: 0, disputed: 0 };
  assert.equal(singlesInWords(counts), "");
  assert.equal(
    singlesInWords({ liked: 1, disliked: 3, real: 2, disputed: 1 }),
    "Also 4 single images: 1 liked, 3 disliked, 2 real images as further liked ones. 1 image left out, because people disagree.",
  );
  assert.equal(singlesInWords({ ...counts, disputed: 2 }), "2 images left out, because people disagree.");
  assert.equal(singleInWords({ is_liked: false, source: "people", num_people: 1 }), "1 person does not like it");
  assert.equal(singleInWords({ is_liked: true, source: "people", num_people: 2 }), "2 people like it");
  assert.equal(singleInWords({ is_liked: true, source: "ruling", num_people: 1 }), "The lead likes it");
  assert.equal(singleInWords({ is_liked: true, source: "real", num_people: 0 }), "A real image stands for a liked one");
});
