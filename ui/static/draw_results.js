// Beside the canvas: the button, the settings of the next images, the images with what the segmenter found in them, and
// what was made before.
import { openDetail } from "./detail.js";
import { Strip, VARIANTS } from "./draw_strip.js";
import { star } from "./favourites.js";
import { History } from "./history.js";
import {
  act,
  badge,
  duration,
  emit,
  get,
  h,
  kbd,
  on,
  percent,
  picture,
  plural,
  post,
  refreshOverview,
  replace,
  requestId,
  segmented,
  state,
  toast,
  urls,
} from "./lib.js";

const POLL_MS = 250,
  ENDS = ["done", "failed", "cancelled"];

export class DrawResults {
  /** `generate()` saves the mask, places the order and returns {mapId, answer}; `openMask({label_map_id, rev})` opens a copy. */
  constructor(generate, openMask) {
    this.order = generate;
    this.strip = new Strip(() => this.markSource());
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
    this.history = new History({
      onShow: (item) => act(null, () => this.showGeneration(item)),
      onSettings: (item) => this.strip.recall(item, timeOf(item)),
      onMask: (item) => act(null, () => openMask({ label_map_id: item.label_map_id, rev: item.label_map_rev })),
    });
    this.view = segmented(
      "Images or history",
      [
        ["images", "Images"],
        ["history", "History"],
      ],
      "images",
      (name) => this.open(name),
    );
    this.root = h(
      "aside",
      { class: "sx-results-column", "aria-label": "Synthetic images" },
      this.button,
      this.strip.root,
      this.progress,
      this.note,
      h("div", { class: "sx-view-row" }, this.view, this.strip.part.input),
      this.strip.source.input,
      this.strip.reach,
      this.grid,
      this.history.root,
    );
    // Escape in a field of the strip reaches nobody else.
    this.strip.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.escape(event)) event.preventDefault();
    });
    this.doc = null;
    this.idle();
    on("samples", () => this.samples && this.reload());
    on("jobs", ({ active }) => this.resume(active));
    on("draw:settings", (item) => this.strip.recall(item, `seed ${item.seed}`));
  }

  settings() {
    return this.strip.settings();
  }

  open(name) {
    this.view.set(name);
    this.grid.hidden = name !== "images";
    this.history.open(name === "history");
  }

  // ---- the order and its progress

  idle(text = "") {
    this.job = null;
    this.progress.hidden = true;
    replace(this.button, `${VARIANTS} variants`, kbd("Ctrl"), kbd("Enter"));
    this.button.setAttribute("aria-keyshortcuts", "Control+Enter");
    this.button.classList.remove("sx-stop");
    this.note.textContent = text;
  }

  /** Four images of the mask as it is. While others are made, these wait in the queue. */
  start() {
    if (this.isPlacing) return undefined;
    this.isPlacing = true;
    return act(this.job ? null : this.button, async () => {
      try {
        this.strip.advance();
        const { doc } = this,
          { mapId, answer } = await this.order();
        if (doc !== this.doc) return; // another mask was opened meanwhile; its images will be in the history
        this.mapId = mapId;
        if (this.job) toast(`In the queue: ${answer.job.turn ?? "next"}.`);
        else this.follow(answer.job);
      } finally {
        this.isPlacing = false;
      }
    });
  }

  /** After a reload, and when the order before has ended: show the order that runs or waits for this mask. */
  resume(active) {
    const mine =
      !this.job &&
      !this.isPlacing &&
      this.mapId &&
      active.find(
        (job) => job.kind === "generate" && job.purpose === "draw" && !job.cancelling && job.label_map_ids.includes(this.mapId),
      );
    if (mine) this.follow(mine);
  }

  async follow(job) {
    this.job = job;
    replace(this.button, "Stop", kbd("Esc"));
    this.button.removeAttribute("aria-keyshortcuts");
    this.button.classList.add("sx-stop");
    this.progress.hidden = false;
    this.open("images");
    this.placeholders(job.num_images);
    while (this.job?.id === job.id) {
      try {
        job = await get(`/api/jobs/${job.id}`);
      } catch {
        /* the strip says that nobody answers */
      }
      if (this.job?.id !== job.id) return;
      if (ENDS.includes(job.state)) return this.finish(job);
      this.bar.style.width = `${job.total ? (100 * job.step) / job.total : 3}%`;
      const more = this.waitingAfter(job);
      this.note.textContent = [
        job.state === "queued" ? job.turn : job.message,
        job.state === "running" && job.eta_s ? `${duration(job.eta_s)} left` : "",
        more ? `${more} more of yours waiting (Shift + Esc stops all)` : "",
      ]
        .filter(Boolean)
        .join(" \u00b7 ");
      this.preview(job);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  waitingAfter(job) {
    const mine = state.active.filter((item) => item.purpose === "draw" && item.id !== job.id && item.created_by === job.created_by);
    return mine.filter((item) => item.state === "queued").length;
  }

  async finish(job) {
    const { doc } = this;
    this.idle(job.state === "done" ? "" : job.state === "cancelled" ? "Stopped." : (job.error ?? "Failed."));
    if (job.state === "done") {
      const ids = (job.result.sample_ids ?? []).slice(0, 16),
        shown = (this.samples ?? []).map((sample) => sample.id);
      const [answer] = await Promise.all([
        ids.length ? get(`/api/samples?ids=${ids.join(",")}`) : { items: [] },
        this.loadHistory(),
      ]);
      if (doc !== this.doc) return;
      this.showSamples(answer.items);
      if (ids.length && ids.every((id) => shown.includes(id)))
        this.note.textContent = "The same images: mask, seeds and settings are unchanged.";
      emit("poll");
      refreshOverview().catch(() => {});
    } else this.reload();
  }

  cancel() {
    if (this.job) act(null, () => post(`/api/jobs/${this.job.id}/cancel`, {}));
  }

  /** Escape stops the running order, with Shift all of mine. Returns whether there was something to stop. */
  escape(event) {
    if (event.shiftKey) {
      act(null, async () => {
        const { stopped } = await post("/api/jobs/clear", { project_id: state.project.id, request_id: requestId() });
        toast(stopped.length ? `${plural(stopped.length, "order")} of yours stopped.` : "No order of yours is waiting.");
        emit("poll");
      });
      return true;
    }
    if (!this.job) return false;
    this.cancel();
    return true;
  }

  placeholders(count) {
    const number = Math.min(16, count ?? VARIANTS);
    replace(
      this.grid,
      Array.from({ length: number }, () => h("div", { class: "sx-result sx-waiting" }, h("div", { class: "sx-result-picture" }))),
    );
  }

  /** What the network believes by now, as it is made. */
  preview(job) {
    const { count, stamp } = job.previews ?? { count: 0 };
    if (!count || this.stamp === `${job.id}-${stamp}`) return;
    this.stamp = `${job.id}-${stamp}`;
    [...this.grid.children].slice(0, count).forEach(async (card, index) => {
      const look = new Image();
      look.src = `/api/jobs/${job.id}/preview/${index}.jpg?stamp=${stamp}`;
      look.alt = "Preview of an image being made";
      try {
        await look.decode();
      } catch {
        return; // the job has ended meanwhile
      }
      if (this.job?.id !== job.id || !card.classList.contains("sx-waiting")) return;
      replace(card.firstChild, look, h("span", { class: "sx-badge sx-badge-synthetic" }, "PREVIEW"));
    });
  }

  // ---- what is shown

  /** Another mask was opened: show what was made for it before. */
  async showFor(doc) {
    const mapId = doc.stored?.id ?? null;
    Object.assign(this, { doc, mapId, job: null, samples: [], stamp: null });
    this.idle();
    this.showSamples([]);
    if (mapId) {
      const [found] = await Promise.all([
        get(`/api/projects/${state.project.id}/samples?label_map=${doc.stored.blob}&limit=4`),
        this.loadHistory(),
      ]);
      if (this.doc === doc && !this.job && !this.samples.length) {
        this.showSamples(found.items.reverse());
        this.strip.seen(found.items);
      }
    } else this.history.load([]).catch(() => {});
    this.resume(state.active);
  }

  /** The open mask, the one it was opened from, and the one of the real image below it. */
  loadHistory() {
    const { doc } = this;
    return this.history.load([this.mapId, doc?.saver?.id, doc?.stored?.id, doc?.image?.label_map_id]);
  }

  async showGeneration(item) {
    const { doc } = this,
      { items } = await get(`/api/samples?ids=${item.samples.map((sample) => sample.id).join(",")}`);
    if (doc !== this.doc) return;
    this.showSamples(items);
    this.open("images");
    if (!this.job) this.note.textContent = `From the history: ${timeOf(item)}.`;
  }

  async reload() {
    if (!this.samples?.length) return this.showSamples([]);
    const { doc } = this,
      { items } = await get(`/api/samples?ids=${this.samples.map((sample) => sample.id).join(",")}`);
    if (doc === this.doc) this.showSamples(items);
  }

  showSamples(samples) {
    if (this.job) return; // its previews are being shown
    this.samples = samples;
    this.grid.dataset.count = samples.length;
    this.strip.showSources(samples, this.doc?.image ?? null);
    replace(
      this.grid,
      samples.length
        ? samples.map((sample) => this.card(sample))
        : h(
            "p",
            { class: "sx-empty" },
            "Draw or open a mask, then press the button. The images appear here, with what the segmenter finds in them.",
          ),
    );
    this.markSource();
  }

  /** Show which image keeps its rest. */
  markSource() {
    for (const card of this.grid?.children ?? [])
      card.toggleAttribute("data-source", Number(card.dataset.id) === this.strip.sourceSample);
  }

  /** While the key or button is held, the images that the same seeds gave before. */
  holdBefore(isHeld) {
    for (const card of this.grid.children) card.showBefore?.(isHeld);
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
    const earlier = this.history.before(sample),
      name = sample.badge === "edited" ? "Edited real image" : "Synthetic image",
      view = picture(urls.image(sample.blob), `${name}, seed ${sample.seed}`),
      mark = badge(sample.badge);
    const card = h(
      "article",
      { class: "sx-result", dataset: { id: sample.id, state: sample.curation } },
      h(
        "div",
        { class: "sx-result-frame" },
        h(
          "button",
          { type: "button", class: "sx-result-picture", title: "Look closer", onclick: () => openDetail(sample.id) },
          view,
          mark,
          h("span", { class: "sx-seed-chip" }, `seed ${sample.seed}`),
          sample.dice !== null && h("span", { class: "sx-score" }, percent(sample.dice)),
        ),
        star(sample.id),
      ),
      h("p", { class: "sx-words", title: sample.words }, sample.words),
      h("div", { class: "sx-mini-row" }, choice("accepted", "Accept"), choice("rejected", "Reject"), earlier && this.beforeButton()),
    );
    if (earlier)
      card.showBefore = (isHeld) => {
        view.src = isHeld ? urls.image(earlier) : urls.image(sample.blob);
        mark.textContent = isHeld ? "BEFORE" : sample.badge.toUpperCase();
        card.toggleAttribute("data-before", isHeld);
      };
    return card;
  }

  beforeButton() {
    const hold = (isHeld) => () => this.holdBefore(isHeld);
    const key = (isHeld) => (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      this.holdBefore(isHeld);
    };
    return h(
      "button",
      {
        type: "button",
        class: "sx-mini sx-before",
        title: "Hold to see the same seed under the mask before (C)",
        onpointerdown: hold(true),
        onpointerup: hold(false),
        onpointerleave: hold(false),
        onkeydown: key(true),
        onkeyup: key(false),
        onblur: hold(false),
      },
      "Before",
    );
  }
}

const timeOf = (item) => new Date(item.finished_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
