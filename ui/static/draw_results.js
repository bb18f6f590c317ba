// Beside the canvas: the button, its three settings, and the images with what the segmenter found in them.
import { openDetail } from "./detail.js";
import {
  act,
  badge,
  duration,
  emit,
  get,
  h,
  numberField,
  on,
  percent,
  picture,
  post,
  refreshOverview,
  replace,
  state,
  urls,
} from "./lib.js";

const VARIANTS = 4,
  POLL_MS = 250;

export class DrawResults {
  /** `generate()` saves the mask, places the order and returns {mapId, answer}. */
  constructor(generate) {
    this.order = generate;
    this.seed = numberField("Seed", 1, { min: 0, step: 1, id: "draw-seed" });
    this.steps = numberField("Steps", "", { min: 2, max: 100, placeholder: "auto" });
    this.guidance = numberField("Guidance", 1, { min: 1, max: 10, step: 0.1 });
    this.button = h("button", {
      type: "button",
      class: "sx-button sx-primary sx-big",
      id: "draw-generate",
      onclick: () => (this.job ? this.cancel() : this.start()),
    });
    this.note = h("p", { class: "sx-note", role: "status" });
    this.grid = h("div", { class: "sx-results" });
    this.bar = h("div", { class: "sx-bar-fill" });
    this.progress = h("div", { class: "sx-bar", role: "progressbar", "aria-label": "Generating", hidden: true }, this.bar);
    this.root = h(
      "aside",
      { class: "sx-results-column", "aria-label": "Synthetic images" },
      this.button,
      h("div", { class: "sx-row" }, this.seed, this.steps, this.guidance),
      this.progress,
      this.note,
      this.grid,
    );
    this.isFresh = true;
    this.idle();
    on("samples", () => this.samples && this.reload());
    on("jobs", ({ active }) => this.resume(active));
  }

  settings() {
    const steps = this.steps.number();
    return {
      candidates: VARIANTS,
      seed: this.seed.number() ?? 0,
      settings: { num_inference_steps: steps, guidance_scale: this.guidance.number() ?? 1 },
    };
  }

  maskChanged() {
    this.isFresh = true;
  }

  idle(text = "") {
    this.job = null;
    this.progress.hidden = true;
    replace(this.button, `Generate ${VARIANTS} variants`);
    this.button.classList.remove("sx-stop");
    this.note.textContent = text;
  }

  start() {
    return act(this.button, async () => {
      // Same mask and same seed would give the same images again; after a change the seed stays, so that only the mask differs.
      if (!this.isFresh) this.seed.input.value = (this.seed.number() ?? 0) + VARIANTS;
      this.isFresh = false;
      const { mapId, answer } = await this.order();
      this.mapId = mapId;
      this.follow(answer.job);
    });
  }

  /** After a reload: show the order that still runs for this mask. */
  resume(active) {
    const mine =
      !this.job &&
      this.mapId &&
      active.find((job) => job.kind === "generate" && job.purpose === "draw" && job.label_map_ids.includes(this.mapId));
    if (mine) this.follow(mine);
  }

  async follow(job) {
    this.job = job;
    replace(this.button, "Stop", h("kbd", {}, "Esc"));
    this.button.classList.add("sx-stop");
    this.progress.hidden = false;
    this.placeholders();
    while (this.job?.id === job.id) {
      try {
        job = await get(`/api/jobs/${job.id}`);
      } catch {
        /* the strip says that nobody answers */
      }
      if (this.job?.id !== job.id) return;
      if (["done", "failed", "cancelled"].includes(job.state)) return this.finish(job);
      this.bar.style.width = `${job.total ? (100 * job.step) / job.total : 3}%`;
      this.note.textContent =
        job.state === "queued"
          ? job.before
            ? `Waiting for ${job.before === 1 ? "one other job" : `${job.before} other jobs`}`
            : "Starting\u2026"
          : `${job.message}${job.eta_s ? ` \u00b7 ${duration(job.eta_s)} left` : ""}`;
      this.preview(job.images);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async finish(job) {
    this.idle(job.state === "done" ? "" : job.state === "cancelled" ? "Stopped." : (job.error ?? "Failed."));
    if (job.state === "done") {
      const ids = (job.result.sample_ids ?? []).slice(0, 16);
      this.showSamples(ids.length ? (await get(`/api/samples?ids=${ids.join(",")}`)).items : []);
      emit("poll");
      refreshOverview().catch(() => {});
    } else this.reload();
  }

  cancel() {
    if (this.job) act(null, () => post(`/api/jobs/${this.job.id}/cancel`, {}));
  }

  /** Another mask was opened: show what was made for it before. */
  async showFor({ mapId, blob }) {
    Object.assign(this, { mapId, job: null, samples: [], isFresh: true });
    this.idle();
    if (blob) {
      const found = (await get(`/api/projects/${state.project.id}/samples?label_map=${blob}&limit=4`)).items;
      if (this.mapId === mapId && !this.job && !this.samples.length) {
        this.showSamples(found.reverse());
        this.isFresh = found.every((sample) => sample.purpose !== "draw");
      }
    } else this.showSamples([]);
    this.resume(state.active);
  }

  async reload() {
    if (!this.samples?.length) return this.showSamples([]);
    this.showSamples((await get(`/api/samples?ids=${this.samples.map((sample) => sample.id).join(",")}`)).items);
  }

  placeholders() {
    replace(
      this.grid,
      Array.from({ length: VARIANTS }, () =>
        h("div", { class: "sx-result sx-waiting" }, h("div", { class: "sx-result-picture" })),
      ),
    );
  }

  preview(images) {
    const newest = new Map((images ?? []).map(([name, , blob]) => [name, blob]));
    [...newest.values()].slice(0, VARIANTS).forEach((blob, index) => {
      const slot = this.grid.children[index]?.firstChild;
      if (slot && slot.dataset.blob !== blob) {
        slot.dataset.blob = blob;
        replace(slot, picture(urls.image(blob), "preview"));
      }
    });
  }

  showSamples(samples) {
    this.samples = samples;
    this.grid.dataset.count = samples.length;
    if (!samples.length)
      return replace(
        this.grid,
        h(
          "p",
          { class: "sx-empty" },
          "Draw or open a mask, then generate. The images appear here, with what the segmenter finds in them.",
        ),
      );
    replace(
      this.grid,
      samples.map((sample) => this.card(sample)),
    );
  }

  card(sample) {
    const decide = (curation) =>
      act(null, async () => {
        await post("/api/samples/curate", { project_id: state.project.id, states: { [sample.id]: curation } });
        emit("samples");
        refreshOverview().catch(() => {});
      });
    const choice = (curation, text) =>
      h(
        "button",
        {
          type: "button",
          class: "sx-mini",
          "aria-pressed": String(sample.curation === curation),
          onclick: () => decide(sample.curation === curation ? "pending" : curation),
        },
        text,
      );
    return h(
      "article",
      { class: "sx-result", dataset: { id: sample.id, state: sample.curation } },
      h(
        "button",
        { type: "button", class: "sx-result-picture", title: "Look closer", onclick: () => openDetail(sample.id) },
        picture(urls.image(sample.blob), `Synthetic image, seed ${sample.seed}`),
        badge("synthetic"),
        sample.dice !== null && h("span", { class: "sx-score" }, percent(sample.dice)),
      ),
      h("p", { class: "sx-words", title: sample.words }, sample.words),
      h(
        "div",
        { class: "sx-mini-row" },
        choice("accepted", "Accept"),
        choice("rejected", "Reject"),
        h("small", {}, `seed ${sample.seed}`),
      ),
    );
  }
}
