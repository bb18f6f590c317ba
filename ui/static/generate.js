// Generate: a pool of images in one order, and the queue of all work with whose turn it is.
import { ClassChoice } from "./class_choice.js";
import { openDetail } from "./detail.js";
import { favourites } from "./favourites.js";
import {
  act,
  ApiError,
  byTask,
  duration,
  get,
  h,
  isClassification,
  isNegative,
  numberField,
  on,
  onShow,
  order,
  percent,
  picture,
  plural,
  post,
  replace,
  selectField,
  state,
  toast,
  urls,
  when,
  withProject,
} from "./lib.js";
import { References } from "./references.js";
import { WeakPlaces } from "./weakness.js";

const NUM_LAST = 8; // finished images that are shown before a job ends
/** New options of a choice; what was chosen stays chosen as long as it is there. */
const offer = (input, options, otherwise) => {
  const kept = input.value;
  replace(
    input,
    options.map(([key, text]) => h("option", { value: key }, text)),
  );
  input.value = options.some(([key]) => key === kept) ? kept : otherwise;
};
const ENDS = { done: "done", failed: "failed", cancelled: "stopped" };

export function mount(element) {
  new GenerateTab(element);
}

class GenerateTab {
  constructor(element) {
    this.root = element;
    this.count = numberField("Masks", 16, { min: 1, max: 100000, id: "pool-count", oninput: () => this.promise() });
    this.candidates = numberField("Images per mask", 4, {
      min: 1,
      max: 64,
      id: "pool-candidates",
      oninput: () => this.promise(),
    });
    this.from = selectField(
      "Masks from",
      [
        ["training", "training images"],
        ["drawings", "my drawings"],
        ["favourites", "my favourites"],
        ["weak", "training, where the segmenter is weak"],
      ],
      "training",
      () => this.promise(),
    );
    this.from.input.id = "pool-from";
    this.from.classList.add("sx-mask-only");
    this.choice = new ClassChoice({ onchange: () => this.promise() });
    this.seed = numberField("Seed", 1000, { min: 0, id: "pool-seed" });
    this.steps = numberField("Steps", "", { min: 2, max: 100, placeholder: "auto" });
    this.guidance = numberField("Guidance", "", { min: 0.1, max: 20, step: 0.1, placeholder: "auto" });
    this.adapter = selectField(
      "Version",
      [
        ["accepted", "in use"],
        ["none", "base"],
      ],
      "accepted",
    );
    this.surroundings = selectField(
      "Around the masks",
      [
        ["", "made anew"],
        ["real", "real pixels"],
      ],
      "",
      () => this.promise(),
    );
    this.surroundings.input.id = "pool-surroundings";
    this.surroundings.classList.add("sx-mask-only");
    this.reach = numberField("Begins wider by, px", "", { min: 1, max: 64, placeholder: "0", id: "pool-reach" });
    this.reach.title = "The painted part begins so many pixels wider and is exact after 60 % of the steps, so that it settles with its surroundings";
    this.reach.hidden = true;
    this.references = new References();
    this.toShare = h("input", { type: "checkbox", id: "pool-to-share", onchange: () => this.promise() });
    this.toShareRow = h(
      "label",
      { class: "sx-check", title: "Images that come near to any training image (pixels, perceptual hash, an own network that tells patients apart) are left; where a mask has no other, new ones are made with less guidance, up to six times" },
      this.toShare,
      h("span", {}, "A set to share: keep of each ", byTask("mask", "set"), " the best image that is near to no training patient"),
    );
    this.accepts = h("input", { type: "checkbox", id: "pool-accept" });
    this.acceptsRow = h("label", { class: "sx-check", hidden: true }, this.accepts, "Accept what is kept, for the next export");
    this.negatives = []; // versions that have learnt what is not wanted
    this.negative = selectField("Lead away from", [["", "nothing"]], "");
    this.negative.input.id = "pool-negative";
    this.negative.hidden = true;
    this.button = h(
      "button",
      { type: "button", class: "sx-button sx-primary sx-big", id: "pool-generate", onclick: () => this.start() },
      "Generate the pool",
    );
    this.words = h("p", {});
    this.active = h("div", { class: "sx-queue" });
    this.live = h("div", { class: "sx-live", hidden: true });
    this.recent = h("div", { class: "sx-queue" });
    element.classList.add("sx-generate");
    element.append(
      h(
        "div",
        { class: "sx-two-columns" },
        h(
          "section",
          { class: "sx-card sx-stack" },
          h("h2", {}, "A pool of synthetic images"),
          this.words,
          this.choice.root,
          h("div", { class: "sx-form-grid" }, this.from, this.count, this.candidates, this.seed, this.adapter, this.steps, this.guidance, this.surroundings, this.reach, this.negative),
          this.references.root,
          this.toShareRow,
          this.acceptsRow,
          this.button,
          h(
            "p",
            { class: "sx-note" },
            "Each image is scored at once when the scorers are trained. ",
            byTask("Who draws goes first: drawings overtake the pools that wait.", ""),
          ),
        ),
        h(
          "div",
          { class: "sx-stack" },
          h("section", { class: "sx-card" }, h("h2", {}, "Now"), this.active, this.live),
          new WeakPlaces(element).root,
          h("section", { class: "sx-card" }, h("h2", {}, "Before"), this.recent),
        ),
      ),
    );
    on("jobs", () => this.showJobs());
    onShow(element, () => state.project && this.load());
    on("overview", () => this.choice.show());
    on("generate:classes", (indices) => this.choice.choose(indices));
    withProject(() => {
      this.showTask();
      this.load();
    });
    this.promise();
    element.dataset.ready = "1";
  }

  async load() {
    this.choice.show();
    const project = state.project,
      { items: all, engine } = await get(`/api/projects/${project.id}/adapters`);
    if (state.project !== project) return;
    const items = all.filter((item) => item.model_id === engine?.id); // those of an earlier generator fit its weights alone
    this.negatives = items.filter(isNegative);
    const versions = items.filter((item) => !isNegative(item));
    offer(
      this.adapter.input,
      [
        ["accepted", `in use (${versions.find((item) => item.state === "accepted")?.name ?? "base"})`],
        ["none", "base"],
        ...versions.map((item) => [String(item.id), `${item.name}${item.state === "candidate" ? ", not accepted" : ""}`]),
      ],
      "accepted",
    );
    this.negative.hidden = !this.negatives.length;
    offer(this.negative.input, [["", "nothing"], ...this.negatives.map((item) => [String(item.id), item.name])], "");
    this.showJobs();
  }

  /** In classification images come in sets of a class, in segmentation several of a mask. */
  showTask() {
    const isClass = isClassification();
    const rename = (field, text) => {
      field.firstChild.textContent = text;
      field.input.setAttribute("aria-label", text);
    };
    rename(this.count, isClass ? "Sets per class" : "Masks");
    rename(this.candidates, isClass ? "Images per set" : "Images per mask");
    this.count.input.value = isClass ? 8 : 16;
    this.choice.reset();
    this.promise();
  }

  promise() {
    if (isClassification()) return this.promiseClasses();
    this.button.disabled = false;
    const masks = this.count.number() ?? 0,
      each = this.candidates.number() ?? 0;
    const from = { training: "", drawings: " from my drawings (the newest first)", favourites: " from my favourites (the last first)", weak: " like those that the segmenter misses" };
    const isReal = this.surroundings.input.value === "real";
    this.reach.hidden = !isReal;
    this.toShareRow.hidden = isReal; // real pixels show their patient
    const isShared = this.showShared();
    const what = isReal ? "images, painted into the real ones under the masks: EDITED, a patient's pixels stay around them" : "synthetic images, to score, compare and choose from";
    if (isShared) {
      this.words.textContent = `${plural(masks, "mask")}${from[this.from.input.value]}, ${plural(each, "image")} each and more where all are near to a patient: at most ${masks} are kept, and masks that stay without one are told.`;
      return;
    }
    this.words.textContent = `${plural(masks, "mask")}${from[this.from.input.value]} \u00d7 ${plural(each, "image")} = ${masks * each} ${what}.`;
  }

  /** Whether the order is for a set to share; its second box shows with it. */
  showShared() {
    const isShared = this.toShare.checked && !this.toShareRow.hidden;
    this.acceptsRow.hidden = !isShared;
    this.button.textContent = isShared ? "Make the set to share" : "Generate the pool";
    return isShared;
  }

  promiseClasses() {
    const { chosen } = this.choice,
      sets = this.count.number() ?? 0,
      each = this.candidates.number() ?? 0;
    this.button.disabled = !chosen.length;
    this.reach.hidden = true;
    this.toShareRow.hidden = false;
    this.showShared();
    this.words.textContent = chosen.length
      ? `${plural(chosen.length, "class", "classes")} \u00d7 ${plural(sets, "set")} \u00d7 ${plural(each, "image")} = ${chosen.length * sets * each} synthetic images. The images of a set are compared with each other, and the real image of its place may win.`
      : "Choose the classes of which images are to be made.";
  }

  start() {
    return act(this.button, async () => {
      const chosen = this.adapter.input.value;
      const isShared = this.showShared();
      const { job } = await order(isShared ? "surrogates" : "generate", {
        ...(isShared && { accept: this.accepts.checked }),
        ...(await this.masks(this.count.number() ?? 16)),
        candidates: this.candidates.number() ?? 4,
        seed: this.seed.number() ?? 0,
        adapter: /^\d+$/.test(chosen) ? Number(chosen) : chosen,
        settings: this.settings(),
      });
      this.seed.input.value = (this.seed.number() ?? 0) + 1000;
      toast(job.before ? `In the queue: ${job.turn}.` : "Started.");
    });
  }

  /** How images are made; without a guidance of its own, a version to lead away from brings the one that it was tested at. */
  settings() {
    const away = this.negatives.find((item) => String(item.id) === this.negative.input.value);
    return {
      num_inference_steps: this.steps.number(),
      guidance_scale: this.guidance.number() ?? away?.config.negative ?? null,
      ...(away && { negative: { adapter_id: away.id } }),
      ...this.around(),
      ...(this.references.value() && { references: this.references.value() }),
    };
  }

  /** What is painted into real images, and how its edge moves; nothing where whole images are made. */
  around() {
    if (isClassification() || this.surroundings.input.value !== "real") return {};
    const reach = this.reach.number();
    return { surroundings: "real", ...(reach && { guide: { reach_px: reach } }) };
  }

  /** The masks of the order: so many of the training images, or named ones. */
  async masks(count) {
    if (isClassification()) {
      const { chosen } = this.choice;
      return { classes: chosen, count: (this.count.number() ?? 8) * chosen.length };
    }
    const from = this.from.input.value;
    if (from === "training") return { count };
    if (from === "weak") return { count, focus: "weak" };
    let ids = [];
    if (from === "drawings") ids = (await get(`/api/projects/${state.project.id}/drawings`)).items.map((item) => item.id);
    else if (favourites().length)
      ids = (await get(`/api/samples?ids=${favourites().slice(0, 200).join(",")}`)).items.map((item) => item.label_map_id);
    ids = [...new Set(ids)].slice(0, count);
    if (!ids.length)
      throw new ApiError(
        from === "drawings" ? "There is no drawing of yours yet; draw a mask in Draw first." : "No favourites yet; press the star on an image first.",
        0,
        null,
      );
    return { label_map_ids: ids };
  }

  showJobs() {
    this.showLive(state.active.find((job) => job.state === "running" && ["generate", "mine", "surrogates"].includes(job.kind) && job.project_id === state.project?.id)).catch(() => {});
    // Rows stay as long as their jobs do: a press on a button that is replaced meanwhile would be lost, and the focus with it.
    const key = state.active.map((job) => `${job.id} ${job.state}`).join();
    if (key && key === this.activeKey) state.active.forEach((job, index) => this.active.children[index].show(job));
    else
      replace(
        this.active,
        state.active.length
          ? state.active.map((job) => this.activeRow(job))
          : h("p", { class: "sx-note" }, "Nothing is running. The queue runs one job at a time."),
      );
    this.activeKey = key;
    const ended = state.recent.filter((job) => job.state in ENDS).slice(0, 14);
    replace(
      this.recent,
      ended.length
        ? ended.map((job) =>
            h(
              "div",
              { class: "sx-job", dataset: { state: job.state } },
              h("b", {}, job.title, h("small", { class: "sx-job-owner" }, `for ${job.created_by}`)),
              h("span", {}, job.state === "failed" ? job.error : job.message, job.what && h("small", { class: "sx-job-what" }, job.what)),
              h("small", {}, `${ENDS[job.state]} \u00b7 ${when(job.finished_at ?? job.created_at)}`),
            ),
          )
        : h("p", { class: "sx-note" }, "No work yet in this project."),
    );
  }

  /** What the running order is making now, and the last images that are finished. */
  async showLive(job) {
    if (!job || !this.root.offsetParent) {
      this.live.hidden = !job;
      return;
    }
    const { count, items } = await get(`/api/jobs/${job.id}/made?limit=${NUM_LAST}`),
      { count: looks, stamp } = job.previews;
    this.live.hidden = !looks && !items.length;
    const now = Array.from({ length: looks }, (_, index) => {
      const look = h("img", { src: `/api/jobs/${job.id}/preview/${index}.jpg?stamp=${stamp}`, alt: "Preview of an image being made" });
      look.addEventListener("error", () => look.remove()); // the job has just ended
      return look;
    });
    replace(
      this.live,
      looks ? h("div", {}, h("small", {}, "Being made"), h("div", { class: "sx-live-row" }, now)) : null,
      h(
        "div",
        {},
        h("small", {}, `${plural(count, "image")} so far${job.num_images ? ` of ${job.num_images}` : ""}`),
        h(
          "div",
          { class: "sx-live-row" },
          items.map((item) =>
            h(
              "button",
              { type: "button", title: "Look closer", onclick: () => openDetail(item.id) },
              picture(urls.thumb(item.blob, 128), `Finished image, seed ${item.seed}`, { loading: "eager" }),
            ),
          ),
        ),
      ),
    );
  }

  activeRow(job) {
    const turn = h("span", {}),
      fill = h("div", { class: "sx-bar-fill" });
    const row = h(
      "div",
      { class: "sx-job", dataset: { state: job.state } },
      h("b", {}, job.title, h("small", { class: "sx-job-owner" }, `for ${job.created_by}`)),
      turn,
      h(
        "button",
        {
          type: "button",
          class: "sx-button sx-small",
          onclick: (event) => act(event.currentTarget, () => post(`/api/jobs/${job.id}/cancel`, {})),
        },
        "Stop",
      ),
      job.state === "running" &&
        h(
          "div",
          { class: "sx-bar", role: "progressbar", "aria-label": job.title },
          fill,
        ),
    );
    row.show = (now) => {
      replace(turn, turnOf(now), now.what && h("small", { class: "sx-job-what" }, now.what));
      fill.style.width = `${now.total ? (100 * now.step) / now.total : 0}%`;
    };
    row.show(job);
    return row;
  }
}

/** Where a job stands: how far it is, or when its turn comes. */
function turnOf(job) {
  if (job.state !== "running") return job.turn;
  return [
    job.cancelling ? "stopping" : job.message,
    job.total ? percent(job.step / job.total) : "",
    job.eta_s ? `${duration(job.eta_s)} left` : "",
  ]
    .filter(Boolean)
    .join(" \u00b7 ");
}
