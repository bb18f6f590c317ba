// Align: from votes and scores to a better generator, and the versions it made.
import { SettledPairs } from "./align_pairs.js";
import { Plan } from "./align_plan.js";
import { Verdict } from "./align_verdict.js";
import { Curves } from "./curves.js";
import {
  act,
  byTask,
  duration,
  emit,
  get,
  h,
  isNegative,
  numberField,
  on,
  onShow,
  plural,
  post,
  refreshOverview,
  replace,
  requestId,
  selectField,
  state,
  toast,
  withProject,
} from "./lib.js";
import { Trial } from "./trial.js";
import { Versions } from "./versions.js";

const DEFAULTS = { steps: 150, gate_masks: 32, gate_every: 50, batch_size: 8, rounds: 1 };
const CLOSED_KEY = "saadi.align.closed";
const ENDED = ["done", "failed", "cancelled"];

export function mount(element) {
  new AlignTab(element);
}

/** Before the first version there is nothing to show but what will come. */
function guide() {
  const step = (title, text) => h("li", {}, h("b", {}, title), text);
  return h(
    "section",
    { class: "sx-card sx-guide", hidden: true },
    h("h2", {}, "How it goes"),
    h(
      "ol",
      {},
      step("Pairs", ["Votes and scores say which of two images of one ", byTask("mask", "class"), " is better."]),
      step("Learning", [
        "A small addition to the generator learns from them. You watch the same ",
        byTask("masks", "classes and seeds"),
        " change, and may stop at any time.",
      ]),
      step("Test", [
        "Old against new on ",
        byTask("masks", "seeds"),
        " that were not learned from: four questions, and your own eye, blind.",
      ]),
      step("Your decision", "Accept the new version or keep the old one. Every version stays in the list, one click away."),
    ),
  );
}

class AlignTab {
  constructor(element) {
    Object.assign(this, { root: element, job: null, found: { items: [] }, opened: null });
    this.button = h(
      "button",
      { type: "button", class: "sx-button sx-primary sx-big", id: "align-now", onclick: () => this.start() },
      "Align now",
    );
    this.fields = {
      steps: numberField("Steps", DEFAULTS.steps, { min: 1, max: 100000, id: "align-steps" }),
      gate_masks: numberField("Test images", DEFAULTS.gate_masks, { min: 4, max: 512, id: "align-gate" }),
      gate_every: numberField("Test every", DEFAULTS.gate_every, { min: 1, id: "align-every" }),
      batch_size: numberField("Batch", DEFAULTS.batch_size, { min: 1, max: 128, id: "align-batch" }),
      rounds: numberField("Rounds", DEFAULTS.rounds, { min: 1, max: 10, id: "align-rounds" }),
    };
    this.loss = selectField(
      "Learns from",
      [
        ["dpo", "better against worse (DPO)"],
        ["kto", "liked and disliked (KTO)"],
        ["mapo", "better against worse, no leash (MaPO)"],
        ["sft", "the better ones only"],
      ],
      "dpo",
    );
    this.loss.input.id = "align-loss";
    this.plan = new Plan({
      button: this.button,
      settings: this.settings(),
      values: () => this.values(),
      look: (opener) => this.lookAtPairs(opener),
    });
    this.curves = new Curves();
    this.message = h("p", { role: "status" });
    this.bar = h("div", { class: "sx-bar-fill" });
    this.stop = h(
      "button",
      {
        type: "button",
        class: "sx-button",
        id: "align-stop",
        onclick: () => this.job && act(this.stop, () => post(`/api/jobs/${this.job.id}/cancel`, {})),
      },
      "Stop",
    );
    this.goOn = h(
      "button",
      { type: "button", class: "sx-button sx-primary", id: "align-continue", hidden: true, onclick: () => this.continue() },
      "Continue",
    );
    this.dismiss = h(
      "button",
      { type: "button", class: "sx-close", "aria-label": "Close", hidden: true, onclick: () => this.close() },
      "\u00d7",
    );
    this.progress = h("div", { class: "sx-bar", role: "progressbar", "aria-label": "Alignment" }, this.bar);
    this.details = h("details", { class: "sx-details sx-live-details" }, h("summary", {}, "Curves and pictures"), this.curves.root);
    this.running = h(
      "section",
      { class: "sx-card sx-running", hidden: true, "aria-label": "Learning" },
      h("div", { class: "sx-card-head" }, h("h2", {}, "Learning"), this.message, this.goOn, this.stop, this.dismiss),
      this.progress,
      this.details,
    );
    this.verdict = new Verdict({ test: (adapter) => this.test(adapter), choose: (...choice) => this.choose(...choice) });
    this.versions = new Versions({ look: (item) => this.look(item), choose: (...choice) => this.confirm(...choice) });
    this.question = h("section", { class: "sx-card sx-confirm", hidden: true, role: "group", "aria-label": "Confirm" });
    this.guide = guide();
    this.trial = new Trial({ done: () => this.trialDone() });
    this.pairs = new SettledPairs({ done: () => this.pairsDone() });
    this.columns = h(
      "div",
      { class: "sx-two-columns" },
      h("div", { class: "sx-stack" }, this.plan.root, this.question, this.versions.root),
      h("div", { class: "sx-stack" }, this.verdict.root, this.guide),
    );
    element.classList.add("sx-align");
    element.append(this.running, this.columns, this.trial.root, this.pairs.root);
    onShow(element, () => state.project && this.load());
    on("jobs", () => {
      this.pick();
      this.plan.showWait();
    });
    on("job:end", (job) => {
      if (["align", "score", "generate", "fit", "train_scorer"].includes(job.kind) && element.offsetParent) this.load();
    });
    withProject(() => {
      Object.assign(this, { job: null, opened: null, isFollowing: false });
      this.showRunning(false);
      this.trial.root.hidden = this.pairs.root.hidden = true;
      this.columns.hidden = false;
      this.load();
    });
    element.dataset.ready = "1";
  }

  settings() {
    for (const field of Object.values(this.fields)) field.input.addEventListener("input", () => this.plan.showMinutes());
    return h(
      "details",
      { class: "sx-details" },
      h("summary", {}, "Settings"),
      h("div", { class: "sx-row" }, Object.values(this.fields)),
      this.loss,
      h(
        "p",
        { class: "sx-note" },
        "More steps learn more and take longer. Each test compares new and present version on images that were not learned from. " +
          "Two rounds and more: new images, pairs and a version each, accepted by itself where nothing speaks against it; a round " +
          "starts only if the last one won. KTO stands more wrong votes, but drifts sooner; the better ones only is the cautious way.",
      ),
    );
  }

  values() {
    const numbers = Object.entries(this.fields).map(([name, field]) => [name, field.number() || DEFAULTS[name]]);
    return { ...Object.fromEntries(numbers), loss: this.loss.input.value };
  }

  async load() {
    const project = state.project;
    this.pick();
    const parts = [this.loadPlan(project), this.loadVersions(project), this.loadLast(project)];
    await Promise.all(parts.map((part) => part.catch((error) => toast(error.message, "bad"))));
    this.root.dataset.loaded = String(project.id);
  }

  async loadPlan(project) {
    const found = await get(`/api/projects/${project.id}/alignment`);
    if (state.project === project) this.plan.show(found);
  }

  /** A stopped alignment is still there after a reload. */
  async loadLast(project) {
    const { job } = await get(`/api/projects/${project.id}/alignments/last`);
    const isClosed = job && localStorage.getItem(CLOSED_KEY) === `${project.created_at}.${job.id}`;
    if (job && !isClosed && state.project === project && !this.job) this.follow(job);
  }

  /** Somebody has read why it ended. */
  close() {
    localStorage.setItem(CLOSED_KEY, `${state.project.created_at}.${this.job.id}`);
    this.showRunning(false);
  }

  // ---- running

  start() {
    return act(this.button, async () => {
      const { rounds, ...values } = this.values(),
        isSeries = rounds > 1;
      const { job, is_new } = await post(isSeries ? "/api/orders/rounds" : "/api/orders/align", {
        project_id: state.project.id,
        request_id: requestId(),
        values: isSeries ? { rounds, settings: values } : values,
      });
      if (isSeries) {
        toast(`${rounds} rounds: first the images for them, then learning. You can leave this page.`, "good");
        return emit("poll");
      }
      if (!is_new && job.state === "done") {
        toast("These pairs were learned already; here is the version that came of it.");
        this.opened = job.result.adapter_id ?? null;
        return this.loadVersions(state.project);
      }
      if (!is_new) toast("This alignment is running already; here it is.");
      emit("poll");
      this.follow(job);
    }).finally(() => this.plan.showWait());
  }

  continue() {
    return act(this.goOn, async () => {
      const { job } = await post(`/api/jobs/${this.job.id}/continue`, { request_id: requestId() });
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
    this.curves.clear();
    this.showRunning(true);
    for (;;) {
      try {
        job = await get(`/api/alignments/${job.id}`);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 2000));
        continue;
      }
      if (this.job?.id !== job.id) return;
      this.job = job;
      this.showJob(job);
      if (ENDED.includes(job.state)) break;
      await new Promise((resolve) => setTimeout(resolve, this.root.offsetParent ? 1000 : 3000));
    }
    this.isFollowing = false;
    this.showRunning(job.state !== "done");
    if (job.state === "done") {
      this.opened = job.result.adapter_id ?? this.opened;
      await this.load();
    } else this.showVersions();
  }

  /** While it learns, its card stands alone over the versions: what it will do has been said. */
  showRunning(shown) {
    const learns = shown && this.isFollowing;
    this.running.hidden = !shown || !this.trial.root.hidden || !this.pairs.root.hidden;
    this.details.open = learns;
    this.root.classList.toggle("sx-wide", learns);
    if (learns) this.verdict.root.hidden = this.guide.hidden = true;
  }

  showJob(job) {
    const ended = ENDED.includes(job.state);
    this.stop.hidden = ended;
    this.dismiss.hidden = !ended;
    this.stop.disabled = job.cancelling;
    this.goOn.hidden = job.continue_from === null || job.continue_from === undefined;
    this.goOn.textContent = `Continue from step ${job.continue_from}`;
    const done = job.total ? Math.round((100 * job.step) / job.total) : 0;
    this.bar.style.width = `${done}%`;
    this.progress.setAttribute("aria-valuenow", done);
    this.running.dataset.state = job.state;
    this.message.textContent = this.inWords(job);
    if (this.plan.found) this.curves.show(job, this.plan.found.alarms);
  }

  inWords(job) {
    if (job.state === "queued") return job.before ? `Waiting for ${plural(job.before, "other job")}` : "Starting\u2026";
    if (job.state === "failed") return job.error;
    if (job.state === "cancelled") return `Stopped at step ${job.step} of ${job.total}; nothing was changed.`;
    if (job.cancelling) return "Stopping; what it has learned is kept.";
    const left = job.eta_s ? `${duration(job.eta_s)} left` : "";
    return [job.message, job.total ? `step ${job.step} of ${job.total}` : "", left].filter(Boolean).join(" \u00b7 ");
  }

  // ---- versions

  async loadVersions(project) {
    const found = await get(`/api/projects/${project.id}/versions`);
    if (state.project !== project) return;
    this.found = found;
    const usable = found.items.filter((item) => item.model_id === found.engine_id);
    this.opened ??= (usable.find((item) => item.state === "candidate" && !isNegative(item)) ?? usable.find((item) => item.state === "accepted"))?.id ?? null;
    this.showVersions();
  }

  showVersions() {
    this.guide.hidden = this.found.items.length > 0 || this.isFollowing;
    this.versions.show(this.found, this.opened);
    this.verdict.show(this.isFollowing ? null : this.found.items.find((item) => item.id === this.opened), this.found);
  }

  look(item) {
    this.opened = item.id;
    this.showVersions();
    this.verdict.root.scrollIntoView({ block: "nearest" });
  }

  test(adapter) {
    return act(null, async () => {
      await this.trial.open(adapter);
      this.columns.hidden = this.running.hidden = true;
    });
  }

  trialDone() {
    this.columns.hidden = false;
    this.running.hidden = !this.job || this.job.state === "done";
    return act(null, () => this.loadVersions(state.project));
  }

  lookAtPairs(opener) {
    return act(opener, async () => {
      await this.pairs.open();
      this.columns.hidden = this.running.hidden = true;
    });
  }

  pairsDone() {
    this.columns.hidden = false;
    this.running.hidden = !this.job || this.job.state === "done";
    this.plan.root.querySelector("#align-pairs")?.focus();
  }

  /** Ask once more before another version makes the next images. */
  confirm(id, name, opener) {
    const now = this.found.items.find((item) => item.state === "accepted")?.name ?? "base";
    const reason = h("input", { type: "text", maxlength: 500, placeholder: "Why (optional)", "aria-label": "Reason for the change" });
    const close = () => {
      this.question.hidden = true;
      opener?.focus();
    };
    replace(
      this.question,
      h("p", {}, h("b", {}, `From ${now} to ${name}?`), ` The next images come from ${name}; ${now} stays in the list.`),
      h(
        "div",
        { class: "sx-row" },
        reason,
        h(
          "button",
          {
            type: "button",
            class: "sx-button sx-primary",
            id: "confirm-version",
            onclick: (event) => this.choose(id, "accept", reason.value.trim(), event.currentTarget),
          },
          `Use ${name}`,
        ),
        h("button", { type: "button", class: "sx-button", onclick: close }, "Cancel"),
      ),
    );
    this.question.onkeydown = (event) => event.key === "Escape" && close();
    this.question.hidden = false;
    this.question.scrollIntoView({ block: "nearest" });
    this.question.querySelector("#confirm-version").focus();
  }

  choose(adapter_id, decision, reason, button) {
    return act(button, async () => {
      await post("/api/adapters/choose", { project_id: state.project.id, adapter_id, decision, reason });
      this.question.hidden = true;
      toast(
        decision === "reject"
          ? "The old version stays in use."
          : adapter_id
            ? "The next images come from this version."
            : "Back to the base generator.",
        "good",
      );
      await this.loadVersions(state.project);
      refreshOverview().catch(() => {});
    });
  }
}
