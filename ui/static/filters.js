// The filter drawer of Curate and its chips: what is filtered is always written where one can take it away.
import { chips, EMPTY, histogram, RANGES, rangesOf, USE_WORDS, versionName, VOTES, without } from "./facts.js";
import { h, isClassification, plural, replace, selectField } from "./lib.js";

const HELP = {
  selector: "Overlap (Dice) of what the segmenter sees with the asked mask.",
  judge: "The same by the judge, a second model.",
  disagreement: "How far the two models are apart.",
  quality: "Likeness to real training images in colour and layout: 100 % = as close as a typical unseen real image, 50 % = twice as far.",
  rarity: "In how many training masks its rarest class is: few = rare.",
};
const CLASS_HELP = {
  ...HELP,
  selector: "How likely the classifier finds the class that was asked for (calibrated probability).",
  rarity: "In how many training images its class is: few = rare.",
};
const BINS = 20;

export class Filters {
  /** `onchange(filter)` is called with a new filter; `measure()` offers to measure what has no quality yet. */
  constructor({ onchange, measure }) {
    Object.assign(this, { onchange, measure, filter: EMPTY, classes: [], versions: [], items: [], unmeasured: 0, shown: 0 });
    this.button = h(
      "button",
      { type: "button", class: "sx-button sx-small", "aria-expanded": "false", "aria-controls": "curate-filters", onclick: () => this.toggle() },
      "Filters",
    );
    this.drawer = h("div", { class: "sx-filters", id: "curate-filters", role: "group", "aria-label": "Filters", hidden: true });
    this.drawer.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      event.preventDefault();
      this.toggle(false);
      this.button.focus();
    });
    this.chips = h("div", { class: "sx-chips", role: "group", "aria-label": "Active filters" });
  }

  /** Show what there is to choose from (`classes` of the project, by index), and what is chosen. */
  show(filter, { classes, versions, items, unmeasured, shown }) {
    Object.assign(this, { filter, classes, versions, items, unmeasured, shown });
    this.showChips();
    if (!this.drawer.hidden) this.draw();
  }

  showChips() {
    const found = chips(
      this.filter,
      this.classes.map(({ name }) => name),
      isClassification(),
    );
    const isInside = this.chips.contains(document.activeElement);
    replace(
      this.chips,
      found.map(({ key, text }) =>
        h(
          "button",
          {
            type: "button",
            class: "sx-chip",
            dataset: { key },
            "aria-label": `Take away: ${text}`,
            onclick: () => this.onchange(without(this.filter, key)),
          },
          text,
          h("span", { "aria-hidden": "true" }, "\u00d7"),
        ),
      ),
      found.length > 0 &&
        h("button", { type: "button", class: "sx-link", onclick: () => this.onchange({ ...EMPTY, state: this.filter.state }) }, "Clear"),
    );
    this.button.textContent = found.length ? `Filters (${found.length})` : "Filters";
    this.button.setAttribute("aria-pressed", String(found.length > 0));
    if (isInside) (this.chips.querySelector("button") ?? this.button).focus();
  }

  toggle(open = this.drawer.hidden) {
    this.drawer.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    if (!open) return;
    this.isBuilt = false;
    this.draw();
    this.drawer.querySelector("button, input, select")?.focus();
  }

  set(change) {
    this.onchange({ ...this.filter, ...change });
  }

  /** Built when opened; while open only the histograms and the pressed states follow, so that nobody loses the focus. */
  draw() {
    if (!this.isBuilt) this.build();
    for (const button of this.drawer.querySelectorAll("[data-class]"))
      button.setAttribute("aria-pressed", String(this.filter.classes.includes(Number(button.dataset.class))));
    for (const name of Object.keys(RANGES)) {
      const [low, high] = this.inputs[name];
      if (document.activeElement !== low) low.value = this.filter[name][0];
      if (document.activeElement !== high) high.value = this.filter[name][1];
      this.drawBars(name);
    }
    for (const name of ["flagged", "favourite", "veryClose", "refused"]) this.boxes[name].checked = this.filter[name];
    for (const name of ["votes", "version", "made", "use"]) this.selects[name].input.value = this.filter[name];
    this.count.textContent = `${this.shown.toLocaleString("en-US")} of ${plural(this.items.length, "image")}`;
    this.unmeasuredNote.hidden = !this.unmeasured;
    this.unmeasuredNote.firstChild.textContent = `${plural(this.unmeasured, "image")} not measured yet. `;
  }

  build() {
    this.inputs = {};
    this.boxes = {};
    this.selects = {};
    this.bars = {};
    this.isBuilt = true;
    this.count = h("b", { role: "status", "aria-live": "polite" });
    const isClass = isClassification(),
      own = isClass ? this.classes : this.classes.slice(1); // without the background
    const classes = own.map(({ index, name, color }) =>
      h(
        "button",
        {
          type: "button",
          class: "sx-chip sx-chip-choice",
          dataset: { class: index },
          onclick: () => {
            const chosen = new Set(this.filter.classes);
            if (!chosen.delete(index)) chosen.add(index);
            this.set({ classes: [...chosen].sort((a, b) => a - b) });
          },
        },
        h("i", { style: { background: color } }),
        name,
      ),
    );
    const check = (name, text) =>
      h(
        "label",
        { class: "sx-check" },
        (this.boxes[name] = h("input", { type: "checkbox", onchange: (event) => this.set({ [name]: event.target.checked }) })),
        text,
      );
    const choice = (name, label, options) =>
      (this.selects[name] = selectField(label, options, this.filter[name], (value) => this.set({ [name]: value })));
    const rarity = isClass ? "Share of its class, %" : "Rarest class in % of masks";
    this.unmeasuredNote = h(
      "p",
      { class: "sx-note" },
      h("span", {}, ""),
      h("button", { type: "button", class: "sx-link", onclick: () => this.measure() }, "Measure now"),
    );
    replace(
      this.drawer,
      h("div", { class: "sx-filter-wide" }, h("span", { class: "sx-filter-title" }, isClass ? "Asked for (one of)" : "Asked for (all of)"), h("div", { class: "sx-chips" }, classes)),
      Object.entries(rangesOf(isClass)).map(([name, title]) => this.range(name, name === "rarity" ? rarity : `${title}, %`)),
      h("div", { class: "sx-filter-checks" }, check("flagged", "Flagged"), check("favourite", "My favourites"), check("veryClose", "Very close to a real image"), check("refused", "Quality check refuses")),
      choice("votes", "Votes", Object.entries(VOTES)),
      choice("version", "Made by", [["", "any version"], ...this.versions.map((name) => [name, versionName(name)])]),
      choice("made", "Made in", [
        ["", "anywhere"],
        ["pool", "the pool"],
        ["draw", "Draw"],
      ]),
      choice("use", "For training", [["", "any"], ...Object.entries(USE_WORDS)]),
      this.unmeasuredNote,
      h(
        "div",
        { class: "sx-filter-foot sx-filter-wide" },
        this.count,
        h("button", { type: "button", class: "sx-link", onclick: () => this.onchange({ ...EMPTY, state: this.filter.state }) }, "Clear"),
        h(
          "button",
          {
            type: "button",
            class: "sx-button sx-small",
            onclick: () => {
              this.toggle(false);
              this.button.focus();
            },
          },
          "Close",
        ),
      ),
    );
  }

  range(name, title) {
    const limit = (index, label) =>
      h("input", {
        type: "number",
        min: 0,
        max: 100,
        step: 1,
        value: this.filter[name][index],
        "aria-label": `${title} ${label}`,
        id: `filter-${name}-${label}`,
        oninput: (event) => {
          const number = event.target.value === "" ? index * 100 : Math.max(0, Math.min(100, Math.round(Number(event.target.value))));
          this.set({ [name]: index ? [this.filter[name][0], number] : [number, this.filter[name][1]] });
        },
      });
    this.inputs[name] = [limit(0, "from"), limit(1, "to")];
    this.bars[name] = h("div", { class: "sx-histogram", "aria-hidden": "true" });
    return h(
      "div",
      { class: "sx-range", title: (isClassification() ? CLASS_HELP : HELP)[name] },
      h("span", { class: "sx-filter-title" }, title),
      this.bars[name],
      h("div", { class: "sx-range-limits" }, this.inputs[name][0], h("span", {}, "to"), this.inputs[name][1]),
    );
  }

  drawBars(name) {
    const counts = histogram(this.items, name, BINS),
      most = Math.max(1, ...counts),
      [low, high] = this.filter[name];
    replace(
      this.bars[name],
      counts.map((count, bin) =>
        h("i", {
          style: { height: `${count ? Math.max(8, (100 * count) / most) : 0}%` },
          class: (100 * (bin + 1)) / BINS > low && (100 * bin) / BINS <= high ? "sx-in" : "",
        }),
      ),
    );
  }
}
