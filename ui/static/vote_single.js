// Single images: one at a time, a thumb up or down by the arrow keys, blind as the pairs are.
import { h, isClassification, kbd, post, replace, requestId, state, toast, urls } from "./lib.js";
import { thumbIcon } from "./thumbs.js";
import { decoded, frameOf, Look } from "./vote_look.js";

const AHEAD = 4,
  UNDO_DEPTH = 20;
const KEYS = { ArrowUp: "up", ArrowDown: "down", " ": "skip" };

export class SingleView {
  constructor({ outbox, say, ask }) {
    Object.assign(this, { outbox, say, ask });
    this.side = frameOf("Image");
    this.root = h("div", { class: "sx-vote-view", hidden: true });
    this.look = new Look(this.root, [this.side]);
    this.counter = h("span", { class: "sx-note" });
    const button = (value, ...content) =>
      h("button", { type: "button", class: `sx-button sx-vote-button sx-vote-${value}`, dataset: { thumb: value }, onclick: () => this.answer(value) }, content);
    this.root.append(
      h("div", { class: "sx-pair" }, this.side.frame),
      h("div", { class: "sx-vote-tools" }, this.counter, this.look.outlineBox),
      h(
        "div",
        { class: "sx-vote-bar" },
        button("skip", kbd("Space"), "Skip"),
        button("up", kbd("\u2191"), thumbIcon("up"), "Good"),
        button("down", kbd("\u2193"), thumbIcon("down"), "Bad"),
        h("button", { type: "button", class: "sx-button sx-vote-button", onclick: () => this.undo() }, "Undo", kbd("Z")),
      ),
    );
    this.reset();
  }

  reset() {
    Object.assign(this, { queue: [], current: null, done: [], skipped: [], given: 0, isEmpty: false, project: state.project });
    this.draw();
  }

  show() {
    this.isEmpty = false;
    this.refill();
  }

  key(event) {
    if (this.look.key(event)) return true;
    if (event.shiftKey) return false;
    if (event.key.toLowerCase() === "z") {
      if (!event.repeat) this.undo();
      return true;
    }
    if (KEYS[event.key] && !event.repeat) this.answer(KEYS[event.key]);
    return Boolean(KEYS[event.key]);
  }

  answer(value) {
    const item = this.current;
    if (!item) return;
    this.done = [...this.done, { item, value }].slice(-UNDO_DEPTH);
    if (value === "skip") this.skipped.push(item.id);
    else this.send(item, value, 1);
    this.next();
    this.refill();
  }

  undo() {
    const last = this.done.pop();
    if (!last) return toast(`Nothing more to take back; ${UNDO_DEPTH} answers are kept for undo.`);
    if (last.value !== "skip") this.send(last.item, "none", -1);
    this.queue.unshift(last.item, ...(this.current ? [this.current] : []));
    this.next();
  }

  send(item, value, change) {
    this.given += change;
    const body = { project_id: state.project.id, sample_id: item.id, value, request_id: requestId() };
    this.outbox.add({ path: "/api/thumbs", body });
  }

  next() {
    this.current = this.queue.shift() ?? null;
    this.draw();
  }

  draw() {
    const item = this.current;
    this.root.dataset.sample = item?.id ?? "";
    replace(this.side.stage, item ? [item.image, item.outline] : []);
    if (item?.image.naturalWidth) this.root.style.setProperty("--ratio", item.image.naturalWidth / item.image.naturalHeight);
    this.counter.textContent = item ? `${this.given} judged by you` : "";
    this.look.reset();
    if (!this.root.hidden) this.ask();
    if (!this.root.hidden && !item && this.isEmpty) this.say("You have judged every image. Generate more, then come back.");
    else if (!this.root.hidden) this.say();
  }

  async refill() {
    const project = state.project;
    if (!project || this.isLoading || this.isEmpty || this.queue.length >= AHEAD) return;
    this.isLoading = true;
    try {
      const waiting = this.outbox.waiting().map(({ body }) => body.sample_id);
      const held = [this.current, ...this.queue].filter(Boolean).map((item) => item.id);
      const exclude = [...waiting.filter(Boolean), ...held, ...this.skipped].slice(-2000);
      const answer = await post("/api/thumbs/next", { project_id: project.id, count: AHEAD, exclude });
      if (this.project !== project) return;
      if (!waiting.length) this.given = answer.mine;
      this.isEmpty = !answer.items.length;
      const found = await Promise.all(
        answer.items.map(async (item) => ({
          ...item,
          image: await decoded(urls.image(item.blob), { alt: "Candidate" }),
          outline: !isClassification() && await decoded(urls.outline(item.label_map_blob, item.blob), { alt: "", className: "sx-vote-outline" }),
        })),
      );
      if (this.project !== project) return;
      this.queue.push(...found);
    } catch (error) {
      this.say(error.message);
      setTimeout(() => !this.root.hidden && this.refill(), 2000);
      return;
    } finally {
      this.isLoading = false;
    }
    if (!this.current) this.next();
  }
}
