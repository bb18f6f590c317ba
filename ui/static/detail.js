// One synthetic image, closely: picture, asked mask, disagreement, bars per class, facts, decision.
import { detailOf } from "./ahead.js";
import { star, toggleFavourite } from "./favourites.js";
import { lineageList } from "./lineage.js";
import {
  act,
  badge,
  emit,
  h,
  isClassification,
  kbd,
  percent,
  picture,
  post,
  refreshOverview,
  replace,
  segmented,
  state,
  toast,
  urls,
} from "./lib.js";
import { besides } from "./nearest.js";

export const DECISIONS = [
  ["accepted", "Accept", "A"],
  ["rejected", "Reject", "R"],
  ["quarantined", "Quarantine", "Q"],
];

const OVERVIEW_MS = 250;
let overviewTimer = 0,
  lastDecision = Promise.resolve();

/**
 * Set states of samples; who listens to "samples" can show them without asking again. Returns the states before. One after
 * the other: two quick decisions must neither swap on the server nor in the list of what can be undone. With `expected` states
 * (an undo) those stay as they are that somebody else has decided since; "samples" tells them as `kept`.
 */
export function curate(wanted, { isUndo = false, origin = null, expected = null } = {}) {
  const project_id = state.project.id;
  const stored = lastDecision.then(async () => {
    const { before, kept } = await post("/api/samples/curate", { project_id, states: wanted, expected });
    const states = { ...wanted, ...kept };
    emit("samples", { states, before, kept, isUndo, origin });
    clearTimeout(overviewTimer); // many quick decisions ask for the counts once
    overviewTimer = setTimeout(() => refreshOverview().catch(() => {}), OVERVIEW_MS);
    return before;
  });
  lastDecision = stored.catch(() => {});
  return stored;
}

/** Resolves once every decision so far is stored and told to who listens. */
export const decided = () => lastDecision;

export class DetailView {
  /** `onDecide(curation)` is called by the buttons; `curationOf(id)` may know a newer state than the server's answer. */
  constructor(onDecide, curationOf = () => undefined) {
    this.onDecide = onDecide;
    this.curationOf = curationOf;
    this.view = "image";
    this.root = h("div", { class: "sx-detail" });
  }

  async show(id) {
    this.id = id;
    if (!id) return replace(this.root, h("p", { class: "sx-empty" }, "Choose an image to see it closely."));
    const sample = await detailOf(id);
    if (this.id !== id) return;
    this.sample = { ...sample, curation: this.curationOf(id) ?? sample.curation };
    this.render();
  }

  render() {
    const { sample } = this,
      prediction = sample.scores.selector?.prediction_blob;
    const views = [
      ["image", "Image"],
      ...(isClassification() ? [] : [["overlay", "With mask"], ["asked", "Mask"], ...(prediction ? [["differ", "Disagreement"]] : [])]),
    ];
    if (!views.some(([name]) => name === this.view)) this.view = "image";
    const frame = h("div", { class: "sx-detail-picture" });
    const draw = () =>
      replace(
        frame,
        picture(
          {
            image: urls.image(sample.blob),
            overlay: urls.overlay(sample.blob, sample.label_map_blob, 512),
            asked: urls.mask(sample.label_map_blob, 512),
            differ: prediction && urls.disagreement(sample.label_map_blob, prediction),
          }[this.view],
          `Sample ${sample.id}, ${this.view}`,
        ),
        badge(sample.badge),
        star(sample.id),
      );
    draw();
    const bars = h("div", { class: "sx-bars" }, this.bars());
    replace(
      this.root,
      views.length > 1 &&
        segmented("View", views, this.view, (name) => {
          this.view = name;
          draw();
          this.legend.hidden = name !== "differ";
        }),
      frame,
      (this.legend = legend(this.view)),
      h("p", { class: "sx-words" }, sample.words),
      sample.sureness && h("p", { class: "sx-note sx-sureness" }, sample.sureness),
      this.decisions(),
      besides(sample, bars),
      bars,
      lineageList(sample),
      h(
        "details",
        { class: "sx-all-facts" },
        h("summary", {}, "All facts"),
        h(
          "dl",
          { class: "sx-facts-list" },
          Object.entries(sample.facts).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
        ),
      ),
    );
  }

  decisions() {
    return h(
      "div",
      { class: "sx-decisions" },
      DECISIONS.map(([curation, text, key]) =>
        h(
          "button",
          {
            type: "button",
            class: `sx-button sx-${curation}`,
            "aria-pressed": String(this.sample.curation === curation),
            onclick: () => this.onDecide(curation),
          },
          text,
          kbd(key),
        ),
      ),
    );
  }

  bars() {
    const { selector, judge } = this.sample.scores;
    if (!selector) return h("p", { class: "sx-note" }, "Not scored yet. Scores come once the scorers are trained (tab Data).");
    const measure = isClassification() ? "probability" : "Dice",
      colors = Object.fromEntries(state.project.classes.map(({ name, color }) => [name, color]));
    const row = (name, first, second, isAsked) =>
      h(
        "div",
        { class: "sx-bar-row", dataset: { class: name } },
        h("span", { class: "sx-bar-name" }, name, isAsked ? isClassification() && h("small", {}, "asked for") : !isClassification() && h("small", {}, "not asked for")),
        h(
          "div",
          {
            class: "sx-meter",
            role: "meter",
            "aria-label": `${name}, ${measure}`,
            "aria-valuenow": first ?? 0,
            "aria-valuemin": 0,
            "aria-valuemax": 1,
          },
          h("i", { style: { width: `${100 * (first ?? 0)}%`, ...(colors[name] && { background: colors[name] }) } }),
          second !== undefined &&
            second !== null &&
            h("b", { style: { left: `${100 * second}%` }, title: `judge ${percent(second)}` }),
        ),
        h("span", { class: "sx-bar-value" }, percent(first)),
      );
    if (isClassification())
      return [
        state.project.classes.map(({ name }) =>
          row(name, selector.per_class[name]?.probability, judge?.per_class?.[name]?.probability, this.sample.asked.includes(name)),
        ),
        h("p", { class: "sx-note" }, "Bar: how likely the classifier finds each class (calibrated). Line: the judge, a second model."),
      ];
    return [
      row("All classes", selector.dice, judge?.dice, true),
      ...Object.entries(selector.per_class)
        .filter(([name]) => this.sample.asked.includes(name) || this.sample.invented.includes(name))
        .map(([name, values]) => row(name, values.dice, judge?.per_class?.[name]?.dice, this.sample.asked.includes(name))),
      h(
        "p",
        { class: "sx-note" },
        "Bar: overlap (Dice) of what the segmenter sees with the asked mask. Line: the judge, a second model.",
      ),
    ];
  }
}

function legend(view) {
  const item = (color, text) => h("span", {}, h("i", { style: { background: color } }), text);
  return h(
    "p",
    { class: "sx-legend", hidden: view !== "differ" },
    item("#e69f00", "missed"),
    item("#56b4e9", "invented"),
    item("#cc79a7", "taken for another class"),
  );
}

/** The same as a window over any tab. */
export function openDetail(id) {
  const dialog = h("dialog", { class: "sx-dialog", "aria-label": "Synthetic image" });
  const view = new DetailView((curation) =>
    act(null, async () => {
      const before = await curate({ [id]: curation });
      toast(`${curation}`, "good", {
        label: "Undo",
        run: () =>
          act(null, async () => {
            await curate(before, { isUndo: true });
            await view.show(id);
          }),
      });
      await view.show(id);
    }),
  );
  dialog.append(
    h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => dialog.close() }, "\u00d7"),
    view.root,
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, select")) return; // who types decides nothing
    if (event.key.toLowerCase() === "s" && !event.ctrlKey && !event.metaKey) act(null, () => toggleFavourite(id));
    const found = DECISIONS.find(([, , key]) => key.toLowerCase() === event.key.toLowerCase());
    if (found && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      view.onDecide(found[0]);
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  act(null, () => view.show(id));
}
