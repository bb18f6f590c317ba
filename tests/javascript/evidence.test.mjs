// The pure parts of the Evidence tab: names of arms, what a gain is, the sentence at the top.
import assert from "node:assert/strict";
import test from "node:test";
import { armOf, armWords, headArm, headline, roundWords, sortedArms, verdictOf } from "../../ui/static/evidence_words.js";

const arm = (mean, gain, other) => ({ dice: [mean, mean - 0.05, mean + 0.05], "gain over plain 0": gain, "gain over augmented 0": other });
const result = (gain, other) => ({
  rounds: [[]],
  task: "segmentation",
  num_real: 50,
  arms: {
    "plain 0": { dice: [0.5, 0.45, 0.55] },
    "augmented 0": arm(0.55, [0.05, 0.01, 0.09]),
    "base 1": arm(0.7, [0.2, 0.1, 0.3], other),
    "aligned 1 1": arm(0.58, gain, other),
    "aligned 2 0.5": arm(0.6, gain, other),
    "aligned 1 2": arm(0.9, gain, other),
  },
});

test("names of arms are read back", () => {
  assert.deepEqual(armOf("aligned 2 0.5"), { name: "aligned 2 0.5", kind: "aligned", version: 2, share: 0.5, recipe: "mixed" });
  assert.deepEqual(armOf("base 1 first"), { name: "base 1 first", kind: "base", version: 0, share: 1, recipe: "first" });
  assert.equal(armWords("plain 0"), "Real images only");
  assert.equal(armWords("aligned 2 0.5"), "+ aligned, round 2 (\u00d70.5)");
  assert.equal(armWords("base 1"), "+ synthetic, not aligned");
});

test("arms are told from the simplest on, share by share", () => {
  const wanted = ["plain 0", "augmented 0", "base 0.5", "aligned 1 0.5", "base 1", "rejection 1", "aligned 1 1", "aligned 2 1", "curated 2 1", "base 1 first"];
  assert.deepEqual(sortedArms([...wanted].sort()), wanted);
});

test("only an interval on one side of zero is a gain or a loss", () => {
  assert.deepEqual([[0.1, 0.01, 0.2], [0.1, -0.01, 0.2], [-0.1, -0.2, -0.01], [null, null, null], undefined].map(verdictOf),
    ["better", "open", "worse", "unknown", "unknown"]);
});

test("the sentence is about alignment, with its range, against both baselines", () => {
  const found = headline(result([0.1, 0.05, 0.15], [0.05, 0.01, 0.09]));
  assert.equal(headArm(result().arms), "aligned 2 0.5");
  assert.equal(found.kind, "better");
  assert.equal(found.text, "Dice on unseen patients: 0.500 with 50 real images only, 0.600 with aligned, round 2 (\u00d70.5) images added: "
    + "+20 % (+10 to +30 %). Also better than augmented real images: +9 % (+2 to +16 %).");
});

test("what aligning itself adds is said, and not taken from synthetic images as such", () => {
  const found = (gain) => {
    const made = result([0.1, 0.05, 0.15], [0.05, 0.01, 0.09]);
    made.arms["base 0.5"] = arm(0.59, [0.09, 0.04, 0.14], [0.04, 0.01, 0.08]);
    made.arms["aligned 2 0.5"]["gain over base 0.5"] = gain;
    return headline(made).text;
  };
  assert.match(found([0.01, -0.02, 0.04]), /than augmented real images: \+9 % \(\+2 to \+16 %\)\. What aligning adds to images that are not aligned may be chance: \+1\.7 % \(\u22123\.4 to \+6\.8 %\)\.$/);
  assert.match(found([0.0118, 0.0059, 0.0177]), /Aligning itself adds to images that are not aligned: \+2\.0 % \(\+1\.0 to \+3\.0 %\)\.$/);
  assert.match(found([-0.0118, -0.0177, -0.0059]), /Aligned images help less than those that are not aligned: \u22122\.0 %/);
  assert.doesNotMatch(found([null, null, null]), /lign(ing|ed images)/);
});

test("a gain that augmentation gives too is not called one, and a loss is said", () => {
  const open = headline(result([0.1, 0.05, 0.15], [0.01, -0.02, 0.04]));
  assert.equal(open.kind, "open");
  assert.match(open.text, /may be chance: \+2 % \(\u22124 to \+7 %\)/);
  assert.equal(headline(result([-0.1, -0.15, -0.05], [-0.2, -0.3, -0.1])).kind, "worse");
  assert.equal(headline({ ...result([0, 0, 0], [0, 0, 0]), arms: { "plain 0": { dice: [1, 1, 1] } } }).kind, "unknown");
});

test("the arm of the sentence is settled beforehand, not the best one", () => {
  const names = (...list) => Object.fromEntries(list.map((name) => [name, {}]));
  assert.equal(headArm(names("plain 0", "base 1", "aligned 1 1", "aligned 2 0.5", "aligned 2 1", "aligned 2 2")), "aligned 2 1");
  assert.equal(headArm(names("plain 0", "base 0.5", "base 2")), "base 0.5");
  assert.equal(headArm(names("plain 0")), null);
});

test("images of a refused round are not called aligned without saying so", () => {
  const found = result([0.1, 0.05, 0.15], [0.05, 0.01, 0.09]);
  found.arms["aligned 2 0.5"].refused = 2;
  found.rounds = [[], [], []];
  assert.match(headline(found).text, /images added \(round refused in 2 of 3\)/);
});

test("a round that was refused says why", () => {
  assert.equal(roundWords({ refused: "no checkpoint was better" }, 2), "Round 2 brought nothing better: no checkpoint was better.");
  assert.equal(roundWords({ win_rate: 0.875, gain: [0.018, 0.011, 0.026], num_pairs: 96, step: 150 }, 1),
    "Round 1: the judge prefers the new images in 88 % of the masks, fidelity +0.018 (+0.011 to +0.026), 96 pairs.");
  assert.match(roundWords({ win_rate: 0.875, gain: [0.018, 0.011, 0.026], num_pairs: 96 }, 1, "classification"),
    /88 % of the test images, probability of the asked class \+0\.018/);
});
