// What Curate knows of each image, and which of them to show in which order. Knows nothing of the page.

export const STATES = ["pending", "accepted", "rejected", "quarantined"];
/** What an image is for the segmenter's training, as in saadi/mining/choosing.py. */
export const USES = ["prize", "filler", "quarantine", "doubtful"];
export const USE_WORDS = { prize: "hard and right", filler: "easy and right", quarantine: "hard, wrong or unreal", doubtful: "easy, wrong or unreal" };
export const FOUND = 0.7,
  MISSED = 0.4; // as in ui/words.py
export const VERY_CLOSE = 0.99; // as in ui/words.py

/**
 * One object per image out of the columns of `/api/projects/N/facts`. In classification (`seen` is there) `classes` holds the one
 * class that was asked for, `selector` and `judge` are its probability, and `seen` is the class that is likeliest to the selector.
 */
export function itemsOf(columns) {
  const isClass = Boolean(columns.seen),
    names = isClass ? columns.classes : columns.classes.slice(1);
  return columns.id.map((id, index) => {
    const mask = columns.masks[columns.mask[index]],
      dice = names.map((_, row) => columns.class_dice[row][index]);
    return {
      id,
      blob: columns.blob[index],
      label_map_blob: mask.blob,
      classes: mask.classes,
      rarest: mask.rarest,
      rarity: mask.rarity,
      version: columns.versions[columns.version[index]],
      curation: STATES[columns.state[index]],
      isDrawn: Boolean(columns.is_drawn[index]),
      isComposite: Boolean(columns.is_composite[index]),
      seed: columns.seed[index],
      created: columns.created[index],
      selector: columns.selector[index],
      judge: columns.judge[index],
      disagreement: columns.disagreement[index],
      classDice: dice,
      isClass,
      seen: columns.seen?.[index] ?? null,
      quality: columns.quality[index],
      farther: columns.farther[index],
      gate: columns.gate[index],
      use: USES[columns.quadrant?.[index]] ?? null,
      votes: columns.votes[index],
      wins: columns.wins[index],
      flagged: Boolean(columns.flagged[index]),
      flaggedByMe: Boolean(columns.flagged_by_me[index]),
      favourite: Boolean(columns.favourite[index]),
      color: columns.color[index],
    };
  });
}

/** The asked class that the segmenter finds least: `{ index, dice }`, or null where nothing was scored. */
export function weakest(item) {
  let found = null;
  if (item.isClass) return item.selector === null ? null : { index: item.classes[0], dice: item.selector };
  for (const index of item.classes) {
    const dice = item.classDice[index - 1];
    if (dice !== null && dice !== undefined && (!found || dice < found.dice)) found = { index, dice };
  }
  return found;
}

/** The card's line: what the segmenter makes of the weakest class, in words. */
export function shortWords(item, classNames) {
  const found = weakest(item);
  if (!found) return item.selector === null ? "not scored yet" : "background only";
  if (item.isClass) {
    const asked = classNames[found.index];
    if (item.seen !== found.index) return `${asked}? Looks like ${classNames[item.seen]}`;
    return found.dice >= FOUND ? `looks like ${asked}` : `${asked}, but not sure`;
  }
  const share = `${Math.round(100 * found.dice)}\u00a0%`;
  if (found.dice >= FOUND) return "finds everything";
  return found.dice >= MISSED ? `${classNames[found.index]} in part, ${share}` : `misses ${classNames[found.index]}, ${share}`;
}

// ---- filters

/** Ranges are in percent, both ends included; an image of which the value is unknown is in the full range only. */
export const RANGES = {
  selector: "Segmenter",
  judge: "Judge",
  disagreement: "Disagreement",
  quality: "Quality",
  rarity: "Rarity",
};
const FULL = [0, 100];
export const VOTES = { any: "any", some: "with votes", none: "no votes yet", won: "mostly won", lost: "mostly lost" };
export const EMPTY = Object.freeze({
  state: "all",
  classes: [],
  selector: FULL,
  judge: FULL,
  disagreement: FULL,
  quality: FULL,
  rarity: FULL,
  votes: "any",
  version: "",
  made: "",
  use: "",
  flagged: false,
  favourite: false,
  veryClose: false,
  refused: false,
  mask: "",
  ids: null,
});

const isFull = (range) => range[0] <= 0 && range[1] >= 100;
function inRange(value, range) {
  if (isFull(range)) return true;
  if (value === null || value === undefined) return false;
  const percent = Math.round(100 * value);
  return percent >= range[0] && percent <= range[1];
}
function hasVotes(item, wanted) {
  if (wanted === "any") return true;
  if (wanted === "none") return item.votes === 0;
  if (item.votes === 0) return false;
  return wanted === "some" || (wanted === "won" ? item.wins > 0.5 : item.wins < 0.5);
}

export function matches(item, filter) {
  return (
    (filter.state === "all" || item.curation === filter.state) &&
    // A mask holds all of the chosen classes, an image as a whole is one of them.
    (item.isClass && filter.classes.length
      ? filter.classes.includes(item.classes[0])
      : filter.classes.every((index) => item.classes.includes(index))) &&
    Object.keys(RANGES).every((name) => inRange(item[name], filter[name])) &&
    hasVotes(item, filter.votes) &&
    (!filter.version || item.version === filter.version) &&
    (!filter.made || item.isDrawn === (filter.made === "draw")) &&
    (!filter.use || item.use === filter.use) &&
    (!filter.flagged || item.flagged) &&
    (!filter.favourite || item.favourite) &&
    (!filter.veryClose || (item.farther ?? 0) >= VERY_CLOSE) &&
    (!filter.refused || item.gate > 0) &&
    (!filter.mask || item.label_map_blob === filter.mask) &&
    (!filter.ids || filter.ids.has(item.id))
  );
}

/** The ranges as a task calls them. */
export const rangesOf = (isClass) => (isClass ? { ...RANGES, selector: "Classifier" } : RANGES);

/** Active filters as `{ key, text }`; `state` is not among them, as it has its own control. */
export function chips(filter, classNames, isClass = false) {
  const asked = isClass ? "asked for" : "with",
    found = filter.classes.map((index) => ({ key: `class:${index}`, text: `${asked} ${classNames[index] ?? index}` }));
  for (const [name, title] of Object.entries(rangesOf(isClass))) {
    const [low, high] = filter[name];
    if (isFull(filter[name])) continue;
    const text = low <= 0 ? `\u2264 ${high}` : high >= 100 ? `\u2265 ${low}` : `${low}\u2013${high}`;
    found.push({ key: name, text: name === "rarity" ? `class in ${text}\u00a0% of ${isClass ? "training images" : "masks"}` : `${title} ${text}\u00a0%` });
  }
  if (filter.votes !== "any") found.push({ key: "votes", text: `votes: ${VOTES[filter.votes]}` });
  if (filter.version) found.push({ key: "version", text: versionName(filter.version) });
  if (filter.made) found.push({ key: "made", text: filter.made === "draw" ? "made in Draw" : "made for the pool" });
  if (filter.use) found.push({ key: "use", text: USE_WORDS[filter.use] ?? filter.use });
  if (filter.flagged) found.push({ key: "flagged", text: "flagged" });
  if (filter.favourite) found.push({ key: "favourite", text: "my favourites" });
  if (filter.veryClose) found.push({ key: "veryClose", text: "very close to a real image" });
  if (filter.refused) found.push({ key: "refused", text: "refused by the quality check" });
  if (filter.mask) found.push({ key: "mask", text: isClass ? "same class" : "same mask" });
  if (filter.ids) found.push({ key: "ids", text: `chosen on the map (${filter.ids.size})` });
  return found;
}

/** The filter without one of its chips. */
export function without(filter, key) {
  if (key.startsWith("class:")) return { ...filter, classes: filter.classes.filter((index) => `class:${index}` !== key) };
  return { ...filter, [key]: EMPTY[key] };
}

/** For the browser's memory; a choice on the map is left out, as it belongs to one sitting. */
export const filterText = (filter) => JSON.stringify({ ...filter, ids: undefined });

/** A filter out of the browser's memory; what does not fit (an older release, another project) is left out. */
export function filterFrom(text) {
  const filter = { ...EMPTY };
  let kept;
  try {
    kept = JSON.parse(text ?? "{}");
  } catch {
    return filter;
  }
  for (const [key, usual] of Object.entries(EMPTY)) {
    const value = kept?.[key];
    const fits = Array.isArray(usual)
      ? Array.isArray(value) && value.every(Number.isFinite) && (!(key in RANGES) || value.length === 2)
      : typeof value === typeof usual && usual !== null;
    if (fits) filter[key] = value;
  }
  if (filter.state !== "all" && !STATES.includes(filter.state)) filter.state = "all";
  if (!(filter.votes in VOTES)) filter.votes = "any";
  if (filter.use && !(filter.use in USE_WORDS)) filter.use = "";
  return filter;
}

export const versionName = (name) => (name === "base" ? "base generator" : `version ${name}`);

// ---- order

const by = (value) => (first, second) => {
  const a = value(first),
    b = value(second);
  if (a === b) return second.id - first.id;
  if (a === null || a === undefined) return 1; // unknown ones come last in every order
  if (b === null || b === undefined) return -1;
  return a < b ? -1 : 1;
};
const most = (name) => by((item) => (item[name] === null ? null : -item[name]));
const least = (name) => by((item) => item[name]);
export const SORTS = {
  newest: ["Newest", (a, b) => b.id - a.id],
  best: ["Best first", most("selector")],
  worst: ["Worst first", least("selector")],
  judge: ["Judge: worst first", least("judge")],
  weakest: ["Weakest class", by((item) => weakest(item)?.dice ?? null)],
  hardest: ["Hardest that are right", by((item) => (item.use === "prize" ? item.selector : null))],
  doubtful: ["Models disagree", most("disagreement")],
  quality: ["Least like real", least("quality")],
  close: ["Closest to real", most("farther")],
  votes: ["Most votes", by((item) => (item.votes ? -item.votes : null))],
  wins: ["Most votes won", most("wins")],
  rarest: ["Rarest classes", least("rarity")],
  flagged: ["Flagged first", by((item) => (item.flagged ? 0 : 1))],
  version: ["By version", by((item) => item.version)],
  mask: ["By mask", (a, b) => (a.label_map_blob === b.label_map_blob ? a.id - b.id : a.label_map_blob < b.label_map_blob ? -1 : 1)],
};

/** The orders that a task has, as `[key, text]`. */
export function sortsOf(isClass) {
  const all = Object.entries(SORTS).map(([key, [text]]) => [key, text]);
  if (!isClass) return all;
  return all.filter(([key]) => key !== "weakest").map(([key, text]) => [key, key === "mask" ? "By class" : text]);
}

/** The images to show, in order. */
export function arrange(items, filter, sort) {
  return items.filter((item) => matches(item, filter)).sort((SORTS[sort] ?? SORTS.newest)[1]);
}

/** How often each fifth percent occurs: `bins` counts of one range's values, for a picture of its spread. */
export function histogram(items, name, bins = 20) {
  const counts = new Array(bins).fill(0);
  for (const item of items)
    if (item[name] !== null && item[name] !== undefined)
      counts[Math.min(bins - 1, Math.max(0, Math.floor(item[name] * bins)))]++;
  return counts;
}
