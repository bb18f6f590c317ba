// What the segmenter misses in real images, as a picture; and the search for images that are hard for it and right.
import { showInCurate } from "./curate_filter.js";
import { act, byTask, classTag, get, h, isClassification, numberField, on, onShow, order, percent, plural, replace, state, toast, withProject } from "./lib.js";

const MIN_PARTS = 3; // as in saadi/mining/weakness.py
const AXES = { size: "Size", contrast: "Contrast", place: "Place in the image" };
const MISSING = {
  no_selector: ["Not known yet: nothing has learnt to find your classes.", "Train the scorers (tab Data)."],
  too_few: ["Not known yet: the scorers have learnt from the patients of all labelled images.", "Add labelled images of other patients (validation), or train with two folds or more (tab Data)."],
  nothing_shown: ["Not known: the real images that the scorers have not learnt from show none of your classes.", "Add labelled images of other patients (validation) that do (tab Data)."],
  not_looked: ["Not known yet: the scorers have not looked at the real images since they were trained.", ""],
};
const SHORT = { small: "small", medium: "mid", large: "large", faint: "faint", clear: "clear" };

/** A gap in words: "small polyp", "shaft at the bottom right". */
export function gapWords({ class: name, axis, name: cell }) {
  if (axis === "size") return `${cell} ${name}`;
  if (axis === "contrast") return `${cell} ${name}`;
  return cell === "centre" ? `${name} in the centre` : `${name} at the ${cell}`;
}

/** One sentence: where it fails, worst first. */
export function summary({ classes, gaps }, isClass) {
  const entries = Object.entries(classes).sort((one, two) => one[1].recall - two[1].recall);
  if (!entries.length) return "";
  const [name, { recall }] = entries[0];
  const lowest = `${isClass ? "Recognised" : "Found"} least: ${name}, ${percent(recall)}`;
  if (isClass || !gaps.length) return `${lowest}.`;
  return `${lowest}. Within a class it misses most: ${gaps.map((gap) => `${gapWords(gap)} (${percent(gap.recall)} found)`).join(", ")}.`;
}

/** How strongly a cell is coloured: 0 where all is found, 1 where half or less is. */
export const heat = (recall) => Math.max(0, Math.min(1, (1 - recall) / 0.5));

export class WeakPlaces {
  constructor(element) {
    this.words = h("p", { class: "sx-weak-words" });
    this.table = h("div", { class: "sx-weak" });
    this.note = h("p", { class: "sx-note" });
    this.count = numberField("Hard images", 16, { min: 1, max: 1000, id: "mine-count" });
    this.each = numberField("Images per try", 2, { min: 1, max: 64, id: "mine-candidates" });
    this.turns = numberField("Tries for each", 6, { min: 1, max: 20, id: "mine-turns" });
    this.learned = h("input", { type: "checkbox", id: "mine-learned" });
    this.button = h("button", { type: "button", class: "sx-button sx-primary", id: "mine-start", onclick: () => this.start() }, "Search for hard images");
    this.look = h("button", { type: "button", class: "sx-button", onclick: () => this.score() }, "Let it look at the real images");
    this.form = h(
      "div",
      { class: "sx-stack" },
      h(
        "div",
        { class: "sx-weak-order" },
        this.count,
        this.each,
        this.turns,
        this.button,
        h(
          "button",
          {
            type: "button",
            class: "sx-link",
            onclick: () => showInCurate({ use: "prize" }),
          },
          "Hard ones in Curate",
        ),
      ),
      h(
        "label",
        { class: "sx-check", title: "Learns from which noise this generator makes images that are hard; judge and quality check decide as always" },
        this.learned,
        "Learn first from which noise hard images come (minutes; kept until the version or the scorers change)",
      ),
      h(
        "p",
        { class: "sx-note" },
        byTask("Masks", "Classes"),
        " are drawn by what is missed. Searched for are images that are right for the judge, look real, and are hard for the ",
        byTask("segmenter", "classifier"),
        byTask(": one a mask, and a mask that gives none makes room for the next.", "."),
      ),
    );
    this.root = h("section", { class: "sx-card sx-stack", id: "weak-places" }, h("h2", {}, byTask("What the segmenter misses", "What the classifier misses")), this.words, this.table, this.note, this.look, this.form);
    onShow(element, () => state.project && this.load());
    on("jobs", () => this.followJobs());
    withProject(() => this.load());
  }

  async load() {
    const project = state.project;
    if (this.shown !== project) {
      this.shown = project; // nothing of another one meanwhile
      this.words.textContent = this.note.textContent = "";
      this.table.hidden = this.look.hidden = true;
      this.button.disabled = true;
    }
    const found = await get(`/api/projects/${project.id}/weakness`);
    if (state.project === project) this.show(found);
  }

  /** Once scorers or scores have come, the picture is another one. */
  followJobs() {
    const ended = state.recent.filter((job) => job.state === "done" && ["score", "train_scorer", "mine", "surrogates", "generate"].includes(job.kind)).map((job) => job.id).join();
    if (ended === this.ended) return;
    const isFirst = this.ended === undefined;
    this.ended = ended;
    if (!isFirst && state.project && this.root.offsetParent) this.load().catch(() => {});
  }

  show(found) {
    const isClass = isClassification();
    this.table.hidden = !found.classes;
    this.look.hidden = found.missing !== "not_looked";
    // What is only missing because nobody has looked yet, the search itself sees to.
    this.button.disabled = Boolean(found.cannot_search);
    this.button.title = found.cannot_search ?? "";
    if (!found.classes) {
      [this.words.textContent, this.note.textContent] = MISSING[found.missing];
      return;
    }
    this.words.textContent = summary(found, isClass);
    const whose = found.num_patients ? ` of ${plural(found.num_patients, "patient")}` : "",
      how = isClass ? "." : `, in per cent: by size, contrast to what lies around, and place in the image. Grey: fewer than ${MIN_PARTS} seen.`;
    this.note.textContent = `Share found in ${plural(found.num_images, "real image")}${whose} that it has not learnt from${how}`;
    const names = state.project.classes.map(({ name }) => name);
    replace(
      this.table,
      Object.entries(found.classes).map(([name, one]) => this.row(names.indexOf(name), one, isClass)),
    );
  }

  row(index, one, isClass) {
    const whole = h("div", { class: "sx-weak-class" }, classTag(index), h("b", {}, percent(one.recall)), h("small", {}, plural(one.parts, isClass ? "image" : "part")));
    if (isClass) {
      const bar = h("div", { class: "sx-weak-bar" }, h("i", { style: { width: percent(one.recall).replace(/\s/g, "") } }));
      return h("div", { class: "sx-weak-row sx-weak-whole" }, whole, bar);
    }
    return h("div", { class: "sx-weak-row", dataset: { class: index } }, whole, ...Object.keys(AXES).map((axis) => this.cells(axis, one[axis])));
  }

  cells(axis, cells) {
    return h(
      "div",
      { class: `sx-weak-cells sx-weak-${axis}`, role: "group", "aria-label": AXES[axis], title: AXES[axis] },
      Object.entries(cells).map(([name, { recall, parts, patients }]) => {
        const isKnown = parts >= MIN_PARTS,
          told = isKnown ? `${name}: ${percent(recall)} found, ${plural(parts, "part")} in ${plural(patients, "patient or image", "patients or images")}` : `${name}: ${plural(parts, "part")}, too few to tell`;
        return h(
          "span",
          { class: isKnown ? "sx-weak-cell" : "sx-weak-cell sx-weak-unknown", style: { "--sx-heat": `${Math.round(100 * heat(recall))}%` }, title: told, "aria-label": told, role: "img" },
          SHORT[name] && h("small", {}, SHORT[name]),
          isKnown ? String(Math.round(100 * recall)) : "\u2013",
        );
      }),
    );
  }

  score() {
    return act(this.look, async () => {
      await order("score", {});
      toast("Started; the picture appears here.");
    });
  }

  start() {
    return act(this.button, async () => {
      const { job } = await order("mine", {
        count: this.count.number() ?? 16,
        candidates: this.each.number() ?? 4,
        turns: this.turns.number() ?? 3,
        seed: Math.floor(Math.random() * 2 ** 31),
        learned: this.learned.checked,
      });
      toast(job.before ? `In the queue: ${job.turn}.` : "Started.");
    });
  }
}
