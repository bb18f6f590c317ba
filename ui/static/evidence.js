// Evidence: does it help? The same training with and without synthetic images, tested on patients that nothing has seen.
import { armOf, armWords, headArm, headline, refusedWords, roundWords, sortedArms, TITLES, verdictOf } from "./evidence_words.js";
import { intervalChart } from "./intervals.js";
import { act, duration, fixed, get, h, numberField, on, onShow, order, plural, post, replace, selectField, state, toast, when, withProject } from "./lib.js";

const ACTIVE = ["queued", "running"];
const KIND = (name) => ({ plain: "real", augmented: "real", base: "made", rejection: "made" })[armOf(name).kind] ?? "aligned";

export function mount(element) {
  new EvidenceTab(element);
}

class EvidenceTab {
  constructor(element) {
    Object.assign(this, { root: element, runs: [], chosen: null, asked: 0 });
    this.fields = {
      num_real: numberField("Real images", 50, { min: 8, max: 100000, id: "evidence-real" }),
      seeds: numberField("Repeats", 3, { min: 1, max: 20, id: "evidence-seeds" }),
      rounds: numberField("Rounds of alignment", 2, { min: 1, max: 5, id: "evidence-rounds" }),
      shares: selectField(
        "Synthetic per real image",
        [
          ["1", "1"],
          ["0.5,1,2", "0.5, 1 and 2"],
          ["0.1,0.2,0.5,1,2", "0.1 to 2, five steps"],
        ],
        "1",
      ),
      test: selectField(
        "Test on",
        [
          ["", "the test patients"],
          ["0.4", "40 % of all patients"],
        ],
        "",
      ),
    };
    for (const field of Object.values(this.fields)) field.input.addEventListener("input", () => this.background(this.plan()));
    this.button = h(
      "button",
      { type: "button", class: "sx-button sx-primary sx-big", id: "evidence-now", onclick: () => this.start() },
      "Measure the gain",
    );
    this.minutes = h("p", { class: "sx-promise", role: "status" });
    this.running = h("section", { class: "sx-card", hidden: true, "aria-label": "Measuring" });
    this.result = h("section", { class: "sx-card sx-evidence-result" });
    this.list = h("div", { class: "sx-stack sx-evidence-list" });
    element.classList.add("sx-evidence");
    element.append(
      h(
        "div",
        { class: "sx-two-columns" },
        h(
          "div",
          { class: "sx-stack" },
          h(
            "section",
            { class: "sx-card sx-stack" },
            h("h2", {}, "Does it help?"),
            h(
              "p",
              { class: "sx-note" },
              "Trains the same model with and without synthetic images and tests it on patients that neither generator nor model has seen.",
            ),
            h("div", { class: "sx-evidence-fields" }, Object.values(this.fields)),
            this.minutes,
            this.button,
            h("p", { class: "sx-note" }, "Runs in the background. Whoever draws or votes goes first; nothing is computed twice."),
          ),
          this.running,
          h("section", { class: "sx-card" }, h("h2", {}, "Measurements"), this.list),
        ),
        this.result,
      ),
    );
    onShow(element, () => state.project && this.background(this.load()));
    on("jobs", ({ active }) =>
      this.background(this.follow(active.find((job) => job.kind === "evidence" && job.project_id === state.project?.id))),
    );
    on("job:end", (job) => job.kind === "evidence" && this.background(this.load()));
    withProject(() => {
      this.chosen = null;
      this.background(this.load());
    });
    element.dataset.ready = "1";
  }

  /** What no click waits for: a server that is down is told once, quietly. */
  background(work) {
    work.catch((error) => (this.minutes.textContent = error.message));
  }

  values() {
    const { num_real, seeds, rounds, shares, test } = this.fields;
    return {
      num_real: num_real.number(),
      seeds: seeds.number() ?? 3,
      rounds: rounds.number() ?? 2,
      shares: shares.input.value.split(",").map(Number),
      ...(test.input.value ? { test_share: Number(test.input.value) } : {}),
    };
  }

  async plan() {
    const asked = ++this.asked,
      project = state.project;
    const answer = await post(`/api/projects/${project.id}/evidence/plan`, { values: this.values() });
    if (asked !== this.asked || state.project !== project) return;
    const isBusy = this.runs.some((run) => ACTIVE.includes(run.state));
    this.button.disabled = !!answer.missing || isBusy;
    this.minutes.textContent = answer.missing ?? (isBusy ? "A measurement is under way." : `About ${duration(60 * answer.minutes)} here.`);
    this.minutes.dataset.state = answer.missing ? "bad" : "";
  }

  start() {
    return act(this.button, async () => {
      const { job, is_new } = await order("evidence", this.values());
      this.chosen = is_new ? this.chosen : job.id;
      toast(is_new ? "Measuring begins when nobody waits for anything else." : "This was measured already, on the same images; here it is.");
      await this.load();
    }).finally(() => this.background(this.plan()));
  }

  async load() {
    const project = state.project,
      found = await get(`/api/projects/${project.id}/evidence`);
    if (state.project !== project) return;
    this.runs = found.runs;
    this.root.dataset.loaded = String(found.runs.length);
    this.showList();
    this.show(this.runs.find((run) => run.id === this.chosen) ?? this.runs.find((run) => run.result?.arms));
    this.follow(this.runs.find((run) => ACTIVE.includes(run.state)));
    await this.plan();
  }

  /** The running measurement: the arms that it has so far, and how far the present one is. */
  async follow(job) {
    this.running.hidden = !job;
    if (!job) return;
    const isNew = !this.runs.some((run) => run.id === job.id && ACTIVE.includes(run.state));
    const share = job.total ? job.step / job.total : 0;
    const stop = h(
      "button",
      { type: "button", class: "sx-button sx-small", id: "evidence-stop", onclick: () => act(stop, () => post(`/api/jobs/${job.id}/cancel`, {})) },
      "Stop",
    );
    replace(
      this.running,
      h("div", { class: "sx-card-head" }, h("h2", {}, `Measuring: ${job.step} of ${job.total || "?"} arms`), stop),
      h("div", { class: "sx-bar", role: "progressbar", "aria-label": "Measurement" }, h("div", { class: "sx-bar-fill", style: { width: `${100 * share}%` } })),
      h("p", { class: "sx-note", role: "status" }, job.message, job.eta_s ? `, about ${duration(job.eta_s)} to go` : ""),
    );
    if (this.root.offsetParent && (isNew || job.step !== this.seenStep)) {
      this.seenStep = job.step;
      await this.load();
    }
  }

  showList() {
    const row = (run) => {
      const open = () => {
        this.chosen = run.id;
        this.show(run);
        this.showList();
      };
      const { num_real, seeds, rounds } = run.params;
      return h(
        "button",
        { type: "button", class: "sx-evidence-row", "aria-pressed": String(run.id === this.shown), dataset: { id: run.id, state: run.state }, onclick: open },
        h("b", {}, `${num_real ?? "All"} real images, ${plural(seeds, "repeat")}, ${plural(rounds, "round")}`),
        h("small", {}, `${when(run.created_at)} \u00b7 ${run.state === "failed" ? run.error : run.state === "cancelled" ? "stopped; goes on where it was when asked again" : run.state}`),
      );
    };
    replace(this.list, this.runs.length ? this.runs.map(row) : h("p", { class: "sx-empty" }, "None yet."));
  }

  show(run) {
    this.shown = run?.id;
    if (!run?.result?.arms) {
      const arms = sortedArms(Object.keys(run?.arms ?? {})).map((name) => [name, run.arms[name]]);
      replace(
        this.result,
        h("h2", {}, arms.length ? "So far" : "What you will see here"),
        arms.length
          ? intervalChart(arms.map(([name, value]) => ({ name: armWords(name), value: [value, value, value], kind: KIND(name) })), { label: "Mean so far", digits: 3 })
          : h(
              "ol",
              { class: "sx-guide-list" },
              h("li", {}, "How well a model does on unseen patients: trained on real images only, and with synthetic ones added, before and after alignment."),
              h("li", {}, "Each number with the range in which it lies with 95 % certainty; the gain per class, the rarest one marked."),
              h("li", {}, "What each step cost in minutes. A result that is no gain is shown as such."),
            ),
      );
      return;
    }
    const { result } = run,
      measure = result.task === "classification" ? "f1" : "dice",
      names = sortedArms(Object.keys(result.arms)),
      head = headline(result);
    const chart = (rows, options) => intervalChart(rows, { digits: 3, ...options });
    const main = names.map((name) => ({ name: armWords(name) + refusedWords(result.arms[name], result.rounds.length), value: result.arms[name][measure], kind: KIND(name) }));
    replace(
      this.result,
      h("div", { class: "sx-evidence-head", dataset: { kind: head.kind } }, h("h2", {}, TITLES[head.kind]), h("p", {}, head.text)),
      h("h3", {}, measure === "f1" ? "F1, mean over classes" : "Dice, mean over classes"),
      chart(main, { label: "Each arm with its 95 % interval", reference: result.arms["plain 0"][measure][0] }),
      this.classes(result, measure),
      this.table(result, measure),
      h("h3", {}, "Rounds of alignment"),
      h(
        "ul",
        { class: "sx-guide-list" },
        result.rounds.flatMap((rounds, seed) =>
          rounds.map((numbers, index) => h("li", {}, result.rounds.length > 1 ? `Repeat ${seed + 1}. ` : "", roundWords(numbers, index + 1, result.task))),
        ),
      ),
      h(
        "p",
        { class: "sx-note" },
        `${result.num_real} real images, ${plural(result.num_test, "test image")} of ${plural(result.num_test_patients, "patient")}, ${plural(result.rounds.length, "repeat")}. Equal numbers of training steps for all rows. Ranges: 95 % bootstrap over repeats and patients.`,
      ),
    );
  }

  /** Gain of the arm that the sentence at the top is about, class by class. */
  classes(result, measure) {
    const name = headArm(result.arms),
      gains = result.arms[name]?.["gain per class over plain 0"] ?? {};
    if (Object.keys(gains).length < 2) return null;
    const inOrder = result.class_names.filter((label) => label in gains).map((label) => [label, gains[label]]);
    const rows = inOrder.map(([label, value]) => ({
      name: label === result.rarest_class ? `${label} (rarest)` : label,
      value,
      kind: { better: "aligned", worse: "worse" }[verdictOf(value)] ?? "made",
      missing: "no test image shows it",
    }));
    return [
      h("h3", {}, `Gain per class, ${armWords(name).replace(/^\+ /, "")} against real images only`),
      intervalChart(rows, { label: `Gain in ${measure} per class`, reference: 0, digits: 3, signed: true }),
    ];
  }

  table(result, measure) {
    const more = measure === "f1" ? ["accuracy", "auroc"] : ["iou", "hd95"],
      titles = { accuracy: "Accuracy", auroc: "AUROC", iou: "IoU", hd95: "HD95, px" };
    const number = (value, digits = 3) => (value?.[0] === null || value === undefined ? "-" : fixed(value[0], digits));
    const gain = (value) => (value ? `${value[0] > 0 ? "+" : ""}${fixed(value[0], 3)} (${fixed(value[1], 3)} to ${fixed(value[2], 3)})` : "-");
    return h(
      "details",
      { class: "sx-details" },
      h("summary", {}, "All numbers"),
      h(
        "table",
        { class: "sx-table" },
        h("thead", {}, h("tr", {}, ["Trained on", measure === "f1" ? "F1" : "Dice", ...more.map((key) => titles[key]), "Gain over augmented", "Minutes"].map((text) => h("th", { scope: "col" }, text)))),
        h(
          "tbody",
          {},
          sortedArms(Object.keys(result.arms)).map((name) => [name, result.arms[name]]).map(([name, arm]) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, armWords(name)),
              [number(arm[measure]), ...more.map((key) => number(arm[key], key === "hd95" ? 1 : 3)), gain(arm["gain over augmented 0"]), fixed(arm.minutes, 1)].map((text) => h("td", {}, text)),
            ),
          ),
        ),
      ),
    );
  }
}
