// What a measurement says, in words; no page in here, so that it can be tested.

/** Arms are named "kind share": "plain 0", "aligned 2 1" (round 2, one synthetic image per real one). */
export function armOf(name) {
  const [, kind, version, share, recipe] = name.match(/^([a-z]+)(?: (\d+))? ([\d.]+)(?: ([a-z]+))?$/) ?? [];
  return { name, kind, version: version ? Number(version) : 0, share: Number(share), recipe: recipe ?? "mixed" };
}

const KINDS = ["plain", "augmented", "base", "few", "weak", "hardest", "mined", "learned", "gated", "unlike", "refined", "painted", "guided", "rejection", "aligned", "curated"];

/** Real images first, then share by share from the simplest to the last round; a stored table has lost its order. */
export function sortedArms(names) {
  const keys = (name) => {
    const { kind, share, recipe, version } = armOf(name);
    return [share, recipe === "mixed" ? 0 : 1, KINDS.indexOf(kind), version];
  };
  return [...names].sort((one, two) => {
    const [a, b] = [keys(one), keys(two)],
      at = a.findIndex((part, index) => part !== b[index]);
    return at < 0 ? 0 : a[at] - b[at];
  });
}

export function armWords(name, { showsShare = true } = {}) {
  const { kind, version, share, recipe } = armOf(name);
  if (kind === "plain") return "Real images only";
  if (kind === "augmented") return "Real, augmented";
  const made = {
    base: "+ synthetic, not aligned",
    few: "+ few-shot fit",
    weak: "+ masks by what is missed",
    hardest: "+ hardest, right or not",
    mined: "+ hard and right",
    learned: "+ hard and right, learnt",
    gated: "+ quality check",
    unlike: "+ best of several, no copies",
    refined: "+ refined masks",
    painted: "+ painted into real ones",
    guided: "+ painted, guided",
    rejection: "+ best of several",
    aligned: `+ aligned, round ${version}`,
    curated: `+ aligned ${version}, best`,
  }[kind];
  const extra = [showsShare && share !== 1 && `\u00d7${share}`, recipe === "first" && "first"].filter(Boolean).join(", ");
  return (made ?? name) + (extra ? ` (${extra})` : "");
}

const signed = (value, digits = 0) => `${value > 0 ? "+" : value < 0 ? "\u2212" : ""}${Math.abs(value).toFixed(digits)}`;

/**
 * The arm that the sentence at the top is about: the last round, as near to one synthetic image per real one as was measured.
 * Settled before anything is measured: the best of many arms would look better than it is.
 */
export function headArm(arms) {
  const made = sortedArms(Object.keys(arms)).filter((name) => armOf(name).share > 0 && armOf(name).recipe === "mixed");
  const aligned = made.filter((name) => armOf(name).kind === "aligned"),
    last = Math.max(...aligned.map((name) => armOf(name).version));
  const asked = aligned.length ? aligned.filter((name) => armOf(name).version === last) : made;
  const away = (name) => Math.abs(Math.log(armOf(name).share));
  return asked.sort((one, two) => away(one) - away(two))[0] ?? null;
}

/** Where rounds were refused, the arm has images of the version before: said with its name. */
export const refusedWords = (arm, repeats) =>
  arm.refused ? ` (round refused${repeats > 1 ? ` in ${arm.refused} of ${repeats}` : ""})` : "";

/** Whether a paired gain is one: its interval lies above 0, below it, or across it. */
export function verdictOf(gain) {
  if (!gain || gain[0] === null) return "unknown";
  return gain[1] > 0 ? "better" : gain[2] < 0 ? "worse" : "open";
}

/** The sentence at the top: what the user asked for, with its uncertainty, and against the harder baseline too. */
export function headline(result) {
  const measure = result.task === "classification" ? "f1" : "dice",
    unit = measure === "f1" ? "F1" : "Dice",
    name = headArm(result.arms);
  if (!name || !result.arms["plain 0"][measure][0] || result.arms[name][measure][0] === null) return { kind: "unknown", text: "Nothing with synthetic images was measured." };
  const arm = result.arms[name],
    plain = result.arms["plain 0"];
  const over = (other) => {
    const gain = arm[`gain over ${other}`],
      base = result.arms[other][measure][0];
    return { gain, percent: gain.map((part) => (100 * part) / base), kind: verdictOf(gain) };
  };
  const real = over("plain 0"),
    augmented = over("augmented 0");
  const range = ({ percent }) => `${signed(percent[0])} % (${signed(percent[1])} to ${signed(percent[2])} %)`;
  const first = `${unit} on unseen patients: ${plain[measure][0].toFixed(3)} with ${result.num_real} real images only, ${arm[measure][0].toFixed(3)} with ${armWords(name).replace(/^\+ /, "")} images added${refusedWords(arm, result.rounds.length)}: ${range(real)}.`;
  const then = {
    better: `Also better than augmented real images: ${range(augmented)}.`,
    open: `Against augmented real images the difference may be chance: ${range(augmented)}.`,
    worse: `Against augmented real images it is worse: ${range(augmented)}.`,
    unknown: "",
  }[augmented.kind];
  return { kind: real.kind === "better" ? augmented.kind : real.kind, text: [first, then, alignmentWords(result, name, over)].filter(Boolean).join(" ") };
}

/** What alignment itself is worth: the same masks by the same generator before it. */
function alignmentWords(result, name, over) {
  const { kind, share } = armOf(name),
    base = `base ${share}`;
  if (kind !== "aligned" || !result.arms[name][`gain over ${base}`]) return "";
  const gain = over(base),
    range = `${signed(gain.percent[0], 1)} % (${signed(gain.percent[1], 1)} to ${signed(gain.percent[2], 1)} %)`;
  return {
    better: `Aligning itself adds to images that are not aligned: ${range}.`,
    open: `What aligning adds to images that are not aligned may be chance: ${range}.`,
    worse: `Aligned images help less than those that are not aligned: ${range}.`,
    unknown: "",
  }[gain.kind];
}

export const TITLES = {
  better: "It helps",
  open: "Not clear yet",
  worse: "It does not help",
  unknown: "Nothing to say yet",
};

/** One sentence on a round of alignment. */
export function roundWords(numbers, round, task = "segmentation") {
  if (numbers.refused) return `Round ${round} brought nothing better: ${numbers.refused}.`;
  const [gain, low, high] = numbers.gain;
  const [cases, measure] = task === "classification" ? ["test images", "probability of the asked class"] : ["masks", "fidelity"];
  return `Round ${round}: the judge prefers the new images in ${Math.round(100 * numbers.win_rate)} % of the ${cases}, ${measure} ${signed(gain, 3)} (${signed(low, 3)} to ${signed(high, 3)}), ${numbers.num_pairs} pairs.`;
}
