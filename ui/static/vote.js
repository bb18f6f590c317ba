// Vote: two images of one mask, blind. The next pairs are decoded beforehand, so a key shows the next one at once. Which view
// is open, and the queue of pairs, are here; looking, sending, the block's clock and the other views have modules of their own.
import {
  act,
  byTask,
  classTag,
  emit,
  h,
  isClassification,
  kbd,
  on,
  onKeys,
  onShow,
  openTab,
  order,
  PERSON_KEY,
  plural,
  post,
  refreshOverview,
  replace,
  requestId,
  segmented,
  state,
  toast,
  urls,
  withProject,
} from "./lib.js";
import { AgreementView } from "./vote_agreement.js";
import { Block } from "./vote_block.js";
import { EndCard } from "./vote_card.js";
import { decoded, frameOf, Look } from "./vote_look.js";
import { Outbox, read, write } from "./vote_outbox.js";
import { SingleView } from "./vote_single.js";

const AHEAD = 6,
  MASKS_TO_MAKE = 8,
  EACH_TO_MAKE = 4,
  UNDO_DEPTH = 20,
  REFRESH_MS = 1500;
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "both_good", ArrowDown: "both_bad", " ": "skip" };
const BUTTONS = [
  ["skip", "Skip", "Space"],
  ["left", "Left is better", "\u2190"],
  ["both_good", "Both good", "\u2191"],
  ["both_bad", "Both bad", "\u2193"],
  ["right", "Right is better", "\u2192"],
];
export const REASONS = [
  ["anatomy", "Anatomy"],
  ["mask_fit", "Mask fit"],
  ["texture", "Texture"],
  ["instrument", "Instrument"],
  ["light", "Light"],
  ["artefact", "Artefact"],
];
const QUESTIONS = {
  pairs: "Which image shows the marked anatomy better?",
  single: "Does this image show the marked anatomy as it should?",
  agreement: "How far do reviewers agree?",
};
const BLIND = "No scores are shown, so that your eye decides.";

export function mount(element) {
  new VoteTab(element);
}

class VoteTab {
  constructor(element) {
    Object.assign(this, { root: element, queue: [], current: null, done: [], isLoading: false, isEmpty: false, count: 0 });
    this.sides = { left: frameOf("Left image"), right: frameOf("Right image") };
    this.look = new Look(element, Object.values(this.sides), () => this.current && [this.current.leftImage, this.current.rightImage]);
    this.info = h("p", { class: "sx-vote-info", role: "status", "aria-live": "polite" });
    this.counter = h("span", { class: "sx-note" });
    this.outbox = new Outbox({ onSaved: () => this.saved(), onOffline: () => this.say() });
    this.block = new Block({
      isRunning: () => this.view === "pairs" && this.current && element.offsetParent,
      onFinish: () => this.endBlock(),
    });
    this.card = new EndCard(() => this.open("pairs"));
    this.single = new SingleView({ outbox: this.outbox, say: (text) => this.say(text), ask: () => this.ask() });
    this.agreement = new AgreementView();
    this.build(element);
    onKeys(element, (event) => this.key(event));
    addEventListener("beforeunload", (event) => {
      if (this.outbox.sending && this.outbox.waiting().length) event.preventDefault();
    });
    onShow(element, () => {
      this.isEmpty = false;
      if (this.view === "agreement") this.agreement.show();
      this.refill();
    });
    on("job:end", (job) => {
      if (!["generate", "score"].includes(job.kind)) return;
      Object.assign(this, { isMaking: false, isEmpty: false });
      this.refill();
    });
    on("overview", () => !this.current && this.say());
    on("person", () => state.project && this.reset());
    withProject(() => this.reset());
    element.dataset.ready = "1";
  }

  build(element) {
    this.modes = segmented("What to judge", [["pairs", "Pairs"], ["single", "Single images"]], "pairs", (mode) => this.open(mode));
    this.question = h("b");
    this.agreementButton = h(
      "button",
      { type: "button", class: "sx-button sx-small", "aria-pressed": "false", onclick: () => this.open(this.view === "agreement" ? "pairs" : "agreement") },
      "Agreement",
    );
    this.chips = REASONS.map(([reason, text], index) =>
      h(
        "button",
        {
          type: "button",
          class: "sx-chip",
          "aria-pressed": "false",
          dataset: { reason },
          onclick: (event) => press(event.currentTarget),
        },
        kbd(index + 1),
        reason === "mask_fit" ? byTask(text, "Class fits") : text,
      ),
    );
    const answers = BUTTONS.map(([answer, text, key]) =>
      h(
        "button",
        { type: "button", class: `sx-button sx-vote-button sx-vote-${answer}`, dataset: { answer }, onclick: () => this.answer(answer) },
        key === "\u2192" ? [text, kbd(key)] : [kbd(key), text],
      ),
    );
    const undo = h("button", { type: "button", class: "sx-button sx-vote-button", onclick: () => this.undo() }, "Undo", kbd("Z"));
    this.pairs = h(
      "div",
      { class: "sx-vote-view" },
      h("div", { class: "sx-pair" }, this.sides.left.frame, this.sides.right.frame),
      h(
        "div",
        { class: "sx-vote-tools" },
        h("span", { class: "sx-note" }, "Why? (optional)"),
        h("div", { class: "sx-chips", role: "group", "aria-label": "Reasons for this answer" }, this.chips),
        this.look.outlineBox,
        this.look.differenceBox,
      ),
      h("div", { class: "sx-vote-bar" }, answers, undo),
    );
    element.classList.add("sx-vote");
    element.append(
      h(
        "div",
        { class: "sx-vote-head" },
        this.modes,
        h("div", { class: "sx-vote-question" }, this.question, this.info),
        this.counter,
        this.block.root,
        this.agreementButton,
      ),
      this.pairs,
      this.card.root,
      this.single.root,
      this.agreement.root,
    );
    element.addEventListener("click", (event) => this.meetsAnother() && event.stopPropagation(), { capture: true });
    // Whoever clicks with the mouse wants the keys to answer next, not to press that button again.
    element.addEventListener("click", (event) => {
      if (event.detail && !event.target.closest("summary")) document.activeElement?.blur?.();
    });
  }

  // ---- views: pairs, single, agreement, card

  open(view) {
    if (this.view === view) return;
    this.view = view;
    this.root.dataset.view = view;
    this.pairs.hidden = view !== "pairs";
    this.single.root.hidden = view !== "single";
    this.agreement.root.hidden = view !== "agreement";
    this.agreementButton.setAttribute("aria-pressed", String(view === "agreement"));
    this.block.root.hidden = this.counter.hidden = view !== "pairs";
    this.modes.set(view === "single" ? "single" : view === "agreement" ? "" : "pairs");
    this.ask();
    if (view !== "card") this.card.hide();
    if (view === "single") this.single.show();
    if (view === "agreement") this.agreement.show();
    if (view === "pairs") {
      this.shownAt = performance.now();
      this.refill();
    }
    this.say();
  }

  /** The question; in classification it names the class. */
  ask() {
    const item = this.view === "pairs" ? this.current : this.view === "single" ? this.single.current : null;
    const [before, after] = this.view === "pairs" ? ["Which image shows ", " better?"] : ["Does this image show ", " as it should?"];
    if (!isClassification() || !["pairs", "single"].includes(this.view)) this.question.textContent = QUESTIONS[this.view] ?? "";
    else replace(this.question, Number.isInteger(item?.class) ? [before, classTag(item.class), after] : null);
  }

  reset() {
    this.person = localStorage.getItem(PERSON_KEY);
    const key = `saadi.votes.${state.project.id}.${state.project.created_at}`,
      own = `${key}.${this.person ?? ""}`;
    Object.assign(this, { queue: [], current: null, isEmpty: false, isLoading: false, isMaking: false, count: 0, doneKey: `${own}.done` });
    this.done = read(this.doneKey, []);
    this.block.open(`${own}.block`);
    this.outbox.open(key);
    this.single.reset();
    this.agreement.reset();
    this.view = null;
    this.open("pairs");
  }

  /** True when somebody else sits here now: the pairs on screen were chosen for another reviewer, so new ones are fetched. */
  meetsAnother() {
    if (!state.project || localStorage.getItem(PERSON_KEY) === this.person) return false;
    this.reset();
    return true;
  }

  key(event) {
    if (this.meetsAnother()) return true;
    // A control that was reached by the keyboard keeps its own keys.
    const control = event.target.closest?.("button, summary, a, input");
    if ((event.key === " " || event.key === "Enter") && control && this.root.contains(control)) return false;
    if (this.view === "single") return this.single.key(event);
    if (this.view !== "pairs") return false;
    if (this.look.key(event)) return true;
    if (event.shiftKey) return false;
    if (event.key.toLowerCase() === "z") {
      if (!event.repeat) this.undo();
      return true;
    }
    const chip = /^[1-6]$/.test(event.key) && this.chips[event.key - 1];
    if (chip && !event.repeat) press(chip);
    if (KEYS[event.key] && !event.repeat) this.answer(KEYS[event.key]);
    return Boolean(chip || KEYS[event.key]);
  }

  say(text) {
    const empty = this.view === "pairs" && !this.current;
    const words =
      text ??
      (this.outbox.isOffline
        ? "Votes are kept in this browser; the program does not answer, trying again."
        : empty
          ? this.isLoading || !this.isEmpty
            ? "Loading\u2026"
            : this.emptyWords()
          : this.view === "agreement" || this.view === "card"
            ? ""
            : BLIND);
    if (words !== this.said) replace(this.info, words, empty && this.isEmpty && !text && this.wayOut());
    this.said = words;
  }

  emptyWords() {
    if (this.isMaking) return `Making ${MASKS_TO_MAKE * EACH_TO_MAKE} images; the first pairs come in a moment.`;
    if (!state.overview?.models.selector) return "Nothing to compare yet: images are compared once the scorers are trained.";
    return state.overview.samples ? "You have compared all pairs." : "No images to compare yet.";
  }

  /** What to do where there is nothing to compare: one press away. */
  wayOut() {
    if (this.isMaking) return null;
    const link = (text, onclick) => h("button", { type: "button", class: "sx-link", onclick }, text);
    if (!state.overview?.models.selector) return link("Train them in Data", () => openTab("data"));
    return link(`Make ${MASKS_TO_MAKE * EACH_TO_MAKE} ${state.overview.samples ? "more" : "now"}`, (event) =>
      act(event.currentTarget, () => this.makeSome()),
    );
  }

  async makeSome() {
    const seed = Math.floor(Math.random() * 1e9);
    await order("generate", { count: MASKS_TO_MAKE, candidates: EACH_TO_MAKE, seed });
    this.isMaking = true;
    this.say();
  }

  saved() {
    this.root.dataset.saved = String(1 + Number(this.root.dataset.saved ?? 0));
    this.say();
    // The header's counts read the whole project: once after a few votes, not after each.
    clearTimeout(this.refreshing);
    this.refreshing = setTimeout(() => refreshOverview().catch(() => {}), REFRESH_MS);
    emit("votes");
  }

  // ---- the queue

  async prepare(pair) {
    const { left, right, label_map_blob: mask } = pair;
    const outline = { className: "sx-vote-outline", alt: "" };
    const isMask = !isClassification(); // the outline of a class would be the frame
    [pair.leftImage, pair.rightImage, pair.leftOutline, pair.rightOutline] = await Promise.all([
      decoded(urls.image(left), { alt: "Left candidate" }),
      decoded(urls.image(right), { alt: "Right candidate" }),
      isMask && decoded(urls.outline(mask, left), outline),
      isMask && decoded(urls.outline(mask, right), outline),
    ]);
    return pair;
  }

  show() {
    this.current = this.queue.shift() ?? null;
    const pair = this.current;
    this.root.dataset.pair = pair ? `${pair.left_id}-${pair.right_id}` : "";
    for (const name of ["left", "right"])
      replace(this.sides[name].stage, pair ? [pair[`${name}Image`], pair[`${name}Outline`]] : []);
    if (pair?.leftImage.naturalWidth)
      this.pairs.style.setProperty("--ratio", pair.leftImage.naturalWidth / pair.leftImage.naturalHeight);
    this.look.reset();
    this.setReasons([]);
    this.shownAt = performance.now();
    this.counter.textContent = plural(this.count, "vote by you", "votes by you");
    this.ask();
    this.say();
  }

  /** What the server must not send again: pairs that wait here, and answers on their way. */
  held() {
    const pairs = [this.current, ...this.queue, ...this.outbox.waiting().map(({ body }) => body)];
    return pairs.filter((pair) => pair?.left_id).map((pair) => [pair.left_id, pair.right_id]);
  }

  async refill() {
    const project = state.project,
      person = this.person;
    if (!project || this.isLoading || this.isEmpty || this.queue.length >= AHEAD || !this.root.offsetParent) return;
    this.isLoading = true;
    try {
      const answer = await post("/api/pairs/next", { project_id: project.id, count: AHEAD, exclude: this.held() });
      if (state.project !== project || this.person !== person) return;
      if (!this.outbox.waiting().length) this.count = answer.my_votes;
      this.isEmpty = !answer.pairs.length;
      this.queue.push(...(await Promise.all(answer.pairs.map((pair) => this.prepare(pair)))));
    } catch (error) {
      this.say(error.message);
      setTimeout(() => this.refill(), 2000);
      return;
    } finally {
      if (state.project === project && this.person === person) this.isLoading = false;
    }
    if (state.project === project && this.person === person && !this.current) this.show();
  }

  // ---- answering

  setReasons(reasons) {
    for (const chip of this.chips) chip.setAttribute("aria-pressed", String(reasons.includes(chip.dataset.reason)));
  }

  answer(answer) {
    if (!this.current) return;
    const pair = this.current;
    const vote = {
      project_id: state.project.id,
      left_id: pair.left_id,
      right_id: pair.right_id,
      answer,
      kind: pair.kind,
      reasons: this.chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.reason),
      block: this.block.id,
      response_ms: Math.min(86400000, Math.round(performance.now() - this.shownAt)),
      request_id: requestId(),
    };
    this.done.push({ pair, vote });
    this.keepDone();
    this.flash(answer);
    this.tally(vote, 1);
    this.outbox.add({ path: "/api/votes", body: vote });
    this.show();
    this.refill();
    if (this.block.isOver) this.endBlock();
  }

  tally(vote, change) {
    if (vote.answer === "skip") return;
    this.count += change;
    if (vote.block === this.block.id) this.block.count(change);
  }

  keepDone() {
    this.done = this.done.slice(-UNDO_DEPTH);
    const names = ["left_id", "right_id", "left", "right", "label_map_blob", "class", "kind"];
    const plain = (pair) => Object.fromEntries(names.map((name) => [name, pair[name]]));
    write(this.doneKey, this.done.map(({ pair, vote }) => ({ pair: plain(pair), vote })));
  }

  flash(answer) {
    const sides = { left: ["left"], right: ["right"], both_good: ["left", "right"] }[answer] ?? [];
    for (const name of sides)
      this.sides[name].frame.animate([{ outline: "5px solid #2fae7d" }, { outline: "5px solid transparent" }], 300);
  }

  async undo() {
    const last = this.done.pop();
    if (!last) return toast(`Nothing more to take back; ${UNDO_DEPTH} answers are kept for undo.`);
    this.keepDone();
    this.tally(last.vote, -1);
    this.outbox.add({ path: "/api/votes/undo", body: { request_id: requestId() }, of: last.vote.request_id });
    this.queue.unshift(last.pair, ...(this.current ? [this.current] : []));
    this.current = null;
    if (!last.pair.leftImage) await this.prepare(last.pair); // of a page before a reload
    if (this.queue[0] !== last.pair) return; // taken back further meanwhile
    this.show();
    this.setReasons(last.vote.reasons);
  }

  endBlock() {
    const block = this.block.end();
    this.open("card");
    this.card.show(block, this.outbox.flush());
  }
}

function press(chip) {
  chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
}
