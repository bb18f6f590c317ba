// Align: from votes and scores to a better generator, and the versions it made.
import { beforeAfter, Curves } from "./curves.js";
import {
  act,
  duration,
  emit,
  fixed,
  get,
  h,
  numberField,
  on,
  onShow,
  percent,
  plural,
  post,
  refreshOverview,
  replace,
  requestId,
  state,
  toast,
  when,
  withProject,
} from "./lib.js";

const SOURCES = { score: "from scores", vote: "from votes", agreed: "where both agree", real: "with a real image as the winner" };
const STATES = { candidate: "waits for your decision", accepted: "in use", rejected: "turned down", retired: "earlier version" };

export function mount(element) {
  new AlignTab(element);
}

class AlignTab {
  constructor(element) {
    Object.assign(this, { root: element, job: null, adapters: [], opened: null });
    this.promise = h("p", { class: "sx-promise", role: "status" });
    this.button = h(
      "button",
      { type: "button", class: "sx-button sx-primary sx-big", id: "align-now", onclick: () => this.start() },
      "Align now",
    );
    this.steps = numberField("Steps", 150, { min: 1, max: 100000, id: "align-steps" });
    this.gate = numberField("Test masks", 32, { min: 4, max: 512, id: "align-gate" });
    this.every = numberField("Test every", 50, { min: 1, id: "align-every" });
    this.batch = numberField("Batch", 8, { min: 1, max: 128, id: "align-batch" });
    this.running = h("div", { class: "sx-card", hidden: true });
    this.curves = new Curves();
    this.message = h("p", { role: "status" });
    this.bar = h("div", { class: "sx-bar-fill" });
    this.stop = h(
      "button",
      {
        type: "button",
        class: "sx-button",
        onclick: () => this.job && act(this.stop, () => post(`/api/jobs/${this.job.id}/cancel`, {})),
      },
      "Stop",
    );
    this.versions = h("div", { class: "sx-versions-list" });
    this.verdict = h("div", { class: "sx-card", hidden: true });
    this.build(element);
    onShow(element, () => state.project && this.load());
    on("jobs", () => this.pick());
    on("job:end", (job) => {
      if (["align", "score", "generate"].includes(job.kind) && element.offsetParent) this.load();
    });
    withProject(() => {
      this.job = null;
      this.opened = null;
      this.running.hidden = true;
      this.load();
    });
    element.dataset.ready = "1";
  }

  build(element) {
    element.classList.add("sx-align");
    replace(
      this.running,
      h("div", { class: "sx-card-head" }, h("h2", {}, "Learning"), this.message, this.stop),
      h("div", { class: "sx-bar", role: "progressbar", "aria-label": "Alignment" }, this.bar),
      this.curves.root,
    );
    element.append(
      h(
        "div",
        { class: "sx-two-columns" },
        h(
          "div",
          { class: "sx-stack" },
          h(
            "section",
            { class: "sx-card" },
            h("h2", {}, "Teach the generator what you prefer"),
            this.promise,
            this.button,
            h(
              "details",
              { class: "sx-details" },
              h("summary", {}, "Settings"),
              h("div", { class: "sx-row" }, this.steps, this.gate, this.every, this.batch),
              h(
                "p",
                { class: "sx-note" },
                "More steps learn more and take longer. Each test compares new and present version on masks that were not learned from.",
              ),
            ),
          ),
          h("section", { class: "sx-card" }, h("h2", {}, "Versions"), this.versions),
        ),
        h("div", { class: "sx-stack" }, this.running, this.verdict),
      ),
    );
  }

  async load() {
    const project = state.project;
    this.pick();
    await Promise.all(
      [this.loadPromise(project), this.loadVersions(project)].map((part) => part.catch((error) => toast(error.message, "bad"))),
    );
    this.root.dataset.loaded = String(project.id);
  }

  async loadPromise(project) {
    const built = await post("/api/pairs/build", { project_id: project.id });
    if (state.project !== project) return;
    const summary = built.summary ?? {},
      sources = Object.entries(summary.by_source ?? {}).filter(([, count]) => count);
    const parts = [sources.map(([name, count]) => `${count} ${SOURCES[name] ?? name}`).join(", ")];
    const waiting = [
      summary.num_conflicts &&
        `${plural(summary.num_conflicts, "conflict")} between vote and score ${summary.num_conflicts === 1 ? "waits" : "wait"} for a second opinion`,
      summary.num_undecided && `${summary.num_undecided} too close to call`,
    ].filter(Boolean);
    replace(
      this.promise,
      h("b", {}, `${plural(built.num_pairs, "pair")} usable`),
      parts[0] ? `: ${parts[0]}.` : ".",
      waiting.length ? h("span", { class: "sx-waiting-line" }, ` ${waiting.join("; ")}.`) : null,
      h("br"),
      "Nothing changes until you accept the result; one click leads back.",
    );
    this.promise.dataset.pairs = built.num_pairs;
  }

  // ---- running

  start() {
    return act(this.button, async () => {
      const values = {
        steps: this.steps.number() ?? 150,
        gate_masks: this.gate.number() ?? 32,
        gate_every: this.every.number() ?? 50,
        batch_size: this.batch.number() ?? 8,
      };
      const { job, is_new } = await post("/api/orders/align", { project_id: state.project.id, request_id: requestId(), values });
      if (!is_new && job.state === "done") {
        toast("These pairs were learned already; here is the version that came of it.");
        this.opened = job.result.adapter_id ?? null;
        await this.loadVersions(state.project);
      } else if (!is_new) toast("This alignment is running already; here it is.");
      emit("poll");
      this.follow(job);
    });
  }

  pick() {
    const active = state.active.find((job) => job.kind === "align" && job.project_id === state.project?.id);
    if (active && active.id !== this.job?.id) this.follow(active);
  }

  async follow(job) {
    if (this.job?.id === job.id && !this.running.hidden && this.isFollowing) return;
    this.job = job;
    this.isFollowing = true;
    this.running.hidden = false;
    this.verdict.hidden = true;
    this.curves.clear();
    for (;;) {
      try {
        job = await get(`/api/jobs/${job.id}`);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 2000));
        continue;
      }
      if (this.job?.id !== job.id) return;
      this.showJob(job);
      if (["done", "failed", "cancelled"].includes(job.state)) break;
      await new Promise((resolve) => setTimeout(resolve, this.root.offsetParent ? 1000 : 3000));
    }
    this.isFollowing = false;
    if (job.state === "done") {
      this.opened = job.result.adapter_id ?? this.opened;
      this.running.hidden = true;
      await this.load();
    }
  }

  showJob(job) {
    this.stop.hidden = !["queued", "running"].includes(job.state);
    this.bar.style.width = `${job.total ? (100 * job.step) / job.total : 0}%`;
    this.message.textContent =
      job.state === "queued"
        ? job.before
          ? `Waiting for ${plural(job.before, "other job")}`
          : "Starting\u2026"
        : job.state === "failed"
          ? job.error
          : job.state === "cancelled"
            ? "Stopped; nothing was changed."
            : [job.message, job.total ? `step ${job.step} of ${job.total}` : "", job.eta_s ? `${duration(job.eta_s)} left` : ""]
                .filter(Boolean)
                .join(" \u00b7 ");
    this.curves.show(job);
  }

  // ---- versions

  async loadVersions(project) {
    const { items } = await get(`/api/projects/${project.id}/adapters`);
    if (state.project === project) this.showVersions(items);
  }

  showVersions(items) {
    this.adapters = items;
    const inUse = items.find((item) => item.state === "accepted"),
      names = new Map(items.map((item) => [item.id, item.name]));
    const waiting = items.find((item) => item.state === "candidate");
    this.opened ??= (waiting ?? inUse)?.id ?? null;
    const base = h(
      "div",
      { class: "sx-version", "aria-current": String(!inUse) },
      h("b", {}, "base"),
      h("span", {}, inUse ? "the generator without alignment" : "in use"),
      h("span"),
      inUse
        ? h(
            "button",
            {
              type: "button",
              class: "sx-button sx-small",
              id: "roll-back",
              onclick: (event) => this.choose(event.currentTarget, null, "accept"),
            },
            "Roll back to base",
          )
        : null,
    );
    replace(
      this.versions,
      items.map((item) =>
        h(
          "div",
          { class: "sx-version", dataset: { id: item.id, state: item.state }, "aria-current": String(item.state === "accepted") },
          h("b", {}, item.name),
          h(
            "span",
            {},
            STATES[item.state],
            h("small", {}, `from ${names.get(item.parent_id) ?? "base"} \u00b7 ${when(item.created_at)}`),
          ),
          h("span", { class: "sx-version-number" }, `wins ${percent(item.metrics.win_rate)}`),
          h(
            "button",
            {
              type: "button",
              class: "sx-button sx-small",
              "aria-pressed": String(item.id === this.opened),
              onclick: () => {
                this.opened = item.id;
                this.showVersions(this.adapters);
              },
            },
            "Look",
          ),
        ),
      ),
      base,
      items.length ? null : h("p", { class: "sx-note" }, "Each alignment adds a version here."),
    );
    this.showVerdict(items.find((item) => item.id === this.opened));
  }

  showVerdict(adapter) {
    this.verdict.hidden = !adapter || (!this.running.hidden && this.isFollowing);
    if (!adapter) return;
    const m = adapter.metrics,
      interval = (pair, show) => (pair ? `${show(pair[0])} to ${show(pair[1])}` : "");
    const better = (is) => ({ good: is === true, bad: is === false });
    const tile = (title, value, detail, marks) =>
      h(
        "div",
        { class: `sx-tile${marks.good ? " sx-good" : ""}${marks.bad ? " sx-bad" : ""}` },
        h("span", {}, title),
        h("b", {}, value),
        h("small", {}, detail),
      );
    const movedAway = (m.reasons ?? []).some((reason) => reason.includes("moved away from real ones in features"));
    const signed = (value) => `${value >= 0 ? "+" : ""}${fixed(value, 3)}`;
    replace(
      this.verdict,
      h(
        "div",
        { class: "sx-card-head" },
        h("h2", {}, `Version ${adapter.name}`),
        h(
          "p",
          {},
          m.verdict === "accept" ? "The tests advise to accept it." : m.verdict ? "The tests advise to keep the old one." : "",
        ),
      ),
      h(
        "div",
        { class: "sx-tiles" },
        tile(
          "Wins against its parent",
          percent(m.win_rate),
          interval(m.win_rate_interval, percent),
          better(m.win_rate === undefined ? null : m.win_rate > 0.5),
        ),
        tile(
          "Overlap with drawn masks",
          `${percent(m.dice_before)} \u2192 ${percent(m.dice_after)}`,
          m.dice_interval ? `change ${interval(m.dice_interval, signed)}` : "",
          better(m.dice_after === undefined ? null : m.dice_after >= m.dice_before),
        ),
        tile(
          "Distance to real images",
          `${fixed(m.feature_distance_before)} \u2192 ${fixed(m.feature_distance_after)}`,
          movedAway ? "further than chance explains" : "lower is better",
          // A rise that chance explains is neither good nor bad.
          better(movedAway ? false : m.feature_distance_after <= m.feature_distance_before ? true : null),
        ),
        tile("Winner's error against base", fixed(m.winner_ratio), "near 1 is healthy", better(null)),
      ),
      (m.reasons ?? []).length
        ? h(
            "ul",
            { class: "sx-reasons" },
            m.reasons.map((text) => h("li", {}, text)),
          )
        : null,
      m.strip_before?.length ? beforeAfter(m.strip_before, m.strip_after ?? [], m.strip_label_maps ?? []) : null,
      this.choices(adapter),
    );
  }

  choices(adapter) {
    const pick = (decision, text, kind) =>
      h(
        "button",
        {
          type: "button",
          class: `sx-button ${kind}`,
          dataset: { decision },
          onclick: (event) => this.choose(event.currentTarget, adapter.id, decision),
        },
        text,
      );
    if (adapter.state === "accepted") return h("p", { class: "sx-note" }, "This version makes the next images.");
    if (adapter.state === "candidate")
      return h(
        "div",
        { class: "sx-row sx-choice" },
        pick("accept", `Accept ${adapter.name}`, "sx-primary"),
        pick("reject", "Keep old", ""),
      );
    return h("div", { class: "sx-row sx-choice" }, pick("accept", `Use ${adapter.name} again`, ""));
  }

  choose(button, adapter_id, decision) {
    return act(button, async () => {
      const { items } = await post("/api/adapters/choose", { project_id: state.project.id, adapter_id, decision });
      toast(
        decision === "reject"
          ? "The old version stays in use."
          : adapter_id
            ? "The next images come from this version."
            : "Back to the base generator.",
        "good",
      );
      this.showVersions(items);
      refreshOverview().catch(() => {});
    });
  }
}
