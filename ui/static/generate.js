// Generate: a pool of images in one order, and the queue of all work with whose turn it is.
import {
  act,
  duration,
  get,
  h,
  numberField,
  on,
  onShow,
  order,
  percent,
  plural,
  post,
  replace,
  selectField,
  state,
  toast,
  when,
  withProject,
} from "./lib.js";

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
    this.seed = numberField("Seed", 1000, { min: 0, id: "pool-seed" });
    this.steps = numberField("Steps", "", { min: 2, max: 100, placeholder: "auto" });
    this.guidance = numberField("Guidance", 1, { min: 1, max: 10, step: 0.1 });
    this.adapter = selectField(
      "Version",
      [
        ["accepted", "in use"],
        ["none", "base"],
      ],
      "accepted",
    );
    this.button = h(
      "button",
      { type: "button", class: "sx-button sx-primary sx-big", id: "pool-generate", onclick: () => this.start() },
      "Generate the pool",
    );
    this.words = h("p", {});
    this.active = h("div", { class: "sx-queue" });
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
          h("div", { class: "sx-form-grid" }, this.count, this.candidates, this.seed, this.adapter, this.steps, this.guidance),
          this.button,
          h(
            "p",
            { class: "sx-note" },
            "Masks are taken from the training images. Each image is scored at once when the scorers are trained. Drawing goes first: it overtakes the pool.",
          ),
        ),
        h(
          "div",
          { class: "sx-stack" },
          h("section", { class: "sx-card" }, h("h2", {}, "Now"), this.active),
          h("section", { class: "sx-card" }, h("h2", {}, "Before"), this.recent),
        ),
      ),
    );
    on("jobs", () => this.showJobs());
    onShow(element, () => state.project && this.load());
    withProject(() => this.load());
    this.promise();
    element.dataset.ready = "1";
  }

  async load() {
    const project = state.project,
      { items } = await get(`/api/projects/${project.id}/adapters`);
    if (state.project !== project) return;
    const kept = this.adapter.input.value;
    replace(
      this.adapter.input,
      [
        ["accepted", `in use (${items.find((item) => item.state === "accepted")?.name ?? "base"})`],
        ["none", "base"],
        ...items.map((item) => [String(item.id), `${item.name}${item.state === "candidate" ? ", not accepted" : ""}`]),
      ].map(([key, text]) => h("option", { value: key }, text)),
    );
    this.adapter.input.value = [...this.adapter.input.options].some((option) => option.value === kept) ? kept : "accepted";
    this.showJobs();
  }

  promise() {
    const masks = this.count.number() ?? 0,
      each = this.candidates.number() ?? 0;
    this.words.textContent = `${plural(masks, "mask")} \u00d7 ${plural(each, "image")} = ${masks * each} synthetic images, to score, compare and choose from.`;
  }

  start() {
    return act(this.button, async () => {
      const chosen = this.adapter.input.value;
      const { job } = await order("generate", {
        count: this.count.number() ?? 16,
        candidates: this.candidates.number() ?? 4,
        seed: this.seed.number() ?? 0,
        adapter: /^\d+$/.test(chosen) ? Number(chosen) : chosen,
        settings: { num_inference_steps: this.steps.number(), guidance_scale: this.guidance.number() ?? 1 },
      });
      this.seed.input.value = (this.seed.number() ?? 0) + 1000;
      toast(job.before ? `In the queue; ${plural(job.before, "job")} before it.` : "Started.");
    });
  }

  showJobs() {
    replace(
      this.active,
      state.active.length
        ? state.active.map((job) => this.activeRow(job))
        : h("p", { class: "sx-note" }, "Nothing is running. The queue runs one job at a time."),
    );
    const ended = state.recent.filter((job) => job.state in ENDS).slice(0, 14);
    replace(
      this.recent,
      ended.length
        ? ended.map((job) =>
            h(
              "div",
              { class: "sx-job", dataset: { state: job.state } },
              h("b", {}, job.title),
              h("span", {}, job.state === "failed" ? job.error : job.message),
              h("small", {}, `${ENDS[job.state]} \u00b7 ${when(job.finished_at ?? job.created_at)}`),
            ),
          )
        : h("p", { class: "sx-note" }, "No work yet in this project."),
    );
  }

  activeRow(job) {
    const turn =
      job.state === "running"
        ? [
            job.cancelling ? "stopping" : job.message,
            job.total ? percent(job.step / job.total) : "",
            job.eta_s ? `${duration(job.eta_s)} left` : "",
          ]
            .filter(Boolean)
            .join(" \u00b7 ")
        : job.before === 0
          ? "next"
          : `waits for ${plural(job.before, "job")}`;
    return h(
      "div",
      { class: "sx-job", dataset: { state: job.state } },
      h("b", {}, job.title),
      h("span", {}, turn),
      h("small", {}, `for ${job.created_by}`),
      h(
        "div",
        { class: "sx-bar", role: "progressbar", "aria-label": job.title },
        h("div", { class: "sx-bar-fill", style: { width: `${job.total ? (100 * job.step) / job.total : 0}%` } }),
      ),
      h(
        "button",
        {
          type: "button",
          class: "sx-button sx-small",
          onclick: (event) => act(event.currentTarget, () => post(`/api/jobs/${job.id}/cancel`, {})),
        },
        "Stop",
      ),
    );
  }
}
