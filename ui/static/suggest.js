// Suggested masks: new ones of the project's own anatomy, or variations of the one that is open. Nothing is stored until one is
// chosen, which then opens as a drawing like any other.
import { act, ApiError, duration, finished, get, h, order, percent, picture, plural, post, replace, requestId, segmented, state, toast, urls } from "./lib.js";

const COUNT = 12;
const SIDE_PX = 192;

export class Suggestions {
  /** `current()` names the mask that is open: {id, w, h, image_id}, id null where nothing is drawn. `onUse(record)` opens a mask. */
  constructor({ current, onUse }) {
    Object.assign(this, { current, onUse, seed: 0, masks: [], asked: 0 });
    this.mode = segmented(
      "What is suggested",
      [
        ["new", "New masks"],
        ["vary", "Vary this mask"],
      ],
      "new",
      () => this.ask(),
    );
    this.strength = h("input", { type: "range", min: 10, max: 100, step: 5, value: 40, id: "suggest-strength", onchange: () => this.ask() });
    this.far = h("label", { class: "sx-suggest-far", for: "suggest-strength" }, "a little", this.strength, "a lot");
    this.classes = h("div", { class: "sx-chips", role: "group", "aria-label": "Must show" });
    this.words = h("p", { class: "sx-note", role: "status", "aria-live": "polite" });
    this.fill = h("div", { class: "sx-bar-fill" });
    this.bar = h("div", { class: "sx-bar", role: "progressbar", "aria-label": "Drawing masks", hidden: true }, this.fill);
    this.grid = h("div", { class: "sx-suggest-grid" });
    this.more = h("button", { type: "button", class: "sx-button sx-primary", onclick: () => this.askForMore() }, `${COUNT} others`);
    this.again = h("button", { type: "button", class: "sx-button", hidden: true, onclick: () => this.learnAgain() }, "Learn from all masks again");
    this.dialog = h(
      "dialog",
      { class: "sx-dialog sx-suggest", "aria-labelledby": "suggest-title" },
      h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => this.dialog.close() }, "\u00d7"),
      h("h2", { id: "suggest-title" }, "Suggested masks"),
      h("div", { class: "sx-suggest-head" }, this.mode, this.far, this.classes),
      this.words,
      this.bar,
      this.grid,
      h("div", { class: "sx-suggest-foot" }, this.more, this.again),
    );
    // What is still being drawn may end; its masks are not shown any more.
    this.dialog.addEventListener("close", () => (this.asked += 1));
    document.body.append(this.dialog);
  }

  async open() {
    const { id } = this.current();
    if (this.project !== state.project) {
      Object.assign(this, { project: state.project, seed: Math.floor(Math.random() * 1e6), must: new Set() });
      this.showClasses();
    }
    const canVary = id !== null;
    this.mode.lastChild.disabled = !canVary;
    this.mode.lastChild.title = canVary ? "" : "Open or draw a mask first";
    if (!canVary) this.mode.set("new");
    this.dialog.showModal();
    await this.ask();
  }

  showClasses() {
    replace(
      this.classes,
      h("span", { class: "sx-note" }, "Must show"),
      state.project.classes
        .filter((item) => item.index)
        .map((item) =>
          h(
            "button",
            {
              type: "button",
              class: "sx-chip sx-chip-choice",
              "aria-pressed": String(this.must.has(item.index)),
              onclick: () => {
                if (!this.must.delete(item.index)) this.must.add(item.index);
                this.showClasses();
                this.ask();
              },
            },
            h("i", { style: { background: item.color } }),
            item.name,
          ),
        ),
    );
  }

  askForMore() {
    this.seed += COUNT;
    return this.ask();
  }

  /** Order masks and show them; whoever asks again meanwhile gets the later answer. */
  ask() {
    const mine = (this.asked += 1);
    return act(null, async () => {
      const isVaried = this.mode.value === "vary";
      this.far.hidden = !isVaried;
      this.showWaiting("Drawing masks \u2026");
      const { id } = this.current();
      const values = { count: COUNT, seed: this.seed, classes: [...this.must] };
      if (isVaried) Object.assign(values, { label_map_id: id, strength: Number(this.strength.value) / 100 });
      try {
        const { job } = await order("suggest_masks", values);
        const ended = await finished(job, (now) => this.watch(now, mine));
        if (mine !== this.asked) return;
        if (ended.state !== "done") throw new ApiError(ended.error ?? "Stopped.", 0, null);
        this.show(ended.result);
      } catch (error) {
        if (mine !== this.asked) return;
        this.bar.hidden = true;
        this.words.textContent = error.message;
      }
    });
  }

  showWaiting(words) {
    this.words.textContent = words;
    this.again.hidden = true;
    replace(
      this.grid,
      Array.from({ length: COUNT }, () => h("div", { class: "sx-suggest-empty" })),
    );
  }

  /** Show how an order stands. One that nobody waits for any more is stopped, unless it is learning, which the next one needs. */
  watch(job, mine) {
    if (mine === this.asked) return this.showProgress(job);
    const isOpen = ["queued", "running"].includes(job.state);
    if (isOpen && job.kind === "suggest_masks" && !job.message.startsWith("learning")) post(`/api/jobs/${job.id}/cancel`, {}).catch(() => {});
    return false;
  }

  showProgress(job) {
    const isLearning = job.message.startsWith("learning");
    const left = job.eta_s && isLearning ? `, ${duration(job.eta_s)} left` : "";
    this.words.textContent =
      job.state === "queued" ? `Waiting: ${job.turn}.` : isLearning ? `Learning your masks first, once (${percent(job.total ? job.step / job.total : 0)}${left}).` : "Drawing masks \u2026";
    this.bar.hidden = job.state === "queued";
    this.fill.style.width = `${job.total ? (100 * job.step) / job.total : 0}%`;
  }

  show({ masks, num_learnt, num_refused, is_stale }) {
    this.bar.hidden = true;
    const left = num_refused ? ` ${plural(num_refused, "drawing")} did not look like anatomy and ${num_refused === 1 ? "was" : "were"} left out.` : "";
    this.words.textContent = `Drawn anew after ${plural(num_learnt, "mask")} of training images: sizes, parts and neighbours as in real ones.${left} Choose one to edit it.`;
    this.again.hidden = !is_stale;
    replace(
      this.grid,
      masks.map((mask, index) =>
        h(
          "button",
          { type: "button", class: "sx-suggest-mask", title: `Seed ${mask.seed}: open as a new mask`, onclick: (event) => this.use(event.currentTarget, mask) },
          picture(urls.mask(mask.blob, SIDE_PX), `Suggested mask ${index + 1}`, { loading: "eager" }),
        ),
      ),
    );
    this.grid.querySelector("button")?.focus({ preventScroll: true });
  }

  use(button, mask) {
    return act(button, async () => {
      const { id, w, h: height, image_id } = this.current(),
        isVaried = this.mode.value === "vary";
      const side = state.project.resolution,
        [wide, tall] = isVaried ? [w, height] : [side, side];
      const { labels } = await get(`/api/labels/${mask.blob}?w=${wide}&h=${tall}`);
      const made = await post("/api/label_maps", {
        project_id: state.project.id,
        labels,
        name: `suggested, seed ${mask.seed}`,
        request_id: requestId(),
        ...(isVaried && (image_id ? { image_id } : { copy_of: id })),
      });
      this.dialog.close();
      await this.onUse(made);
    });
  }

  learnAgain() {
    return act(this.again, async () => {
      const mine = (this.asked += 1);
      this.showWaiting("Learning from all masks \u2026");
      const { job } = await order("fit_masks", {});
      const ended = await finished(job, (now) => this.watch(now, mine));
      if (mine !== this.asked) return;
      if (ended.state !== "done") throw new ApiError(ended.error ?? "Stopped.", 0, null);
      toast("Learnt. Here are new masks.", "good");
      await this.ask();
    });
  }
}
