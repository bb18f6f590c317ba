// Data: the real images, what is trained on them, new projects, folder import.
import { DataForms, text } from "./data_forms.js";
import { VirtualGrid } from "./grid.js";
import { TIED, Withdrawals } from "./withdrawals.js";
import {
  act,
  ApiError,
  badge,
  byTask,
  classTag,
  emit,
  get,
  h,
  isClassification,
  numberField,
  on,
  onShow,
  openTab,
  order,
  percent,
  picture,
  plural,
  refreshOverview,
  replace,
  segmented,
  selectField,
  state,
  toast,
  urls,
  when,
  withProject,
} from "./lib.js";

const SPLITS = [
  ["all", "All"],
  ["train", "Train"],
  ["val", "Validation"],
  ["test", "Test"],
  ["none", "No split"],
];

const WEAK = 0.7; // as in saadi/trust.py

/** How well a model does on validation images, in the words of its kind; "" where that was not measured. */
function measured(model) {
  const val = model.metrics.val ?? {},
    dice = val.dice ?? model.metrics.dice;
  if (val.f1_per_class)
    return val.num_images ? `, right on ${percent(val.accuracy)} of ${val.num_images} validation images, macro F1 ${percent(val.macro_f1)}` : ", no validation images";
  return dice === undefined ? "" : `, overlap ${percent(dice)} on validation images`;
}

/** Its group is the image itself: nobody said which patient or video it is from. */
const isUnnamed = (image) => image.group.startsWith("own-");

const FEW = [5, 50]; // images; as in saadi/engines/few_shot.py
const [MINUTES, FEW_MINUTES] = [20, 6];

export function mount(element) {
  new DataTab(element);
}

class DataTab {
  constructor(element) {
    Object.assign(this, { root: element, images: [], shown: [], showsMask: true });
    this.split = segmented("Split", SPLITS, "all", () => this.apply());
    this.maskBox = h("input", {
      type: "checkbox",
      checked: true,
      onchange: () => {
        this.showsMask = this.maskBox.checked;
        this.grid.refresh();
      },
    });
    this.count = h("span", { class: "sx-note" });
    this.grid = new VirtualGrid({
      width: 164,
      height: 206,
      make: () => this.card(),
      update: (card, image) => this.update(card, image),
      label: "Real images",
    });
    this.models = h("div", { class: "sx-models" });
    this.minutes = numberField("Minutes", MINUTES, { min: 1, max: 10080, id: "fit-minutes" });
    this.few = h("input", { type: "checkbox", id: "fit-few", onchange: () => this.chooseFew(this.few.checked) });
    this.fewLine = h(
      "label",
      { class: "sx-check", title: "Adapts the weights in use with small steps, holds patients out, and ends before the images are learnt by heart" },
      this.few,
      `Few images (${FEW[0]} to ${FEW[1]}): adapt, and end before they are learnt by heart`,
    );
    this.like = h("input", { type: "checkbox", id: "fit-references" });
    this.likeLine = h(
      "label",
      { class: "sx-check", title: "Afterwards Draw and Generate offer: paint this class as it looks in a chosen image" },
      this.like,
      "Learn to paint like a chosen image",
    );
    this.fitSteps = numberField("or steps", "", { min: 1, placeholder: "by time", id: "fit-steps" });
    this.engine = selectField(
      "Engine",
      [
        ["compact", "compact, built in"],
        ["stable-diffusion", "Stable Diffusion, from disk"],
      ],
      "compact",
      (engine) => this.setEngine(engine),
    );
    this.engine.input.id = "fit-engine";
    this.base = text("Folder of the weights, or hub id in the cache", "/path/to/stable-diffusion", { id: "fit-base" });
    this.mode = selectField(
      "It makes",
      [
        ["inpainting", "what the mask names, in the picture"],
        ["controlnet", "whole scenes"],
      ],
      "inpainting",
    );
    this.mode.input.id = "fit-mode";
    this.missing = h("p", { class: "sx-note sx-command", role: "status", id: "fit-missing" });
    this.diffusion = h("div", { hidden: true }, h("div", { class: "sx-stack" }, this.base, this.mode, this.missing));
    this.scorerSteps = numberField("Steps", 600, { min: 1, id: "scorer-steps" });
    this.folds = numberField("Folds", 2, {
      min: 1,
      max: 10,
      id: "scorer-folds",
      title: "So many scorers, none of which judges images of patients that it has seen. 1 = one that has seen all.",
    });
    this.forms = new DataForms(() => this.load());
    this.withdrawals = new Withdrawals(async () => {
      await refreshOverview();
      await this.load();
    });
    element.classList.add("sx-data");
    element.append(
      h(
        "section",
        { class: "sx-main-column" },
        h(
          "div",
          { class: "sx-filter-row" },
          this.split,
          h("label", { class: "sx-check sx-mask-only" }, this.maskBox, "Show masks"),
          (this.classes = selectField("Class", [["", "all classes"]], "", () => this.apply())),
          this.count,
        ),
        this.grid.root,
      ),
      h("aside", { class: "sx-side-column sx-stack" }, this.training(), this.forms.root, this.withdrawals.root),
    );
    onShow(element, () => state.project && this.load());
    on("overview", () => this.showModels());
    on("library", () => element.offsetParent && this.load());
    withProject(() => {
      if (isClassification()) this.setEngine("compact"); // its choice is hidden there
      this.load();
    });
    element.dataset.ready = "1";
  }

  training() {
    const place = async (kind, values, words) => {
      const { job } = await order(kind, values());
      toast(job.before ? `${words}: in the queue, ${plural(job.before, "job")} before it.` : `${words}: started.`);
    };
    const run = (kind, values, words) => (event) => act(event.currentTarget, () => place(kind, values, words));
    const bySteps = () => (this.fitSteps.number() ? { steps: this.fitSteps.number() } : { minutes: this.minutes.number() ?? MINUTES });
    const byEngine = () => {
      const few = this.few.checked && { few: true };
      if (this.engine.input.value === "compact") return { ...bySteps(), ...few, ...(this.like.checked && !isClassification() && { references: true }) };
      const base = this.base.input.value.trim();
      return { ...bySteps(), ...few, engine: "stable-diffusion", mode: this.mode.input.value, ...(base && { base }) };
    };
    const fit = (event) =>
      act(event.currentTarget, async () => {
        this.missing.textContent = "";
        await place("fit", byEngine, "Fitting the generator").catch((error) => {
          if (this.engine.input.value === "compact" || !(error instanceof ApiError)) throw error;
          this.missing.textContent = error.message; // stays, so that its command can be copied
        });
      });
    return h(
      "section",
      { class: "sx-block" },
      h("h2", {}, "Trained on these images"),
      this.models,
      h(
        "div",
        { class: "sx-row" },
        this.scorerSteps,
        this.folds,
        h(
          "button",
          {
            type: "button",
            class: "sx-button",
            id: "train-scorers",
            onclick: run(
              "train_scorer",
              () => ({ steps: this.scorerSteps.number() ?? 600, folds: this.folds.number() ?? 2 }),
              "Training the scorers",
            ),
          },
          "Train scorers",
        ),
      ),
      h(
        "div",
        { class: "sx-row" },
        this.minutes,
        this.fitSteps,
        h("button", { type: "button", class: "sx-button", id: "fit-generator", onclick: fit }, "Fit generator"),
      ),
      h("div", { class: "sx-mask-only" }, this.likeLine),
      this.fewLine,
      h("div", { class: "sx-mask-only" }, h("div", { class: "sx-stack" }, this.engine, this.diffusion)),
      h(
        "p",
        { class: "sx-note" },
        "Scorers judge how well an image shows its ",
        byTask("mask", "class"),
        ". Fitting teaches the generator your own images; it can go on in the background.",
      ),
    );
  }

  setEngine(engine) {
    this.engine.input.value = engine;
    this.diffusion.hidden = engine === "compact";
    this.likeLine.hidden = engine !== "compact";
  }

  chooseFew(isFew) {
    this.chose = state.project.id;
    this.setFew(isFew);
  }

  /** With few images a fit that nothing watches learns them by heart. */
  setFew(isFew) {
    this.few.checked = isFew;
    if (isFew === this.wasFew) return; // minutes that somebody typed stay
    this.wasFew = isFew;
    this.minutes.input.value = isFew ? FEW_MINUTES : MINUTES;
  }

  showModels() {
    const { models, splits } = state.overview;
    // Offered as long as nobody has chosen: images may come later.
    if (this.chose !== state.project.id) this.setFew((splits.train ?? 0) > 0 && splits.train <= FEW[1]);
    const line = (kind, name, missing) => {
      const model = models[kind];
      return [
        h("dt", {}, name),
        h(
          "dd",
          {},
          model
            ? `${model.engine === "stable-diffusion" ? "Stable Diffusion, " : ""}version ${model.id}, ${when(model.created_at)}${measured(model)}${state.overview.withdrawn.models.includes(model.id) ? `; ${TIED}` : ""}`
            : missing,
        ),
      ];
    };
    replace(
      this.models,
      h(
        "dl",
        { class: "sx-facts-list" },
        line("engine", "Generator", "not fitted yet"),
        line("selector", "Scorer", "not trained yet"),
        line("judge", "Judge", "not trained yet"),
      ),
      this.perClass(models.selector),
    );
  }

  /** Of a classifier: how well it tells each class, those first on which it is weak. */
  perClass(selector) {
    const found = selector?.metrics.val?.f1_per_class;
    if (!found || !Object.keys(found).length) return null;
    const value = ({ name }) => found[name] ?? -1, // one that no validation image shows first of all
      order = [...state.project.classes].sort((one, two) => value(one) - value(two));
    const words = ({ name }) =>
      name in found ? `${percent(found[name])}${found[name] < WEAK ? ", weak: people are asked first" : ""}` : "unknown, no validation image shows it";
    return h(
      "details",
      { class: "sx-details" },
      h("summary", {}, "F1 of each class on validation images"),
      h(
        "dl",
        { class: "sx-facts-list" },
        order.map((label) => [h("dt", {}, classTag(label.index)), h("dd", {}, words(label))]),
      ),
    );
  }

  async load() {
    const project = state.project,
      items = [];
    for (let offset = 0, page; ; offset += page.length) {
      page = (await get(`/api/projects/${project.id}/images?limit=2000&offset=${offset}`)).items;
      if (state.project !== project) return;
      items.push(...page);
      if (page.length < 2000) break;
    }
    this.images = items;
    this.forms.showProject(project);
    this.withdrawals.load();
    this.showClasses();
    this.apply();
    if (state.overview) this.showModels();
  }

  /** In classification: each class with its number of images, to show it alone. */
  showClasses() {
    const kept = this.classes.input.value,
      count = (name) => this.images.filter((image) => image.label === name).length;
    this.classes.hidden = !isClassification();
    replace(
      this.classes.input,
      h("option", { value: "" }, "all classes"),
      isClassification() ? state.project.classes.map(({ name }) => h("option", { value: name }, `${name} ${count(name)}`)) : null,
    );
    this.classes.input.value = [...this.classes.input.options].some((option) => option.value === kept) ? kept : "";
  }

  apply() {
    const label = this.classes.input.value;
    this.shown = this.images.filter(
      (image) => (this.split.value === "all" || image.split === this.split.value) && (!label || image.label === label),
    );
    this.grid.set(this.shown);
    const number = (split) => this.images.filter((image) => image.split === split).length,
      named = this.shown.filter((image) => !isUnnamed(image)),
      groups = new Set(named.map((image) => image.group)).size;
    [...this.split.children].forEach((button) => {
      const [, text] = SPLITS.find(([name]) => name === button.dataset.value);
      const count = button.dataset.value === "all" ? this.images.length : number(button.dataset.value);
      button.textContent = `${text} ${count}`;
      button.hidden = !count && button.dataset.value === "none";
    });
    const lone = this.shown.length - named.length;
    this.count.textContent = [
      groups ? plural(groups, "patient or video", "patients or videos") : "",
      lone ? `${plural(lone, "image")} without a patient` : "",
      isClassification()
        ? `${this.shown.filter((image) => image.label).length} with a class`
        : `${this.shown.filter((image) => image.label_map_id).length} with mask`,
    ]
      .filter(Boolean)
      .join(" \u00b7 ");
    this.root.dataset.loaded = String(this.shown.length);
  }

  card() {
    const card = h(
      "div",
      { class: "sx-sample", role: "option" },
      h("div", { class: "sx-sample-picture" }),
      h("div", { class: "sx-sample-foot" }),
    );
    card.addEventListener("click", () => {
      if (isClassification()) return; // there is nothing to draw
      openTab("draw");
      setTimeout(() => emit("draw:open", { image: card.image }), 60);
    });
    return card;
  }

  update(card, image) {
    card.image = image;
    card.title = isClassification() ? image.name : "Open in Draw";
    const [frame, foot] = card.children,
      source =
        this.showsMask && image.label_map_blob && !isClassification()
          ? urls.overlay(image.blob, image.label_map_blob, 256)
          : urls.thumb(image.blob, 256);
    if (frame.dataset.source !== source) {
      frame.dataset.source = source;
      replace(frame, picture(source, image.name), badge(image.origin === "edited" ? "edited" : "real"));
    }
    replace(
      foot,
      h("span", { class: "sx-cut", title: image.name }, isUnnamed(image) ? "patient not given" : image.group),
      h("span", {}, image.withdrawn ? "withdrawn" : image.split),
      isClassification()
        ? h("small", { class: "sx-cut" }, image.label ? classTag(state.project.classes.findIndex(({ name }) => name === image.label)) : "no class")
        : h("small", { class: "sx-cut" }, image.label_map_id ? (image.label ?? "") : "no mask"),
    );
  }
}
