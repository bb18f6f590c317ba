// A block of five minutes: a ring with the time left, kept in this browser so that a reload goes on where it was. The clock
// stands still while the page is hidden or another tab is open.
import { h, plural, requestId, svg } from "./lib.js";
import { read, write } from "./vote_outbox.js";

export const BLOCK_MS = 5 * 60 * 1000;
const TICK_MS = 250,
  LONGEST_STEP_MS = 2000, // more: the computer was asleep
  RADIUS = 14;

export class Block {
  /** `isRunning()` says whether the reviewer is looking at pairs; `onFinish()` is called by the button. */
  constructor({ isRunning, onFinish }) {
    Object.assign(this, { isRunning, key: null, state: null, last: 0 });
    const length = 2 * Math.PI * RADIUS;
    this.arc = svg("circle", { cx: 17, cy: 17, r: RADIUS, class: "sx-ring-left", "stroke-dasharray": length });
    this.arc.length = length;
    this.text = h("span", { class: "sx-ring-text" });
    this.finish = h("button", { type: "button", class: "sx-link", onclick: onFinish }, "Finish");
    this.root = h(
      "div",
      { class: "sx-ring", role: "group", "aria-label": "This block" },
      svg("svg", { viewBox: "0 0 34 34", "aria-hidden": "true" }, svg("circle", { cx: 17, cy: 17, r: RADIUS }), this.arc),
      this.text,
      this.finish,
    );
    setInterval(() => this.tick(), TICK_MS);
    addEventListener("pagehide", () => this.save());
  }

  open(key) {
    this.key = key;
    this.state = read(key, null);
    this.draw();
  }

  /** Id of the running block; the first answer starts one. */
  get id() {
    this.state ??= { id: requestId(), used_ms: 0, votes: 0 };
    return this.state.id;
  }
  get votes() {
    return this.state?.votes ?? 0;
  }
  get isOver() {
    return (this.state?.used_ms ?? 0) >= BLOCK_MS;
  }

  /** One answer more, or one taken back. */
  count(change) {
    this.state.votes = Math.max(0, this.state.votes + change);
    this.save();
    this.draw();
  }

  /** Ends the block and returns its id; the next answer starts another. */
  end() {
    const { id } = this;
    this.state = null;
    this.save();
    this.draw();
    return id;
  }

  tick() {
    const now = performance.now(),
      step = now - this.last;
    this.last = now;
    if (!this.state || document.hidden || !this.isRunning()) return;
    const before = Math.floor(this.state.used_ms / 1000);
    this.state.used_ms += Math.min(step, LONGEST_STEP_MS);
    if (Math.floor(this.state.used_ms / 1000) === before) return;
    this.save();
    this.draw();
  }

  save() {
    if (this.key) write(this.key, this.state);
  }

  draw() {
    const left = Math.max(0, BLOCK_MS - (this.state?.used_ms ?? 0)),
      seconds = Math.ceil(left / 1000);
    this.arc.setAttribute("stroke-dashoffset", this.arc.length * (1 - left / BLOCK_MS));
    this.text.textContent = this.state
      ? `${left ? `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}` : "last one"} \u00b7 ${plural(this.votes, "vote")}`
      : "5 minutes";
    this.finish.hidden = !this.votes;
    this.root.dataset.votes = this.votes;
  }
}
