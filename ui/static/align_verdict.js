// The acceptance card: four questions in words, red ones on top; the numbers; the blind test by people; and the decision.
import { beforeAfter } from "./curves.js";
import { fixed, h, isClassification, isNegative, percent, plural, replace, state } from "./lib.js";

const MARKS = { yes: "\u2713", no: "\u2715", unknown: "?" };
const ORDER = { no: 0, yes: 1, unknown: 2 };
const SPOKEN = { yes: "good", no: "bad", unknown: "not known" };

/** What the blind test found, in one sentence; `who` is "You" or "People". */
export function trialInWords(found, who) {
  if (!found) return `${who} saw no difference yet.`;
  if (found.rate === null) return `${who} preferred neither version: ${found.even} without a preference, ${found.skipped} skipped.`;
  const others = [found.even && `${found.even} without a preference`, found.skipped && `${found.skipped} skipped`].filter(Boolean);
  const [low, high] = found.interval.map((value) => Math.round(100 * value));
  return `${who} preferred the new version in ${found.new} of ${found.new + found.old} (interval ${low} to ${high}\u00a0%)${others.length ? `; ${others.join(", ")}` : ""}.`;
}

const points = (value) => `${value >= 0 ? "+" : "\u2212"}${fixed(Math.abs(100 * value), 1)}`;
const arrow = ([mean, low, high]) => (low > 0 ? "\u25b2" : high < 0 ? "\u25bc" : mean === 0 ? "=" : "\u2248");

export class Verdict {
  /** Args: test: (adapter) => open the blind test; choose: (adapter, decision, reason, button). */
  constructor({ test, choose }) {
    Object.assign(this, { test, choose });
    this.root = h("section", { class: "sx-card sx-verdict", hidden: true, "aria-label": "Acceptance" });
  }

  show(adapter, { items, engine_id }) {
    this.root.hidden = !adapter;
    if (!adapter) return;
    const parent = items.find((item) => item.id === adapter.parent_id)?.name ?? "base",
      inUse = items.find((item) => item.state === "accepted")?.name ?? "base";
    const m = adapter.metrics,
      isRed = adapter.questions.some((question) => question.verdict === "no");
    const stopped = m.history?.find((row) => row.stopped)?.stopped;
    this.root.dataset.id = adapter.id;
    replace(
      this.root,
      h(
        "div",
        { class: "sx-card-head" },
        h("h2", {}, `${adapter.name} against ${parent}`),
        h("p", { class: "sx-headline", dataset: { verdict: isRed ? "no" : "yes" } }, adapter.headline),
      ),
      h(
        "ul",
        { class: "sx-questions" },
        [...adapter.questions]
          .sort((a, b) => ORDER[a.verdict] - ORDER[b.verdict])
          .map((question) =>
            h(
              "li",
              { dataset: { question: question.key, verdict: question.verdict } },
              h("span", { class: "sx-mark", role: "img", "aria-label": SPOKEN[question.verdict] }, MARKS[question.verdict]),
              h("span", {}, h("b", {}, question.title), h("small", {}, question.words)),
            ),
          ),
        this.people(adapter),
      ),
      stopped ? h("p", { class: "sx-note" }, `Learning was stopped early: ${stopped}. Kept is step ${m.step}.`) : null,
      adapter.model_id === engine_id
        ? this.choices(adapter, isRed, inUse)
        : h("p", { class: "sx-note" }, "It was made for an earlier generator and does not fit the present one. Align again to make one that does."),
      m.strip_before?.length ? beforeAfter(m.strip_before, m.strip_after ?? [], m.strip_label_maps ?? []) : null,
      this.numbers(m),
    );
  }

  /** The eye of people, beside the judge's. */
  people(adapter) {
    const found = adapter.trial,
      isNew = !found || !(found.new + found.old + found.even + found.skipped),
      isOpen = isNew || found.rate === null;
    const begin = adapter.trial_left
      ? h(
          "button",
          { type: "button", class: "sx-button sx-small", id: "trial-start", onclick: () => this.test(adapter) },
          adapter.trial_left < adapter.trial_pairs ? "Go on with the test" : `Test it blind: ${plural(adapter.trial_pairs, "pair")}`,
        )
      : null;
    const words = isNew ? "Not tested by a person yet." : trialInWords(found, found.people === 1 ? "One person" : `${found.people} people`);
    const verdict = isOpen ? "unknown" : found.interval[0] > 0.5 ? "yes" : found.interval[1] < 0.5 ? "no" : "unknown";
    return h(
      "li",
      { dataset: { question: "people", verdict } },
      h("span", { class: "sx-mark", role: "img", "aria-label": SPOKEN[verdict] }, MARKS[verdict]),
      h("span", {}, h("b", {}, "What do people see?"), h("small", {}, words)),
      begin,
    );
  }

  numbers(m) {
    const row = (name, before, after, mark = "") =>
      before === undefined || after === undefined
        ? null
        : h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, before), h("td", {}, after), h("td", {}, mark));
    const labels = new Map(state.project.classes.map((label) => [label.index, label.name]));
    const classes = [...(m.classes ?? [])].sort((a, b) => a.change[0] - b.change[0]);
    const direction = (isBetter) => (isBetter ? "\u25b2" : "\u25bc");
    const lower = (before, after, moved) => (moved ? "\u25bc further than chance" : after <= before ? "\u25b2" : "\u2248 the same");
    return h(
      "div",
      { class: "sx-numbers" },
      classes.length
        ? h(
            "table",
            { class: "sx-table" },
            h("caption", {}, isClassification() ? "Probability of the asked class, weakest class first" : "Overlap with the mask, weakest class first"),
            h("thead", {}, h("tr", {}, ["class", "before", "after", "change (95 %)"].map((text) => h("th", { scope: "col" }, text)))),
            h(
              "tbody",
              {},
              classes.map((item) =>
                row(
                  labels.get(item.class) ?? `class ${item.class}`,
                  percent(item.before),
                  percent(item.after),
                  `${arrow(item.change)} ${points(item.change[0])} (${points(item.change[1])} to ${points(item.change[2])})`,
                ),
              ),
            ),
          )
        : null,
      h(
        "table",
        { class: "sx-table" },
        h("caption", {}, `Measured on ${m.num_masks ?? "the same"} ${isClassification() ? "images of the same classes and" : "masks with the same"} seeds`),
        h("thead", {}, h("tr", {}, ["", "before", "after", ""].map((text) => h("th", { scope: "col" }, text || h("span", { class: "sx-unseen" }, "measure"))))),
        h(
          "tbody",
          {},
          m.dice_after !== undefined &&
            row(isClassification() ? "Asked class (judge)" : "Overlap (judge)", percent(m.dice_before), percent(m.dice_after), direction(m.dice_after >= m.dice_before)),
          m.feature_distance_after !== undefined &&
            row(
              "Distance to real images: judge's view",
              fixed(m.feature_distance_before),
              fixed(m.feature_distance_after),
              lower(m.feature_distance_before, m.feature_distance_after, m.features_moved),
            ),
          m.appearance_distance_after !== undefined &&
            row(
              "Distance to real images: colour, texture",
              fixed(m.appearance_distance_before),
              fixed(m.appearance_distance_after),
              lower(m.appearance_distance_before, m.appearance_distance_after, m.appearance_moved),
            ),
          m.vendi_after !== undefined && row("Variety (Vendi)", fixed(m.vendi_before, 1), fixed(m.vendi_after, 1)),
          m.coverage_after != null &&
            m.coverage_before != null &&
            row("Real images with one like them", percent(m.coverage_before), percent(m.coverage_after)),
          m.nearest_after !== undefined && row("Nearest training image", fixed(m.nearest_before, 1), fixed(m.nearest_after, 1)),
          m.winner_ratio !== undefined && row("Error on preferred images", "1.00", fixed(m.winner_ratio)),
        ),
      ),
    );
  }

  choices(adapter, isRed, inUse) {
    if (isNegative(adapter))
      return h(
        "p",
        { class: "sx-note" },
        `A negative version has learnt what is not wanted, and never makes images by itself: choose it in Generate under "Lead away from" (or saadi generate --guidance ${adapter.config.negative} --negative-adapter ${adapter.id}).`,
      );
    if (adapter.state === "accepted") return h("p", { class: "sx-note" }, "This version makes the next images.");
    if (adapter.state !== "candidate") return h("p", { class: "sx-note" }, "The list of versions below puts it into use again.");
    const reason = h("input", { type: "text", maxlength: 500, placeholder: "Why (optional)", "aria-label": "Reason for the decision" });
    const pick = (decision, text, isFirst) =>
      h(
        "button",
        {
          type: "button",
          class: `sx-button ${isFirst ? "sx-primary" : ""}`,
          dataset: { decision },
          onclick: (event) => this.choose(adapter.id, decision, reason.value.trim(), event.currentTarget),
        },
        text,
      );
    return h(
      "div",
      { class: "sx-row sx-choice" },
      pick("accept", `Accept ${adapter.name}`, !isRed),
      pick("reject", `Keep ${inUse}`, isRed),
      reason,
    );
  }
}
