// For each pair that the next alignment would learn from: both images under their mask, who decided it, and how much it counts;
// and those that are left out, with the reason.
import { act, badge, byTask, fixed, get, h, isClassification, kbd, onKeys, percent, picture, plural, replace, segmented, state, urls } from "./lib.js";
import { openDetail } from "./detail.js";

const PER_PAGE = 12;
const FILTERS = [
  ["all", "All"],
  ["ruling", "Ruling"],
  ["vote", "People"],
  ["agreed", "People and score"],
  ["score", "Score alone"],
  ["real", "Real image"],
  ["left_out", "Left out"],
  ["single", "Single images"],
];
const REASONS = {
  conflict: "Opinions differ: waits for a second opinion",
  undecided: "Scores too close to call, nobody voted",
  both_bad: "Somebody called an image bad: it cannot win",
  both_good: "People see no difference",
  get cap() {
    return `Two pairs of this ${isClassification() ? "set" : "mask"} are enough`;
  },
};
const WEIGHTS = { 1: "counts fully", 0.5: "counts half", 0.25: "counts a quarter" };

/** Who decided a pair, in words. */
export function deciderInWords({ decider, reason, num_people, num_against }) {
  const all = num_people + num_against,
    people = num_against ? `${num_people} of ${all} people` : plural(num_people, "person", "people");
  return {
    ruling: "The lead decided",
    vote: `${people} decided`,
    agreed: `${people} and the score agree`,
    score: "The score decided",
    real: "The real image wins",
  }[decider] ?? REASONS[reason];
}

/** What speaks against the segmenter's opinion on a pair; "" where nothing does. */
export function doubtInWords({ separating_class: index, weak_dice: dice, confidence }, classes) {
  const [model, measure] = isClassification() ? ["classifier", "F1 "] : ["segmenter", ""];
  const parts = [
    dice !== null && `weak on ${classes[index]?.name ?? `class ${index}`} (${measure}${percent(dice)} on real images)`,
    confidence !== null && `only ${percent(confidence)} sure`,
  ].filter(Boolean);
  return parts.length ? `The ${model} is ${parts.join(" and ")}.` : "";
}

export class SettledPairs {
  /** Args: done: () => called when somebody goes back. */
  constructor({ done }) {
    Object.assign(this, { who: "all", first: 0, total: 0, done });
    this.title = h("h2", { tabindex: "-1" }, "Settled pairs");
    this.filter = segmented("Who decided", FILTERS, "all", (who) => this.load({ who, first: 0 }));
    this.where = h("span", { class: "sx-note", role: "status" });
    this.previous = this.button("\u2190", "Previous page", () => this.turn(-1));
    this.next = this.button("\u2192", "Next page", () => this.turn(1));
    this.list = h("ul", { class: "sx-settled-list", "aria-label": "Pairs" });
    this.root = h(
      "section",
      { class: "sx-settled", hidden: true, "aria-label": "Settled pairs" },
      h(
        "div",
        { class: "sx-settled-head" },
        h("button", { type: "button", class: "sx-button", id: "pairs-back", onclick: () => this.close() }, "Back", kbd("Esc")),
        this.title,
        this.filter,
        h("div", { class: "sx-settled-pages" }, this.where, this.previous, this.next),
      ),
      h("p", { class: "sx-note" }, "Scores and votes are shown here, so vote first. ", byTask("Bold: the class in which the two differ most. ", "Both images of a pair are of the named class. "), "Open an image to look closely."),
      this.list,
    );
    onKeys(this.root, (event) => this.key(event));
  }

  button(text, label, onclick) {
    return h("button", { type: "button", class: "sx-button sx-small", "aria-label": label, title: label, onclick }, text);
  }

  key(event) {
    if (event.key === "Escape") this.close();
    else if (event.key === "ArrowRight") this.turn(1);
    else if (event.key === "ArrowLeft") this.turn(-1);
    else return false;
    return true;
  }

  async open() {
    await this.load({ who: "all", first: 0 });
    this.root.hidden = false;
    this.title.focus();
  }

  close() {
    this.root.hidden = true;
    replace(this.list);
    this.done();
  }

  turn(by) {
    const first = this.first + by * PER_PAGE;
    if (first >= 0 && first < this.total) act(null, () => this.load({ who: this.who, first }));
  }

  load({ who, first }) {
    const wanted = (this.wanted = {}); // of two quick turns the last one is shown
    return act(null, async () => {
      const found = await get(`/api/projects/${state.project.id}/pairs?who=${who}&first=${first}&count=${PER_PAGE}`);
      if (this.wanted !== wanted) return;
      Object.assign(this, { who, first, total: found.total });
      this.show(found);
    });
  }

  show({ num_pairs, num_singles, deciders, reasons, total, first, rows }) {
    const counts = { ...deciders, all: num_pairs, single: num_singles, left_out: Object.values(reasons).reduce((sum, count) => sum + count, 0) };
    this.filter.set(this.who);
    for (const button of this.filter.children) {
      const name = button.dataset.value;
      button.textContent = `${FILTERS.find(([key]) => key === name)[1]} ${counts[name] ?? 0}`;
      button.hidden = name !== "all" && name !== this.who && !counts[name];
    }
    this.where.textContent = total ? `${first + 1}\u2013${first + rows.length} of ${total}` : "none";
    this.previous.disabled = first === 0;
    this.next.disabled = first + rows.length >= total;
    replace(this.list, rows.length ? rows.map((row) => (row.second ? card(row) : singleCard(row))) : h("li", { class: "sx-empty" }, "There are no such pairs."));
    this.list.parentElement.scrollTop = 0;
    this.root.dataset.shown = `${this.who}:${first}`;
  }
}

function card(row) {
  const { first, second, decider } = row,
    doubt = doubtInWords(row, state.project.classes),
    names = row.classes.map((index) => state.project.classes[index]).filter(Boolean);
  const facts = decider
    ? [WEIGHTS[row.weight] ?? `counts ${percent(row.weight)}`, `margin ${fixed(row.margin)}`].join(" \u00b7 ")
    : null;
  return h(
    "li",
    { class: "sx-settled-pair", dataset: { who: decider ?? "left_out", reason: row.reason ?? "" } },
    h(
      "div",
      { class: "sx-settled-pictures" },
      side(first, row.label_map_blob, decider ? "chosen" : "", decider ? "\u2713" : ""),
      side(second, row.label_map_blob, decider ? "not chosen" : "", decider ? "\u2717" : ""),
    ),
    h("p", { class: "sx-settled-who", dataset: { source: decider === "ruling" ? "vote" : decider } }, h("i"), h("b", {}, deciderInWords(row))),
    facts && h("p", { class: "sx-note" }, facts),
    h(
      "p",
      { class: "sx-settled-classes" },
      names.map(({ index, name, color }) =>
        h("span", { dataset: { differs: index === row.separating_class } }, h("i", { style: { background: color } }), name),
      ),
    ),
    doubt && h("p", { class: "sx-settled-doubt" }, doubt),
  );
}

/** What people say of one image by itself. */
export function singleInWords({ is_liked, source, num_people }) {
  if (source === "real") return "A real image stands for a liked one";
  const who = source === "ruling" ? "The lead" : plural(num_people, "person", "people");
  return `${who} ${is_liked ? (num_people === 1 ? "likes it" : "like it") : num_people === 1 ? "does not like it" : "do not like it"}`;
}

function singleCard(row) {
  const names = row.classes.map((index) => state.project.classes[index]).filter(Boolean),
    [role, mark] = row.is_liked ? ["chosen", "\u2713"] : ["not chosen", "\u2717"];
  return h(
    "li",
    { class: "sx-settled-pair", dataset: { who: "single", reason: "" } },
    h("div", { class: "sx-settled-pictures" }, side(row.first, row.label_map_blob, role, mark, row.is_liked ? "liked" : "not liked")),
    h("p", { class: "sx-settled-who", dataset: { source: row.source === "real" ? "real" : "vote" } }, h("i"), h("b", {}, singleInWords(row))),
    h("p", { class: "sx-note" }, WEIGHTS[row.weight] ?? `counts ${percent(row.weight)}`),
    h("p", { class: "sx-settled-classes" }, names.map(({ name, color }) => h("span", {}, h("i", { style: { background: color } }), name))),
  );
}

/** One image under the outline of its mask; a synthetic one opens. */
function side(item, mask, role, mark, said = role) {
  const isReal = item.sample_id === null,
    what = isReal ? "real image" : `image ${item.sample_id}`,
    label = `${said ? `${said}: ` : ""}${what}${item.dice === null ? "" : `, score ${percent(item.dice)}`}`;
  const inside = [
    picture(urls.thumb(item.blob, 256), isReal ? label : ""),
    !isClassification() && picture(urls.outline(mask, item.blob, 256), "", { class: "sx-settled-outline" }),
    badge(isReal ? "real" : "synthetic"),
    mark && h("span", { class: "sx-settled-mark", "aria-hidden": "true" }, mark),
  ];
  return h(
    "figure",
    { dataset: { role } },
    isReal
      ? h("div", { class: "sx-settled-picture" }, inside)
      : h("button", { type: "button", class: "sx-settled-picture", "aria-label": label, onclick: () => openDetail(item.sample_id) }, inside),
    h("figcaption", {}, isReal ? "real" : item.dice === null ? "not scored" : `score ${percent(item.dice)}`),
  );
}
