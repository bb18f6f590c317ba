// What "Align now" will do, before it does it: pairs, what is left out and why, classes, votes against scores, minutes.
import { byTask, duration, fixed, h, isClassification, openTab, plural, replace, state } from "./lib.js";

const ALIKE = 0.03; // of Dice
const thing = () => (isClassification() ? "set" : "mask"); // what images are compared in

const SOURCES = [
  ["real", "a real image wins"],
  ["agreed", "vote and score agree"],
  ["vote", "a vote decides"],
  ["score", "the score decides"],
];
const PAIRS_LEFT_OUT = {
  undecided: (count) => `${plural(count, thing())}: scores too close to call (under 0.05 apart), nobody voted`,
  conflict: (count) => `${plural(count, "pair")}: opinions differ, waiting for a second opinion`,
  both_bad: (count) => `${plural(count, "pair")}: somebody called an image bad, it cannot win`,
  both_good: (count) => `${plural(count, "pair")}: people see no difference`,
  cap: (count) => `${plural(count, "pair")}: two pairs of the same ${thing()} are enough`,
};
const IMAGES_LEFT_OUT = {
  unscored: (count) => `${plural(count, "image")} not scored yet`,
  quarantined: (count) => `${plural(count, "image")} in quarantine`,
  part: (count) => `${plural(count, "image")} of which only a part was made anew`,
  held_out: (count) => `${plural(count, "image")} of ${thing()}s of validation or test patients, kept for measuring`,
  other_generator: (count) => `${plural(count, "image")} made by an earlier generator`,
  alone: (count) => `${plural(count, "image")} without a second one of the same ${thing()}`,
};

/** Seconds that an alignment takes, from the pace of earlier ones; see `saadi.alignment.plan.Pace`. */
export function estimate(pace, { steps, gate_masks, gate_every, batch_size }) {
  const checks = Math.ceil(steps / gate_every),
    masks = gate_masks / pace.gate_masks;
  return pace.start_s * masks + steps * pace.step_s * (batch_size / pace.batch_size) + checks * pace.check_s * masks;
}

/** "about 3 min": rounded as coarsely as such a guess deserves. */
export function roughly(seconds) {
  if (seconds < 50) return "under a minute";
  const minutes = seconds / 60;
  if (minutes < 10) return `about ${Math.max(1, Math.round(minutes))} min`;
  if (minutes < 90) return `about ${5 * Math.round(minutes / 5)} min`;
  return `about ${fixed(minutes / 60, 1)} h`;
}

/** What people said against what the score says. */
export function votesInWords({ num, people, agreed, overruled, tipped, left_out }) {
  if (!num) return left_out ? `${plural(left_out, "vote")}, all on images that cannot be used.` : "No votes yet: scores alone decide.";
  const parts = [
    agreed && `${plural(agreed, "pair")} where the score agrees`,
    tipped && `${tipped} that the score left open`,
    overruled && `${overruled} that overrule the score`,
  ].filter(Boolean);
  const said = `${plural(num, "vote")} by ${people === 1 ? "1 person" : `${people} people`}`;
  return `${said}${parts.length ? `: ${parts.join(", ")}` : ", no pair decided by them"}.${left_out ? ` ${left_out} more on images that cannot be used.` : ""}`;
}

/**
 * Whether the scores have something to repair: the selector's Dice in synthetic images and in real ones that it has not seen.
 * Where both are alike, alignment by scores brought nothing (docs/evidence); "" where it is not known.
 */
export function fidelityInWords(found, labelOf) {
  if (!found) return "";
  const { synthetic, real, weakest } = found;
  if (synthetic >= real - ALIKE)
    return `Masks are found as well in synthetic images (overlap ${fixed(synthetic, 2)}) as in real ones (${fixed(real, 2)}): scores leave little to repair, votes may.`;
  const least = `${labelOf(weakest.class)} (${fixed(weakest.synthetic, 2)}, real ${fixed(weakest.real, 2)})`;
  return `Masks are found less well in synthetic images (overlap ${fixed(synthetic, 2)}) than in real ones (${fixed(real, 2)}), least of all ${least}: aligning can repair that.`;
}

/** The single images that it learns from beside the pairs; "" where there are none. */
export function singlesInWords({ liked, disliked, real, disputed }) {
  const all = liked + disliked,
    parts = [liked && `${liked} liked`, disliked && `${disliked} disliked`, real && `${plural(real, "real image")} as further liked ones`];
  const left = disputed ? `${all ? " " : ""}${plural(disputed, "image")} left out, because people disagree.` : "";
  return `${all ? `Also ${plural(all, "single image")}: ${parts.filter(Boolean).join(", ")}.` : ""}${left}`;
}

export class Plan {
  /** Args: button, settings: elements that end the card; values: () => the chosen settings; look: (opener) => shows the pairs. */
  constructor({ button, settings, values, look }) {
    Object.assign(this, { button, values, look, found: null });
    this.line = h("p", { class: "sx-promise", role: "status" });
    this.body = h("div", { class: "sx-plan" });
    this.wait = h("p", { class: "sx-plan-wait", id: "align-wait", role: "status" });
    button.setAttribute("aria-describedby", "align-wait");
    this.root = h(
      "section",
      { class: "sx-card sx-plan-card", "aria-label": "What Align now will do" },
      h("h2", {}, "Teach the generator what you prefer"),
      this.line,
      this.body,
      (this.consent = h("p", { class: "sx-note", id: "align-consent" })),
      this.wait,
      button,
      settings,
    );
  }

  show(found) {
    this.found = found;
    this.line.dataset.pairs = found.num_pairs;
    this.showMinutes();
    replace(
      this.body,
      this.sources(found),
      found.num_images || found.votes.left_out ? h("p", { class: "sx-plan-votes" }, votesInWords(found.votes)) : null,
      found.fidelity ? h("p", { id: "align-fidelity" }, fidelityInWords(found.fidelity, (index) => state.project.classes[index]?.name)) : null,
      singlesInWords(found.singles) ? h("p", { id: "align-singles" }, singlesInWords(found.singles)) : null,
      this.leftOut(found),
      found.num_pairs || Object.keys(found.pairs_left_out).length ? this.opener() : null,
      found.num_images ? this.classes(found) : null,
    );
    this.showWait();
  }

  showMinutes() {
    this.consent.textContent =
      this.values().rounds > 1
        ? "Each round's version comes into use by itself if it wins; one click leads back."
        : "Nothing changes until you accept the result; one click leads back.";
    if (!this.found) return;
    const { num_pairs, pace } = this.found;
    const [source, title] = pace.num_jobs
      ? ["measured", `as the last ${pace.num_jobs} ran on this computer`]
      : ["a guess", "none has run on this computer yet"];
    replace(
      this.line,
      h("b", {}, `${plural(num_pairs, "pair")} to learn from`),
      num_pairs ? [` \u00b7 `, h("b", {}, roughly(estimate(pace, this.values()))), h("small", { title }, ` (${source})`)] : null,
    );
  }

  /** Why the button does not work, or what it has to wait for. */
  showWait() {
    const missing = this.found?.missing,
      before = state.active.filter((job) => job.kind !== "align" || job.project_id !== state.project?.id);
    this.button.disabled = !this.found || !!missing;
    this.wait.dataset.state = missing ? "missing" : before.length ? "waits" : "";
    const text = missing
      ? missing.text
      : before.length
        ? `It will wait: ${before[0].title.toLowerCase()} comes first${before[0].eta_s ? ` (${duration(before[0].eta_s)} left)` : ""}${before.length > 1 ? `, and ${plural(before.length - 1, "more job")}` : ""}.`
        : "";
    if (this.wait.dataset.text === text) return;
    this.wait.dataset.text = text;
    const open = missing && h("button", { type: "button", class: "sx-button sx-small", onclick: () => openTab(missing.tab) }, `Open ${name(missing.tab)}`);
    replace(this.wait, text, open);
  }

  sources(found) {
    const present = SOURCES.filter(([key]) => found.by_source[key]);
    if (!present.length) return null;
    return [
      h(
        "div",
        { class: "sx-sources", "aria-hidden": "true" },
        present.map(([key]) => h("i", { dataset: { source: key }, style: { "flex-grow": found.by_source[key] } })),
      ),
      h(
        "ul",
        { class: "sx-sources-names" },
        present.map(([key, text]) => h("li", { dataset: { source: key } }, h("i"), h("b", {}, found.by_source[key]), ` ${text}`)),
      ),
    ];
  }

  opener() {
    const open = (event) => this.look(event.currentTarget);
    return h("button", { type: "button", class: "sx-button sx-small", id: "align-pairs", onclick: open }, "See each pair and who decided it");
  }

  leftOut(found) {
    const lines = (counts, words) =>
      Object.entries(words)
        .filter(([key]) => counts[key])
        .map(([key, text]) => h("li", { dataset: { reason: key, count: counts[key] } }, text(counts[key])));
    const all = [...lines(found.pairs_left_out, PAIRS_LEFT_OUT), ...lines(found.images_left_out, IMAGES_LEFT_OUT)];
    if (!all.length) return found.num_images ? h("p", { class: "sx-note" }, "Nothing is left out.") : null;
    return h("div", { class: "sx-left-out" }, h("h3", {}, "Left out"), h("ul", {}, all));
  }

  classes(found) {
    const most = Math.max(1, ...found.classes.map((row) => row.num_pairs)),
      labels = new Map(state.project.classes.map((label) => [label.index, label]));
    return h(
      "div",
      { class: "sx-plan-classes" },
      h("h3", {}, byTask("Pairs whose mask shows", "Pairs of each class")),
      found.classes.map((row) =>
        h(
          "div",
          { class: "sx-plan-class", dataset: { class: row.class, thin: row.is_thin } },
          h("span", { class: "sx-cut" }, h("i", { style: { background: labels.get(row.class)?.color } }), labels.get(row.class)?.name),
          h("span", { class: "sx-meter", "aria-hidden": "true" }, h("i", { style: { width: `${(100 * row.num_pairs) / most}%` } })),
          h("b", {}, row.num_pairs),
          row.is_thin && found.num_pairs ? this.advice(row) : null,
        ),
      ),
    );
  }

  advice(row) {
    if (row.votes_that_help)
      return h(
        "small",
        {},
        `Few: ${plural(row.votes_that_help, "more vote")}, about ${duration(row.votes_s)}.`,
        h("button", { type: "button", class: "sx-link", onclick: () => openTab("vote") }, "Vote"),
      );
    return h(
      "small",
      {},
      isClassification()
        ? `${row.num_label_maps ? "Few" : "None"}: generate ${row.num_label_maps ? "more " : ""}images of it.`
        : row.num_label_maps
          ? "Few: generate images for more masks with it."
          : "None: generate images for masks with it.",
      h("button", { type: "button", class: "sx-link", onclick: () => openTab("generate") }, "Generate"),
    );
  }
}

const name = (tab) => tab[0].toUpperCase() + tab.slice(1);
