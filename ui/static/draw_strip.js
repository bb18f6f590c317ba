// What the next images are made with: seeds and their lock, steps, guidance, version, and which part of a picture.
import { References } from "./references.js";
import { ApiError, get, h, isNegative, numberField, on, replace, selectField, state, svg, toast, withProject } from "./lib.js";

export const VARIANTS = 4;
const KEPT = "saadi.draw.strip",
  MAX_SEED = 2 ** 31 - VARIANTS;
const LOCK = "M6 9V6.500a4 4 0 0 1 8 0V9M4 9h12v8H4z",
  OPEN = "M6 9V6.500a4 4 0 0 1 7.700-1.500M4 9h12v8H4z",
  DICE = "M4 4h12v12H4zM7.500 7.500v.1M12.500 7.500v.1M10 10v.1M7.500 12.500v.1M12.500 12.500v.1";

export class Strip {
  /** `onPart()` is called when another part or source was chosen. */
  constructor(onPart) {
    this.onPart = onPart;
    const keep = () => this.keep();
    this.seed = numberField("Seed", 1, { min: 0, max: MAX_SEED, step: 1, id: "draw-seed", onchange: keep });
    this.steps = numberField("Steps", "", { min: 2, max: 100, placeholder: "auto", id: "draw-steps", onchange: keep });
    this.guidance = numberField("Guidance", "", { min: 0.1, max: 20, step: 0.1, placeholder: "auto", id: "draw-guidance", onchange: keep });
    this.version = selectField("Version", [["accepted", "in use"]], "accepted");
    this.version.input.id = "draw-version";
    this.lock = h("button", { type: "button", class: "sx-strip-icon", id: "draw-lock", onclick: () => this.setLocked(!this.isLocked) });
    this.dice = h(
      "button",
      { type: "button", class: "sx-strip-icon", title: "Another seed", "aria-label": "Another seed", onclick: () => this.roll() },
      icon(DICE),
    );
    const choice = (id, label, onchange) => {
      const input = h("select", { id, class: "sx-choice-of-part", "aria-label": label, title: label, onchange });
      return { input };
    };
    // These two say themselves what they are, so they stand in one line with what they act on.
    this.part = choice("draw-part", "What is made anew", () => this.choosePart());
    this.source = choice("draw-source", "The picture whose rest stays", () => {
      this.isChosen = true;
      onPart();
    });
    this.source.input.hidden = true;
    this.reach = numberField("The part begins wider by, px", "", { min: 1, max: 64, placeholder: "0", id: "draw-reach", oninput: () => (this.guide = null) });
    this.reach.title = "The part begins so many pixels wider and is exact after 60 % of the steps, so that it settles with its surroundings";
    this.reach.hidden = true;
    this.reach.classList.add("sx-field-in-line");
    this.references = new References();
    this.words = h("p", { class: "sx-note sx-strip-words" });
    this.recalled = h("p", { class: "sx-recalled", role: "status", hidden: true });
    this.root = h(
      "div",
      { class: "sx-strip-fields" },
      h("div", { class: "sx-strip-row" }, h("div", { class: "sx-seed" }, this.seed, this.lock, this.dice), this.steps, this.guidance, this.version),
      this.references.root,
      this.words,
      this.recalled,
    );
    this.used = null; // the first seed of the last order
    this.before = null; // my settings while others are shown
    this.negative = null; // of those others: a version that guidance leads away from
    this.start = null; // of those others: learnt noise that they began from
    this.guide = null; // of those others: how a part began wider
    this.samples = [];
    this.restore();
    withProject((project) => this.showProject(project));
    for (const name of ["adapters", "job:end"]) on(name, () => state.project && this.loadVersions().catch(() => {}));
  }

  // ---- seeds

  setLocked(isLocked) {
    this.isLocked = isLocked;
    this.lock.setAttribute("aria-pressed", String(isLocked));
    this.lock.setAttribute("aria-label", "Lock the seed");
    this.lock.title = isLocked
      ? "Locked: the same four seeds each time. Press to get new ones."
      : "Lock: keep these four seeds while you edit the mask (same patient, moved instrument)";
    replace(this.lock, icon(isLocked ? LOCK : OPEN));
    this.keep();
    this.describe();
  }
  roll() {
    this.seed.input.value = Math.floor(Math.random() * 1e6);
    this.keep();
  }
  /** The seeds of the order that is about to be placed: the next ones unless they are locked or were typed in. */
  advance() {
    const seed = this.seed.number() ?? 0;
    if (!this.isLocked && seed === this.used) this.seed.input.value = (seed + VARIANTS) % MAX_SEED;
    this.used = this.seed.number() ?? 0;
    this.keep();
  }
  /** Images of these seeds are there already. */
  seen(samples) {
    const made = samples.filter((sample) => sample.purpose === "draw").map((sample) => Number(sample.seed));
    if (made.includes(this.seed.number() ?? 0)) this.used = this.seed.number() ?? 0;
  }

  // ---- parts

  showProject(project) {
    Object.assign(this, { before: null, negative: null, start: null }); // settings of another project are none here
    this.setGuide(null);
    this.recalled.hidden = true;
    replace(
      this.part.input,
      [
        ["whole", "Make whole images"],
        ["changed", "Only what changed"],
        ...project.classes.filter((item) => item.index).map((item) => [`class-${item.index}`, `Only the ${item.name}`]),
      ].map(([value, text]) => h("option", { value }, text)),
    );
    this.part.input.value = "whole";
    this.choosePart();
    this.loadVersions().catch(() => {});
  }
  get isPart() {
    return this.part.input.value !== "whole";
  }
  choosePart() {
    this.source.input.hidden = this.reach.hidden = !this.isPart;
    this.describe();
    this.onPart();
  }
  /** What the rest can be taken from: the images shown, the real one below the mask, and the one chosen before. */
  showSources(samples, image) {
    const chosen = this.source.input.value,
      kept = [...this.source.input.options].find((option) => option.value === chosen);
    const options = samples.map((sample, index) => [`sample-${sample.id}`, `image ${index + 1}, seed ${sample.seed}`]);
    if (image) options.push([`image-${image.id}`, "the real image"]);
    // Of another document nothing is kept; and a patient's pixels stay only where somebody asked for them.
    this.isChosen &&= this.isPart && this.imageId === (image?.id ?? null);
    const isKept = kept && chosen.startsWith("sample-") && this.isPart && this.imageId === (image?.id ?? null);
    if (isKept && !options.some(([value]) => value === chosen)) options.unshift([chosen, kept.dataset.name]);
    this.imageId = image?.id ?? null;
    replace(
      this.source.input,
      options.map(([value, text]) =>
        h("option", { value, dataset: { name: text.startsWith("image ") ? `the earlier ${text}` : text } }, `All else stays as in ${text}`),
      ),
      options.length ? null : h("option", { value: "" }, "No picture yet whose rest could stay"),
    );
    const accepted = samples.find((sample) => sample.curation === "accepted") ?? samples[0];
    const isThere = (this.isChosen || isKept) && options.some(([value]) => value === chosen);
    const wanted = isThere ? chosen : accepted ? `sample-${accepted.id}` : options[0]?.[0];
    this.source.input.value = wanted ?? "";
  }
  /** The sample whose rest is kept, or null. */
  get sourceSample() {
    const [kind, id] = this.source.input.value.split("-");
    return this.isPart && kind === "sample" ? Number(id) : null;
  }

  // ---- settings

  settings() {
    const chosen = this.version.input.value;
    const values = {
      candidates: VARIANTS,
      seed: this.seed.number() ?? 0,
      adapter: /^\d+$/.test(chosen) ? Number(chosen) : chosen,
      settings: {
        num_inference_steps: this.steps.number(),
        guidance_scale: this.guidance.number(),
        ...(this.negative && { negative: this.negative }),
        ...(this.references.value() && { references: this.references.value() }),
        ...(this.start && { noise_shift_id: this.start }),
      },
    };
    if (!this.isPart) return values;
    const [kind, id] = this.source.input.value.split("-"),
      [, index] = this.part.input.value.split("-");
    if (!id) throw new ApiError("There is no picture yet whose rest could stay; make whole images first.", 0, null);
    const reach = this.reach.number();
    if (reach) values.settings.guide = { ...this.guide, reach_px: reach };
    return {
      ...values,
      inpaint: { source: { [kind === "image" ? "image_id" : "sample_id"]: Number(id) }, class_index: index ? Number(index) : null },
    };
  }

  /** Take over settings of an earlier image. What was here is kept until it is wanted back. */
  recall({ seed, settings, adapter }, name) {
    this.before ??= this.values();
    this.seed.input.value = seed;
    this.steps.input.value = settings.num_inference_steps ?? "";
    this.guidance.input.value = settings.guidance_scale ?? "";
    this.setGuide(settings.guide);
    this.references.set(settings.references ?? []);
    this.negative = settings.negative ?? null; // borrowed with the rest, and given back with it
    this.start = settings.noise_shift_id ?? null;
    const isThere = [...this.version.input.options].some((option) => option.value === String(adapter));
    if (isThere) this.version.input.value = String(adapter);
    else toast("That version belongs to another generator; the chosen one stays.");
    this.used = null; // the seed is wanted as it is
    this.recalled.hidden = false;
    replace(
      this.recalled,
      h("span", {}, `Settings of ${name}${this.negative ? ", which leads away from what a negative version has learnt" : ""}${this.start ? ", from learnt noise whose images are hard" : ""}.`),
      h("button", { type: "button", class: "sx-link", onclick: () => this.giveBack() }, "Back to my settings"),
    );
    this.recalled.scrollIntoView({ block: "nearest" });
    this.recalled.querySelector("button").focus({ preventScroll: true });
  }
  giveBack() {
    const { seed, steps, guidance, version, used } = this.before;
    this.seed.input.value = seed;
    this.steps.input.value = steps;
    this.guidance.input.value = guidance;
    this.version.input.value = version;
    this.setGuide(this.before.guide);
    this.references.set(this.before.references);
    Object.assign(this, { used, before: null, negative: null, start: null });
    this.recalled.hidden = true;
    this.seed.input.focus({ preventScroll: true });
  }
  /** How a part begins wider; beside the width an earlier image says after which share of the steps it was exact. */
  setGuide(guide) {
    this.guide = guide ?? null;
    this.reach.input.value = guide?.reach_px ?? "";
  }
  values() {
    return {
      seed: this.seed.input.value,
      steps: this.steps.input.value,
      guidance: this.guidance.input.value,
      version: this.version.input.value,
      guide: this.reach.number() ? { ...this.guide, reach_px: this.reach.number() } : null,
      references: this.references.chosen,
      used: this.used,
    };
  }

  describe() {
    this.words.textContent = this.isPart
      ? ""
      : this.isLocked
        ? "Same patient each time: only your changes to the mask show."
        : "";
  }

  async loadVersions() {
    const project = state.project,
      { items, engine } = await get(`/api/projects/${project.id}/adapters`);
    if (state.project !== project) return;
    const input = this.version.input,
      kept = input.value;
    replace(
      input,
      [
        ["accepted", `${items.find((item) => item.state === "accepted")?.name ?? "base"}, in use`],
        ["none", "base"],
        ...items
          .filter((item) => item.model_id === engine?.id && !isNegative(item))
          .map((item) => [String(item.id), `${item.name}${item.state === "candidate" ? ", not accepted" : ""}`]),
      ].map(([value, text]) => h("option", { value }, text)),
    );
    input.value = [...input.options].some((option) => option.value === kept) ? kept : "accepted";
  }

  // ---- the next visit finds them again

  keep() {
    if (this.before) return; // borrowed settings are not mine
    const { seed, steps, guidance } = this.values();
    localStorage.setItem(KEPT, JSON.stringify({ seed, steps, guidance, isLocked: this.isLocked }));
  }
  restore() {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    for (const name of ["seed", "steps", "guidance"]) if (kept[name] !== undefined) this[name].input.value = kept[name];
    this.setLocked(kept.isLocked ?? false);
  }
}

function icon(path) {
  const picture = svg("svg", { viewBox: "0 0 20 20", class: "sx-icon-line", "aria-hidden": "true" });
  picture.append(svg("path", { d: path }));
  return picture;
}
