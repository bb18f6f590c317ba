// The blind test: old and new version side by side, same mask, same seed; the server alone knows which side is which.
import { badge, classTag, get, h, isClassification, kbd, onKeys, PERSON_KEY, plural, replace, requestId, toast, urls, withProject } from "./lib.js";
import { trialInWords } from "./align_verdict.js";
import { Outbox } from "./vote_outbox.js";

const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "both_good", ArrowDown: "both_bad", " ": "skip" };
const QUESTION = "Which image shows the marked anatomy better?";
const BUTTONS = [
  ["left", "Left is better", "\u2190"],
  ["both_good", "Both good", "\u2191"],
  ["both_bad", "Both bad", "\u2193"],
  ["right", "Right is better", "\u2192"],
];

export class Trial {
  /** Args: done: () => called when the reviewer leaves, with or without a result. */
  constructor({ done }) {
    Object.assign(this, { done, queue: [], answered: [], current: null });
    // Answers wait in this browser's storage until the program has them, also when the page is closed.
    this.outbox = new Outbox({
      onSaved: () => (this.root.dataset.saved = String(1 + Number(this.root.dataset.saved ?? 0))),
      onOffline: () => (this.info.textContent = "The program does not answer; your answers are kept here and sent again."),
    });
    this.sides = { left: this.side("Left"), right: this.side("Right") };
    this.title = h("b", {}, QUESTION);
    this.counter = h("span", { class: "sx-note", role: "status" });
    this.info = h("p", { class: "sx-vote-info", role: "status" });
    this.comparison = h(
      "div",
      { class: "sx-trial-comparison" },
      h("div", { class: "sx-pair" }, this.sides.left.root, this.sides.right.root),
      h(
        "div",
        { class: "sx-vote-bar" },
        BUTTONS.map(([answer, text, key]) =>
          h(
            "button",
            {
              type: "button",
              class: "sx-button sx-vote-button",
              dataset: { answer },
              onclick: (event) => {
                event.currentTarget.blur();
                this.answer(answer);
              },
            },
            key === "\u2192" ? [text, kbd(key)] : [kbd(key), text],
          ),
        ),
      ),
      h(
        "div",
        { class: "sx-vote-more" },
        h("button", { type: "button", class: "sx-link", onclick: () => this.answer("skip") }, "Skip", kbd("Space")),
        this.info,
        h("button", { type: "button", class: "sx-link", onclick: () => this.back() }, "Back", kbd("Z")),
      ),
    );
    this.result = h("section", { class: "sx-card sx-trial-result", hidden: true, tabindex: "-1" });
    this.root = h(
      "div",
      { class: "sx-vote sx-trial", hidden: true },
      h(
        "div",
        { class: "sx-vote-head" },
        this.title,
        this.counter,
        h("span", { class: "sx-note" }, "Hold ", h("span", { class: "sx-mask-only" }, kbd("H"), " without outline, "), kbd("D"), " what differs"),
        h("button", { type: "button", class: "sx-button sx-small", id: "trial-finish", onclick: () => this.finish() }, "Finish"),
      ),
      this.comparison,
      this.result,
    );
    onKeys(this.root, (event) => this.key(event));
    document.addEventListener("keyup", (event) => {
      const key = event.key.toLowerCase();
      if (key === "h") this.root.classList.remove("sx-no-outline");
      if (key === "d") this.root.classList.remove("sx-difference");
    });
    withProject((project) => this.outbox.open(`saadi.trial.${project.id}.${project.created_at}`));
  }

  side(name) {
    const stage = h("div", { class: "sx-vote-stage" }),
      frame = h("div", { class: "sx-vote-frame" }, stage, badge("synthetic"));
    frame.addEventListener("wheel", (event) => this.wheel(event, frame), { passive: false });
    return { root: h("figure", { class: "sx-vote-side" }, frame, h("figcaption", {}, name)), frame, stage };
  }

  async open(adapter) {
    const { pairs, total } = await get(`/api/adapters/${adapter.id}/trial`);
    // What the server does not know yet, it asks again.
    const person = localStorage.getItem(PERSON_KEY);
    const waiting = this.outbox.waiting().filter((item) => item.body.adapter_id === adapter.id && (item.person ?? null) === person);
    const queue = pairs.filter(({ pair }) => !waiting.some(({ body }) => body.pair === pair));
    Object.assign(this, { adapter, total, queue, answered: [], current: null });
    this.root.hidden = false;
    this.comparison.hidden = false;
    this.result.hidden = true;
    document.activeElement?.blur();
    this.next();
  }

  // ---- showing

  next() {
    this.current = this.queue.shift() ?? null;
    if (!this.current) return this.finish();
    this.show();
    if (this.queue.length) this.load(this.queue[0]); // decoded before it is asked for
  }

  load(pair) {
    const picture = (source, alternative, className) => {
      const image = new Image();
      Object.assign(image, { src: source, alt: alternative, draggable: false, className });
      image.decode().catch(() => {}); // a broken picture is shown as such
      return image;
    };
    pair.pictures ??= Object.fromEntries(
      ["left", "right"].map((name) => [
        name,
        [
          picture(urls.image(pair[name]), `${name === "left" ? "Left" : "Right"} image`, ""),
          picture(urls.image(pair[name === "left" ? "right" : "left"]), "", "sx-trial-other"),
          !isClassification() && picture(urls.outline(pair.label_map_blob, pair[name]), "", "sx-vote-outline"),
        ],
      ]),
    );
    return pair.pictures;
  }

  show() {
    const pictures = this.load(this.current);
    for (const [name, { stage }] of Object.entries(this.sides)) replace(stage, pictures[name]);
    replace(this.title, isClassification() ? ["Which image shows ", classTag(this.current.class), " better?"] : QUESTION);
    this.setZoom(1, 50, 50);
    this.root.dataset.pair = this.current.pair;
    this.counter.textContent = `Pair ${this.total - this.queue.length} of ${this.total}`;
    this.info.textContent = "One side is the old version, the other the new one. You are told at the end.";
    this.shownAt = performance.now();
  }

  setZoom(zoom, x, y) {
    this.zoom = zoom;
    for (const { stage } of Object.values(this.sides))
      Object.assign(stage.style, { transformOrigin: `${x}% ${y}%`, transform: `scale(${zoom})` });
  }
  wheel(event, frame) {
    event.preventDefault();
    const box = frame.getBoundingClientRect();
    this.setZoom(
      Math.max(1, Math.min(12, this.zoom * Math.exp(-event.deltaY / 400))),
      (100 * (event.clientX - box.left)) / box.width,
      (100 * (event.clientY - box.top)) / box.height,
    );
  }

  // ---- answering

  key(event) {
    const control = event.target.closest?.("button, a, input, summary");
    if ([" ", "Enter"].includes(event.key) && control && this.root.contains(control)) return false; // it is the button's
    const key = event.key.toLowerCase();
    if (key === "h") {
      this.root.classList.add("sx-no-outline");
      return true;
    }
    if (key === "d") {
      this.root.classList.add("sx-difference");
      return true;
    }
    if (event.key === "Escape") {
      this.finish();
      return true;
    }
    if (this.comparison.hidden) return false;
    const answer = KEYS[event.key];
    if (!answer && key !== "z") return false;
    if (!event.repeat) {
      if (answer) this.answer(answer);
      else this.back();
    }
    return true;
  }

  answer(answer) {
    if (!this.current) return;
    const body = {
      adapter_id: this.adapter.id,
      pair: this.current.pair,
      answer,
      response_ms: Math.min(86400000, Math.round(performance.now() - this.shownAt)),
      request_id: requestId(),
    };
    this.answered.push(this.current);
    this.outbox.add({ path: "/api/trials", body });
    this.next();
  }

  /** See the last pair again: a new answer takes the place of the old one. */
  back() {
    const last = this.answered.pop();
    if (!last) return toast("This is the first pair of this sitting.");
    if (this.current) this.queue.unshift(this.current);
    this.current = last;
    this.show();
  }

  async finish() {
    if (!this.result.hidden) return this.close();
    await this.outbox.flush();
    if (!this.total || (!this.answered.length && this.queue.length + (this.current ? 1 : 0) === this.total)) return this.close();
    const { mine, all } = await get(`/api/adapters/${this.adapter.id}/trial/result`);
    this.comparison.hidden = true;
    this.result.hidden = false;
    this.counter.textContent = "";
    const left = this.queue.length + (this.current ? 1 : 0);
    replace(
      this.result,
      h("h2", {}, trialInWords(mine, "You")),
      all.people > 1 ? h("p", {}, trialInWords(all, `All ${all.people} people together`)) : null,
      left ? h("p", { class: "sx-note" }, `${plural(left, "pair")} left; you can go on later.`) : null,
      h("button", { type: "button", class: "sx-button sx-primary", id: "trial-close", onclick: () => this.close() }, "Back to the version"),
    );
    this.result.querySelector("button").focus();
  }

  close() {
    this.root.hidden = true;
    delete this.root.dataset.pair;
    this.done();
  }
}
