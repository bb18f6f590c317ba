// The map of Curate: a dot for each image, those that look alike side by side; a lasso chooses what it encloses.
import { USE_WORDS, versionName } from "./facts.js";
import { enclosed, nearestTo, panned, WHOLE, zoomed } from "./lasso.js";
import { act, byTask, get, h, kbd, order, percent, picture, plural, replace, segmented, state, urls } from "./lib.js";

const REAL = "#7d8894",
  UNKNOWN = "#9aa5b1";
const STATE_COLORS = { pending: "#56b4e9", accepted: "#009e73", rejected: "#d55e00", quarantined: "#f0c000" };
const STATE_WORDS = { pending: "open", accepted: "accepted", rejected: "rejected", quarantined: "quarantine" };
const VERSION_COLORS = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#f0e442"];
const USE_COLORS = { prize: "#f6e66b", filler: "#56b4e9", quarantine: "#d55e00", doubtful: "#cc79a7" };
const LEVELS = 10,
  REACH_PX = 9,
  MARGIN = 0.06,
  EDGE = 0.03,
  STRETCH = 1.6;
const QUIET = "#aab6c2";
const HOW = "Drag a loop around dots to choose them, Shift adds. Wheel zooms, Space and drag moves.";

/** Ten steps from blue to light yellow on the dark sheet, ever brighter, so that any colour vision can order them. */
const RAMP = ["#3a5fcd", "#4f78c4", "#6790b9", "#84a7ab", "#a3b99a", "#c0c586", "#d8cd74", "#ebd968", "#f6e66b", "#fff58a"];
const INK = "#ffffff";

/** Coordinates spread over 0-1 with a little room at the ends, so that no dot sits on the edge; and how far they reached before. */
function spread(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const size = Math.max(high - low, 1e-3),
    at = (value) => EDGE + ((1 - 2 * EDGE) * (value - low)) / size;
  return [Float32Array.from(values, at), size, at];
}

export class SampleMap {
  /** `onchoose(ids, add)` is called by the lasso, `onpick(id)` by a click. */
  constructor({ onchoose, onpick }) {
    Object.assign(this, { onchoose, onpick, view: WHOLE, colorBy: "state", layout: "looks", limits: null, data: null, shown: new Map(), chosen: new Set() });
    this.canvas = h("canvas", {
      class: "sx-map-canvas",
      tabindex: "0",
      role: "img",
      "aria-label": "Map of the images",
      "aria-describedby": "curate-map-help",
    });
    this.hover = h("div", { class: "sx-map-hover", hidden: true });
    this.note = h("div", { class: "sx-map-note" });
    this.legend = h("div", { class: "sx-map-legend" });
    this.stale = h("div", { class: "sx-map-stale", hidden: true });
    this.root = h(
      "div",
      { class: "sx-map", hidden: true },
      h(
        "div",
        { class: "sx-map-head" },
        segmented(
          "Lay out by",
          [
            ["looks", "Looks"],
            ["hard", "Hard \u00d7 right"],
          ],
          "looks",
          (name) => {
            this.layout = name;
            this.view = WHOLE;
            if (name === "hard") this.showColors("use"); // which of them look real
            act(null, () => this.load());
          },
        ),
        (this.colors = segmented(
          "Colour by",
          [
            ["state", "State"],
            ["selector", byTask("Segmenter", "Classifier")],
            ["quality", "Quality"],
            ["version", "Version"],
            ["use", "Use"],
          ],
          "state",
          (name) => {
            this.colorBy = name;
            this.draw();
          },
        )),
        this.legend,
        h("button", { type: "button", class: "sx-link", onclick: () => this.setView(WHOLE) }, "Whole map"),
      ),
      h("div", { class: "sx-map-stage" }, this.canvas, this.note, this.hover, this.stale),
      h(
        "p",
        { class: "sx-hint", id: "curate-map-help" },
        HOW,
        " Without a mouse: the same choice is made by Filters, or in the grid by ",
        kbd("Shift"),
        " with arrow keys and ",
        kbd("X"),
        ".",
      ),
    );
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerleave", () => this.showHover(-1));
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.root.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("keydown", (event) => this.space(event, true));
    document.addEventListener("keyup", (event) => this.space(event, false));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  showColors(name) {
    this.colors.set(name);
    this.colorBy = name;
  }

  get isOpen() {
    return !this.root.hidden;
  }

  /** Where each image lies between easy and hard for the segmenter, and between wrong and right for the judge. */
  layHard() {
    const items = [...(this.items?.values() ?? [])].filter((item) => item.use !== null);
    this.data = items.length ? { samples: items.map((item) => item.id), images: [], is_current: true } : null;
    if (!this.data) return;
    const { hard, faithful } = this.limits;
    const across = spread([...items.map((item) => 1 - item.selector), hard]),
      down = spread([...items.map((item) => 1 - item.judge), 1 - faithful]);
    [this.xs, this.ys] = [across[0].slice(0, -1), down[0].slice(0, -1)];
    [this.width, this.height] = [1, 1];
    this.lines = [across[2](hard), down[2](1 - faithful)];
  }

  async load() {
    if (this.layout === "hard") {
      this.layHard();
      this.showNotes();
      this.draw();
      return;
    }
    if (this.lines) this.data = this.lines = null; // the other layout's dots stand nowhere here
    const project = state.project,
      found = await get(`/api/projects/${project.id}/map`);
    if (state.project !== project || this.layout !== "looks") return;
    this.data = found.points ? found : null;
    if (this.data) {
      const [xs, ys] = this.data.points;
      [this.xs, this.width] = spread(xs);
      [this.ys, this.height] = spread(ys);
    }
    this.showNotes();
    this.draw();
  }

  showNotes() {
    const make = (text) =>
      h("button", { type: "button", class: "sx-button sx-primary", onclick: (event) => act(event.target, () => order("map", {})) }, text);
    this.note.hidden = Boolean(this.data);
    if (!this.data && this.layout === "hard")
      replace(
        this.note,
        this.limits
          ? h("p", {}, "No image has been looked at by ", byTask("segmenter", "classifier"), " and judge yet.")
          : h("p", {}, "What is hard is measured on real images of patients that the ", byTask("segmenter", "classifier"), " has not learnt from; it has looked at too few of them."),
        state.overview?.models.selector
          ? h("button", { type: "button", class: "sx-button sx-primary", onclick: (event) => act(event.target, () => order("score", {})) }, "Score the images")
          : h("p", {}, "Train the scorers first (tab Data)."),
      );
    else if (!this.data)
      replace(this.note, h("p", {}, "The map lays images that look alike side by side, synthetic and real ones."), make("Make the map"));
    this.stale.hidden = !this.data || this.data.is_current;
    if (!this.stale.hidden)
      replace(
        this.stale,
        this.data.num_newer ? `${plural(this.data.num_newer, "newer image")} not on this map. ` : "Images have changed. ",
        h("button", { type: "button", class: "sx-link", onclick: (event) => act(event.target, () => order("map", {})) }, "Update"),
      );
  }

  /** `items`: all images; `shown`: those that pass the filter; `chosen`: a Set of ids; `current`: an id; `limits`: from where on an
   * image is hard, and right; null = not known. */
  show({ items, shown, chosen, current, limits }) {
    this.items = new Map(items.map((item) => [item.id, item]));
    this.shown = new Set(shown.map((item) => item.id));
    Object.assign(this, { chosen, current, limits });
    if (this.layout === "hard") {
      this.layHard();
      this.showNotes();
    }
    this.draw();
  }

  /** The image of dot `index`; undefined for a real one. */
  itemAt(index) {
    return index < this.data.samples.length ? this.items?.get(this.data.samples[index]) : undefined;
  }
  isShown = (index) => this.shown.has(this.data.samples[index]);

  color(item) {
    if (this.colorBy === "state") return STATE_COLORS[item.curation];
    if (this.colorBy === "version") return VERSION_COLORS[this.versions.indexOf(item.version) % VERSION_COLORS.length];
    if (this.colorBy === "use") return USE_COLORS[item.use] ?? UNKNOWN;
    const value = item[this.colorBy];
    return value === null ? UNKNOWN : RAMP[Math.min(LEVELS - 1, Math.floor(value * LEVELS))];
  }

  // ---- drawing

  /** Dots of one colour are one path: 10,000 of them take a few milliseconds. */
  draw() {
    if (!this.isOpen || !this.canvas.clientWidth) return;
    const ratio = devicePixelRatio || 1,
      [w, hgt] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (this.canvas.width !== Math.round(w * ratio)) this.canvas.width = Math.round(w * ratio);
    if (this.canvas.height !== Math.round(hgt * ratio)) this.canvas.height = Math.round(hgt * ratio);
    const g = this.canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, w, hgt);
    if (!this.data || !this.items) return;
    const started = performance.now();
    this.place(w, hgt);
    if (this.lines) this.drawQuadrants(g, w, hgt);
    this.versions = [...new Set([...this.items.values()].map((item) => item.version))].sort();
    const groups = new Map(),
      rings = [];
    let ring = -1;
    for (let i = 0; i < this.sx.length; i++) {
      const item = this.itemAt(i);
      if (!item && i < this.data.samples.length) continue; // made since the facts were read
      const isOut = item && !this.shown.has(item.id);
      const key = !item ? `r${REAL}` : isOut ? `o${UNKNOWN}` : `s${this.color(item)}`;
      (groups.get(key) ?? groups.set(key, []).get(key)).push(i);
      if (item && this.chosen.has(item.id)) rings.push(i);
      if (item && item.id === this.current) ring = i;
    }
    const radius = Math.min(7, (this.sx.length > 3000 ? 2.4 : 3.6) * Math.sqrt(this.view.scale));
    const ordered = [...groups].sort(([a], [b]) => "ros".indexOf(a[0]) - "ros".indexOf(b[0]));
    for (const [key, indices] of ordered) {
      g.globalAlpha = key[0] === "o" ? 0.22 : key[0] === "r" ? 0.75 : 0.92;
      g.fillStyle = key.slice(1);
      g.beginPath();
      for (const i of indices) this.dot(g, i, radius, key[0] === "r");
      g.fill();
    }
    g.globalAlpha = 1;
    this.ring(g, rings, radius + 1.5, 1.5);
    if (ring >= 0) this.ring(g, [ring], radius + 4, 3);
    if (this.loop?.length > 1) this.drawLoop(g);
    this.root.dataset.drawMs = (performance.now() - started).toFixed(1);
    this.root.dataset.dots = this.sx.length;
    this.showLegend();
  }

  place(w, hgt) {
    // The axes of a map of looks mean nothing, so a wide screen may be filled; more would tear neighbours apart.
    const [across, down] = [w / this.width, hgt / this.height],
      wide = this.lines ? w : Math.min(across, STRETCH * down) * this.width,
      high = this.lines ? hgt : Math.min(down, STRETCH * across) * this.height,
      [left, top] = [(w - wide) / 2, (hgt - high) / 2];
    Object.assign(this, { wide, high, left, top });
    const { scale, x, y } = this.view,
      count = this.xs.length;
    if (this.sx?.length !== count) [this.sx, this.sy] = [new Float32Array(count), new Float32Array(count)];
    for (let i = 0; i < count; i++) {
      this.sx[i] = left + (this.xs[i] * scale + x) * wide;
      this.sy[i] = top + (this.ys[i] * scale + y) * high;
    }
  }
  /** The two limits, and what lies between them. */
  drawQuadrants(g, w, hgt) {
    const { scale, x, y } = this.view,
      [across, down] = [this.left + (this.lines[0] * scale + x) * this.wide, this.top + (this.lines[1] * scale + y) * this.high];
    g.strokeStyle = QUIET;
    g.setLineDash([6, 5]);
    g.lineWidth = 1;
    g.beginPath();
    g.moveTo(across, 0);
    g.lineTo(across, hgt);
    g.moveTo(0, down);
    g.lineTo(w, down);
    g.stroke();
    g.setLineDash([]);
    g.font = "600 13px system-ui, sans-serif";
    // By its axes: whether an image looks real is told by its dot. A field that is out of view, or too narrow, has no words.
    const tell = (use, words, isRight, isLow) => {
      const [from, to] = isRight ? [Math.max(0, across), w] : [0, Math.min(w, across)],
        [top, bottom] = isLow ? [Math.max(0, down), hgt] : [0, Math.min(hgt, down)];
      if (to - from < g.measureText(words).width + 20 || bottom - top < 24) return;
      g.fillStyle = USE_COLORS[use];
      g.textAlign = isRight ? "right" : "left";
      g.fillText(words, isRight ? to - 10 : from + 10, isLow ? bottom - 10 : top + 20);
    };
    tell("filler", "easy, judge finds it", false, false);
    tell("prize", "hard, judge finds it", true, false);
    tell("doubtful", "easy, judge does not", false, true);
    tell("quarantine", "hard, judge does not", true, true);
  }
  dot(g, i, radius, isSquare) {
    const [x, y] = [this.sx[i], this.sy[i]];
    if (isSquare) g.rect(x - radius * 0.8, y - radius * 0.8, radius * 1.6, radius * 1.6);
    else {
      g.moveTo(x + radius, y);
      g.arc(x, y, radius, 0, 6.2832);
    }
  }
  ring(g, indices, radius, width) {
    g.strokeStyle = INK;
    g.lineWidth = width;
    g.beginPath();
    for (const i of indices) this.dot(g, i, radius, false);
    g.stroke();
  }
  drawLoop(g) {
    g.beginPath();
    this.loop.forEach(([x, y], i) => (i ? g.lineTo(x, y) : g.moveTo(x, y)));
    g.closePath();
    g.fillStyle = "rgb(90 209 196 / 0.2)";
    g.fill();
    g.setLineDash([5, 4]);
    g.lineWidth = 1.5;
    g.strokeStyle = INK;
    g.stroke();
    g.setLineDash([]);
  }

  showLegend() {
    const key = `${this.colorBy} ${this.versions} ${this.layout}`;
    if (this.legend.dataset.key === key) return;
    this.legend.dataset.key = key;
    const entry = (color, text, kind = "") => h("span", {}, h("i", { class: kind, style: { background: color } }), text);
    const ramp = h("span", {}, "0\u00a0%", h("i", { class: "sx-ramp", style: { background: `linear-gradient(90deg, ${RAMP.join(",")})` } }), "100\u00a0%");
    replace(
      this.legend,
      this.colorBy === "state"
        ? Object.entries(STATE_COLORS).map(([name, color]) => entry(color, STATE_WORDS[name]))
        : this.colorBy === "version"
          ? this.versions.map((name, i) => entry(VERSION_COLORS[i % VERSION_COLORS.length], versionName(name)))
          : this.colorBy === "use"
            ? Object.entries(USE_WORDS).map(([name, text]) => entry(USE_COLORS[name], text))
            : [ramp, entry(UNKNOWN, "unknown")],
      this.layout === "looks" && entry(REAL, "real", "sx-square"),
    );
  }

  setView(view) {
    this.view = view;
    this.draw();
  }

  // ---- pointer

  at(event) {
    const r = this.canvas.getBoundingClientRect();
    return [event.clientX - r.left, event.clientY - r.top];
  }
  wheel(event) {
    event.preventDefault();
    if (!this.wide) return;
    const [x, y] = this.at(event);
    const options = { most: 40, margin: MARGIN };
    this.setView(zoomed(this.view, (x - this.left) / this.wide, (y - this.top) / this.high, Math.exp(-event.deltaY / 400), options));
  }
  space(event, isDown) {
    if (event.key !== " " || !this.isOpen || this.root.offsetParent === null) return;
    this.isPanning = isDown;
    this.canvas.classList.toggle("sx-panning", isDown);
    if (isDown && (event.target === document.body || this.root.contains(event.target)) && event.target.tagName !== "BUTTON")
      event.preventDefault();
  }

  down(event) {
    if (!this.data || event.button > 1) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.isPan = this.isPanning || event.button === 1;
    this.last = this.at(event);
    this.loop = this.isPan ? null : [this.last];
    const end = (ended) => {
      this.canvas.removeEventListener("pointerup", end);
      this.canvas.removeEventListener("pointercancel", end);
      const loop = this.loop;
      [this.loop, this.isPan, this.last] = [null, false, null];
      if (loop && ended.type === "pointerup") this.finish(loop, ended.shiftKey);
      this.draw();
    };
    this.canvas.addEventListener("pointerup", end);
    this.canvas.addEventListener("pointercancel", end);
  }

  move(event) {
    if (!this.data) return;
    const [x, y] = this.at(event);
    if (this.isPan) {
      this.view = panned(this.view, (x - this.last[0]) / this.wide, (y - this.last[1]) / this.high, { margin: MARGIN });
      this.last = [x, y];
      this.draw();
    } else if (this.loop) {
      const [px, py] = this.loop.at(-1);
      if (Math.hypot(x - px, y - py) < 2) return;
      this.loop.push([x, y]);
      this.showHover(-1);
      this.draw();
    } else if (this.sx) this.showHover(nearestTo(x, y, this.sx, this.sy, REACH_PX, (i) => i >= this.data.samples.length || this.isShown(i)));
  }

  /** A loop of a few pixels is a click. */
  finish(loop, adds) {
    const extent = Math.max(...loop.map(([x, y]) => Math.hypot(x - loop[0][0], y - loop[0][1])));
    if (extent < 6) {
      const hit = nearestTo(loop[0][0], loop[0][1], this.sx, this.sy, REACH_PX, this.isShown);
      if (hit >= 0) this.onpick(this.data.samples[hit], adds);
      else if (!adds) this.onchoose([], false);
      return;
    }
    const inside = enclosed(this.sx, this.sy, loop, this.isShown);
    this.onchoose(
      inside.map((i) => this.data.samples[i]),
      adds,
    );
  }

  showHover(index) {
    if (this.hovered === index) return;
    this.hovered = index;
    this.hover.hidden = index < 0;
    if (index < 0) return;
    const item = this.itemAt(index),
      blob = item?.blob ?? this.data.images[index - this.data.samples.length];
    replace(
      this.hover,
      blob && picture(urls.thumb(blob, 128), "", { loading: "eager" }),
      h("span", { class: `sx-badge sx-badge-${item ? "synthetic" : "real"}` }, item ? "SYNTHETIC" : "REAL"),
      item && h("span", {}, `No. ${item.id}, ${STATE_WORDS[item.curation]}${item.selector === null ? "" : `, ${percent(item.selector)}`}`),
    );
    const [x, y] = [this.sx[index], this.sy[index]];
    this.hover.style.left = `${Math.min(x + 12, this.canvas.clientWidth - 160)}px`;
    this.hover.style.top = `${Math.min(y + 12, this.canvas.clientHeight - 190)}px`;
  }

  key(event) {
    const factor = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 }[event.key];
    if (event.key === "0") this.setView(WHOLE);
    else if (factor) this.setView(zoomed(this.view, 0.5, 0.5, factor, { most: 40, margin: MARGIN }));
    else return;
    event.preventDefault();
  }
}
