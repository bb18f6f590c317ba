// Vote: two images of one mask, blind. The next pairs are decoded beforehand, so a key shows the next one at once; votes
// wait in this browser's storage until the server has them, each with an id that makes a resend harmless.
import {
  ApiError,
  h,
  kbd,
  onKeys,
  onShow,
  post,
  refreshOverview,
  replace,
  requestId,
  state,
  toast,
  urls,
  withProject,
} from "./lib.js";

const AHEAD = 6,
  MAX_EXCLUDE = 500,
  RETRY_MS = [500, 1000, 2000, 4000];
const KEYS = {
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "both_good",
  ArrowDown: "both_bad",
  " ": "skip",
  z: "undo",
  Z: "undo",
};
const BUTTONS = [
  ["left", "Left is better", "\u2190"],
  ["both_good", "Both good", "\u2191"],
  ["both_bad", "Both bad", "\u2193"],
  ["right", "Right is better", "\u2192"],
];

export function mount(element) {
  new VoteTab(element);
}

class VoteTab {
  constructor(element) {
    Object.assign(this, {
      root: element,
      queue: [],
      current: null,
      seen: [],
      done: [],
      isLoading: false,
      isEmpty: false,
      count: 0,
      session: 0,
      zoom: 1,
      showsOutline: true,
    });
    this.sides = { left: this.side("Left"), right: this.side("Right") };
    this.info = h("p", { class: "sx-vote-info", role: "status", "aria-live": "polite" });
    this.counter = h("span", { class: "sx-note" });
    this.outlineBox = h("input", {
      type: "checkbox",
      checked: true,
      onchange: () => {
        this.showsOutline = this.outlineBox.checked;
        this.showOutline(this.showsOutline);
      },
    });
    element.classList.add("sx-vote");
    element.append(
      h(
        "div",
        { class: "sx-vote-head" },
        h("b", {}, "Which image shows the marked anatomy better?"),
        this.counter,
        h("label", { class: "sx-check" }, this.outlineBox, "Mask outline", kbd("H")),
      ),
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
        h("button", { type: "button", class: "sx-link", onclick: () => this.undo() }, "Undo", kbd("Z")),
      ),
    );
    onKeys(element, (event) => this.key(event));
    document.addEventListener("keyup", (event) => {
      if (event.key.toLowerCase() === "h") this.showOutline(this.showsOutline);
    });
    addEventListener("beforeunload", (event) => {
      if (this.waiting().length && this.sending) event.preventDefault();
    });
    onShow(element, () => {
      this.isEmpty = false;
      this.refill();
    });
    withProject(() => this.reset());
    element.dataset.ready = "1";
  }

  side(name) {
    const stage = h("div", { class: "sx-vote-stage" });
    const frame = h("div", { class: "sx-vote-frame" }, stage, h("span", { class: "sx-badge sx-badge-synthetic" }, "SYNTHETIC"));
    frame.addEventListener("wheel", (event) => this.wheel(event, frame), { passive: false });
    return { root: h("figure", { class: "sx-vote-side" }, frame, h("figcaption", {}, name)), frame, stage };
  }

  reset() {
    Object.assign(this, {
      queue: [],
      current: null,
      seen: [],
      done: [],
      isEmpty: false,
      session: 0,
      storageKey: `saadi.votes.${state.project.id}.${state.project.created_at}`,
    });
    this.send();
    this.refill();
  }

  // ---- showing

  async prepare(pair) {
    const load = async (source) => {
      const image = new Image();
      image.draggable = false;
      image.fetchPriority = "high";
      image.src = source;
      try {
        await image.decode();
      } catch {
        /* shown as broken, never silently skipped */
      }
      return image;
    };
    [pair.leftImage, pair.rightImage, pair.leftOutline, pair.rightOutline] = await Promise.all(
      [
        urls.image(pair.left),
        urls.image(pair.right),
        urls.outline(pair.label_map_blob, pair.left),
        urls.outline(pair.label_map_blob, pair.right),
      ].map(load),
    );
    pair.leftImage.alt = "Left candidate";
    pair.rightImage.alt = "Right candidate";
    pair.leftOutline.alt = pair.rightOutline.alt = "";
    pair.leftOutline.className = pair.rightOutline.className = "sx-vote-outline";
    return pair;
  }

  show() {
    this.current = this.queue.shift() ?? null;
    const pair = this.current;
    this.root.dataset.pair = pair ? `${pair.left_id}-${pair.right_id}` : "";
    for (const name of ["left", "right"])
      replace(this.sides[name].stage, pair ? [pair[`${name}Image`], pair[`${name}Outline`]] : []);
    this.setZoom(1, 50, 50);
    this.showOutline(this.showsOutline);
    this.shownAt = performance.now();
    this.counter.textContent = `${this.count} votes by you${this.session ? `, ${this.session} in this sitting` : ""}`;
    if (!pair)
      this.info.textContent = this.isLoading
        ? "Loading\u2026"
        : "No pairs left to compare. Generate more candidates for the same masks, then come back.";
    else if (!this.failed) this.info.textContent = "No scores are shown, so that your eye decides.";
  }

  showOutline(shown) {
    this.root.classList.toggle("sx-no-outline", !shown);
  }
  setZoom(zoom, x, y) {
    this.zoom = zoom;
    for (const { stage } of Object.values(this.sides)) {
      stage.style.transformOrigin = `${x}% ${y}%`;
      stage.style.transform = `scale(${zoom})`;
    }
  }
  wheel(event, frame) {
    event.preventDefault();
    const r = frame.getBoundingClientRect();
    this.setZoom(
      Math.max(1, Math.min(12, this.zoom * Math.exp(-event.deltaY / 400))),
      (100 * (event.clientX - r.left)) / r.width,
      (100 * (event.clientY - r.top)) / r.height,
    );
  }

  async refill() {
    const project = state.project;
    if (!project || this.isLoading || this.isEmpty || this.queue.length >= AHEAD || !this.root.offsetParent) return;
    this.isLoading = true;
    try {
      const answer = await post("/api/pairs/next", {
        project_id: project.id,
        count: AHEAD,
        exclude: this.seen.slice(-MAX_EXCLUDE),
      });
      if (state.project !== project) return;
      if (!this.session) this.count = answer.my_votes;
      this.isEmpty = !answer.pairs.length;
      this.seen.push(...answer.pairs.map((pair) => [pair.left_id, pair.right_id]));
      this.queue.push(...(await Promise.all(answer.pairs.map((pair) => this.prepare(pair)))));
    } catch (error) {
      this.info.textContent = error.message;
      setTimeout(() => this.refill(), 2000);
    } finally {
      this.isLoading = false;
    }
    if (state.project === project && !this.current) this.show();
  }

  // ---- answering

  answer(answer) {
    if (!this.current) return;
    const pair = this.current;
    const vote = {
      project_id: state.project.id,
      left_id: pair.left_id,
      right_id: pair.right_id,
      answer,
      response_ms: Math.min(86400000, Math.round(performance.now() - this.shownAt)),
      request_id: requestId(),
    };
    this.done.push({ pair, vote });
    this.flash(answer);
    if (answer !== "skip") {
      this.count++;
      this.session++;
    }
    this.enqueue({ path: "/api/votes", body: vote });
    this.show();
    this.refill();
  }

  flash(answer) {
    const sides = { left: ["left"], right: ["right"], both_good: ["left", "right"] }[answer] ?? [];
    for (const name of sides)
      this.sides[name].frame.animate([{ outline: "5px solid #2fae7d" }, { outline: "5px solid transparent" }], 300);
  }

  undo() {
    const last = this.done.pop();
    if (!last) return toast("Nothing to undo in this sitting.");
    if (last.vote.answer !== "skip") {
      this.count--;
      this.session--;
    }
    this.queue.unshift(last.pair, ...(this.current ? [this.current] : []));
    this.enqueue({ path: "/api/votes/undo", body: { request_id: requestId() }, of: last.vote.request_id });
    this.show();
  }

  key(event) {
    if (event.key.toLowerCase() === "h") {
      this.showOutline(false);
      return true;
    }
    const answer = KEYS[event.key];
    if (!answer) return false;
    if (event.repeat) return true;
    if (answer === "undo") this.undo();
    else this.answer(answer);
    return true;
  }

  // ---- sending: in order, from storage

  waiting() {
    try {
      return JSON.parse(localStorage.getItem(this.storageKey) ?? "[]");
    } catch {
      return [];
    }
  }
  keep(items) {
    localStorage.setItem(this.storageKey, JSON.stringify(items));
  }
  enqueue(item) {
    this.keep([...this.waiting(), item]);
    this.send();
  }

  send() {
    this.sending ??= this.deliverAll().finally(() => {
      this.sending = null;
    });
    return this.sending;
  }

  async deliverAll() {
    const ids = (this.voteIds ??= new Map()),
      key = this.storageKey;
    for (let failures = 0, items; (items = this.waiting()).length && key === this.storageKey;) {
      const { path, body, of } = items[0];
      try {
        if (of && !ids.has(of)) {
          this.keep(items.slice(1));
          continue;
        } // its vote was refused: nothing to take back
        const answer = await post(path, of ? { ...body, vote_id: ids.get(of) } : body);
        if (!of) ids.set(body.request_id, answer.vote_id);
        this.keep(this.waiting().slice(1));
        this.root.dataset.saved = String(1 + Number(this.root.dataset.saved ?? 0));
        [failures, this.failed] = [0, false];
      } catch (error) {
        if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
          toast(error.message, "bad");
          this.keep(this.waiting().slice(1));
          continue;
        }
        this.failed = true;
        this.info.textContent = "Votes are kept in this browser; the program does not answer, trying again.";
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]));
      }
    }
    refreshOverview().catch(() => {});
  }
}
