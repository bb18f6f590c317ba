// Smart click: a click or a box becomes a mask that is shown first and painted when it is wanted. The server answers, by SAM
// or by GrabCut; here live the clicks that were made, the newest answer, and what is shown of both.
import { decode } from "./codec.js";
import { ApiError, h, kbd, post, replace, toast } from "./lib.js";
import { paintMask } from "./raster.js";

const HOVER_AFTER_MS = 120,
  OPEN_AFTER_MS = 300, // whoever leafs through the filmstrip does not want each image read
  ASK_AGAIN_MS = 1000,
  BUSY_AFTER_MS = 150,
  DRAG_PX = 5,
  MARK_PX = 6,
  FILL = 0x73,
  HOVER_FILL = 0x40;

export class Smart {
  constructor(canvas) {
    this.canvas = canvas;
    this.layer = h("canvas", { class: "sx-layer sx-layer-labels sx-layer-smart" });
    this.busy = h("div", { class: "sx-smart-busy", hidden: true });
    this.words = h("span", { class: "sx-smart-words", role: "status", "aria-live": "polite" });
    const button = (text, key, title, onclick, more = {}) =>
      h("button", { type: "button", class: "sx-button sx-small", title, onclick, ...more }, text, key && kbd(key));
    this.minus = button("Take away", "", "The next clicks lie beside the object (or: Shift + click)", () => {
      this.takesAway = !this.takesAway;
      this.show();
    });
    this.buttons = h(
      "span",
      { class: "sx-smart-buttons" },
      button("Use", "\u21b5", "Paint this in the chosen class (Enter)", () => this.use(), {
        id: "smart-use",
        class: "sx-button sx-small sx-primary",
      }),
      this.minus,
      button("Drop", "Esc", "Give this up (Esc)", () => this.drop()),
    );
    this.bar = h("div", { class: "sx-smart-bar", hidden: true }, this.buttons, this.words);
    this.number = 0; // of the newest request; older answers are dropped
    this.reset();
    this.status = null;
  }

  reset() {
    Object.assign(this, { clicks: [], box: null, mask: null, bounds: null, answer: null, hoverMask: null, takesAway: false });
    this.number++;
    this.setBusy(false);
  }

  // ---- the image

  get blob() {
    return this.canvas.picture?.src.match(/\/image\/([0-9a-f]{64})\.png/)?.[1] ?? null;
  }
  /** Another image is shown: SAM may read it while nobody has clicked yet. */
  loaded() {
    // Of no size until there is something to show: at 1920 x 1080 it takes 8 MB and 5 ms.
    this.layer.width = this.layer.height = 0;
    this.painted = null;
    this.reset();
    this.status = null;
    clearTimeout(this.opening);
    this.opening = setTimeout(() => this.open(), OPEN_AFTER_MS);
    this.show();
  }
  async open() {
    const { blob } = this;
    if (!blob) return;
    let status;
    try {
      status = await post("/api/segment/open", { image_blob: blob });
    } catch {
      status = { state: "off", method: "GrabCut", words: "the program does not answer" };
    }
    if (blob !== this.blob) return;
    const isNew = status.state === "ready" && this.status?.state !== "ready";
    this.status = status;
    this.show();
    if (isNew && this.isPending() && this.answer?.method === "GrabCut") this.ask(); // what it could not answer before
    clearTimeout(this.opening);
    if (["off", "starting", "embedding"].includes(status.state)) this.opening = setTimeout(() => this.open(), ASK_AGAIN_MS);
  }

  // ---- clicks

  isPending() {
    return !!(this.clicks.length || this.box);
  }
  click(point, isOn) {
    if (!this.canFollow(point)) return;
    if (!isOn && !this.isPending()) return toast("Click the object first, or drag a box around it; then take away.");
    this.clicks.push([...point, isOn]);
    this.ask(point);
  }
  drag(from, to) {
    if (!this.canFollow()) return;
    const cut = ([x, y]) => [clamp(x, this.canvas.w), clamp(y, this.canvas.h)];
    this.clicks = []; // they belonged to another object
    this.box = [...cut(from), ...cut(to)];
    this.ask(to);
  }
  canFollow(point) {
    if (!this.blob || !this.canvas.hasPicture) toast("A smart click goes by an image, and there is none here. Use brush or polygon.");
    else if (!point || (point[0] >= 0 && point[1] >= 0 && point[0] < this.canvas.w && point[1] < this.canvas.h)) return true;
    return false;
  }
  /** Take back the last click, or the box. */
  takeBack() {
    if (this.clicks.length) this.clicks.pop();
    else this.box = null;
    if (this.box || this.clicks.some(([, , isOn]) => isOn)) this.ask();
    else this.drop();
  }

  ask(near = null) {
    this.asking = this.asked(near);
  }
  async asked(near) {
    const number = ++this.number,
      { canvas, blob } = this;
    this.hoverMask = null;
    this.setBusy(true, near);
    this.show();
    try {
      const answer = await this.request(number, { points: this.clicks, box: this.box });
      if (number !== this.number || blob !== this.blob) return;
      Object.assign(this, { answer, ...(await masked(answer, canvas.w)) });
      if (number !== this.number) return;
      if (answer.why && this.status?.state === "ready") this.open(); // SAM has gone: ask what there is now
    } catch (error) {
      if (number !== this.number) return;
      this.clicks.length ? this.clicks.pop() : (this.box = null);
      toast(error.message, "bad");
      if (!(error instanceof ApiError)) throw error;
    } finally {
      if (number === this.number) {
        this.isBusy = false;
        this.show();
        this.setBusy(false);
      }
    }
  }
  request(number, prompt) {
    const { w, h: height } = this.canvas;
    return post("/api/segment/click", { image_blob: this.blob, w, h: height, number, ...prompt });
  }

  /** The pointer rests: show what a click here would give. Only SAM is quick enough. */
  hover(point) {
    clearTimeout(this.hovering);
    if (this.isPending() || this.status?.state !== "ready" || this.canvas.tool !== "smart" || this.canvas.stroke) return;
    this.hovering = setTimeout(async () => {
      if (this.isPending() || !point || !(point[0] >= 0 && point[1] >= 0 && point[0] < this.canvas.w && point[1] < this.canvas.h)) return;
      const number = ++this.number;
      try {
        const answer = await this.request(number, { points: [[...point, true]], is_preview: true });
        const { mask } = await masked(answer, this.canvas.w);
        if (number === this.number && !this.isPending()) this.hoverMask = mask;
      } catch {
        return; // a preview that came too late is nobody's loss
      }
      this.show();
    }, HOVER_AFTER_MS);
  }
  leave() {
    clearTimeout(this.hovering);
    if (!this.hoverMask) return;
    this.hoverMask = null;
    this.show();
  }

  // ---- the end

  /** Paint the mask in the chosen class, as one step that can be undone; an answer that is on its way is waited for. */
  async use() {
    if (!this.isPending()) return;
    const { number } = this;
    if (this.isBusy) await this.asking;
    if (number !== this.number || !this.isPending()) return; // given up, refused, or asked anew meanwhile
    const { mask, bounds, canvas } = this;
    this.reset();
    if (mask && bounds) canvas.edit((labels, w) => paintMask(labels, w, mask, bounds, canvas.pen()));
    this.show();
  }
  drop() {
    this.reset();
    this.show();
  }
  /** Keys while a mask waits. */
  key(key) {
    if (!this.isPending()) return false;
    if (key === "enter") this.use();
    else if (key === "escape") this.drop();
    else return false;
    return true;
  }

  // ---- showing

  setBusy(isBusy, near = null) {
    clearTimeout(this.waiting);
    this.isBusy = isBusy;
    const panel = this.bar.closest?.(".sx-draw");
    if (panel) panel.dataset.smart = isBusy ? "asks" : "";
    this.busy.hidden = true;
    if (!isBusy) return;
    this.waiting = setTimeout(() => {
      const { canvas } = this,
        [x, y] = near ?? canvas.hover ?? [canvas.w / 2, canvas.h / 2];
      this.busy.style.left = `${canvas.ox + x * canvas.zoom}px`;
      this.busy.style.top = `${canvas.oy + y * canvas.zoom}px`;
      this.busy.hidden = false;
      this.show();
    }, BUSY_AFTER_MS);
  }
  show() {
    const isOn = this.canvas.tool === "smart";
    this.bar.hidden = !isOn;
    this.bar.parentElement?.classList.toggle("sx-is-smart", isOn);
    this.buttons.hidden = !this.isPending();
    this.minus.setAttribute("aria-pressed", this.takesAway);
    const words = this.sentence();
    if (this.words.textContent !== words) replace(this.words, words);
    this.words.title = words;
    this.paint();
    this.canvas.drawGuide();
  }
  sentence() {
    if (!this.blob) return "A smart click goes by an image, and there is none here.";
    const method = this.answer ?? this.status,
      by = method ? (method.why || method.words ? `${method.method}: ${method.why || method.words}` : method.method) : "";
    if (this.isBusy && !this.busy.hidden) return "Looking for the border\u2026";
    // From a box alone GrabCut finds most objects, from a click about half of them; SAM does well with both.
    const how = method?.method === "GrabCut" ? "Drag a box around an object, or click it." : "Click an object, or drag a box around it.";
    if (!this.isPending()) return `${how} ${by}`;
    return `${this.mask && !this.bounds ? "Nothing found here; drag a box around it. " : ""}${by}`;
  }
  paint() {
    const { w, h: height, lut, classIndex } = this.canvas,
      mask = this.mask ?? this.hoverMask,
      context = this.layer.getContext("2d");
    if (!w || !height) return;
    // Zooming and panning call this as well: nothing new, nothing to do.
    const key = [mask, mask === this.mask, classIndex, lut[classIndex], this.canvas.tool === "smart"];
    if (this.painted?.every((part, i) => part === key[i])) return;
    this.painted = key;
    if (!mask || mask.length !== w * height || this.canvas.tool !== "smart") {
      if (this.layer.width) context.clearRect(0, 0, w, height);
      return;
    }
    if (this.layer.width !== w || this.layer.height !== height) Object.assign(this.layer, { width: w, height });
    const color = (lut[classIndex] || 0xffffffff) & 0xffffff,
      picture = context.createImageData(w, height),
      pixels = new Uint32Array(picture.data.buffer),
      fill = (color | ((this.mask ? FILL : HOVER_FILL) << 24)) >>> 0,
      line = 0xffffffff; // white: over a mask of the same class its colour could not be seen
    for (let i = 0; i < mask.length; i++)
      if (mask[i]) {
        const x = i % w,
          isEdge = !x || x === w - 1 || !mask[i - 1] || !mask[i + 1] || i < w || !mask[i - w] || i + w >= mask.length || !mask[i + w];
        pixels[i] = isEdge ? line : fill;
      }
    context.putImageData(picture, 0, 0);
  }
  /** The box, and a plus or a minus for each click. */
  lines() {
    const found = [],
      r = MARK_PX / this.canvas.zoom;
    if (this.box) found.push(outlineOf(this.box));
    for (const [x, y, isOn] of this.clicks) {
      found.push([[x - r, y], [x + r, y]]); // prettier-ignore
      if (isOn) found.push([[x, y - r], [x, y + r]]); // prettier-ignore
    }
    return found;
  }
}

/** The tool's hand: a short press is a click, a longer way is a box. */
export const smartTool = {
  down(canvas, point, event) {
    const isOff = event.button === 2 || event.shiftKey || event.altKey || canvas.smart.takesAway;
    canvas.smart.leave();
    canvas.stroke = { from: point, to: point, isOff };
  },
  move(canvas, point) {
    canvas.stroke.to = point;
  },
  up(canvas, { from, to, isOff }) {
    const isDrag = Math.hypot(to[0] - from[0], to[1] - from[1]) * canvas.zoom > DRAG_PX;
    if (isDrag && !isOff) canvas.smart.drag(from, to);
    else canvas.smart.click(from, !isOff);
  },
  guide(canvas) {
    const { stroke } = canvas,
      lines = canvas.smart.lines();
    return stroke && !stroke.isOff && stroke.to ? [...lines, outlineOf([...stroke.from, ...stroke.to])] : lines;
  },
};

const clamp = (value, high) => Math.min(Math.max(value, 0), high);
const outlineOf = ([a, b, c, d]) => [[a, b], [c, b], [c, d], [a, d], [a, b]]; // prettier-ignore

/** The mask of an answer, and the box [x0, y0, x1, y1] of its pixels; null when it has none. */
async function masked(answer, w) {
  const mask = await decode(answer.mask);
  return { mask, bounds: boundsOf(mask, w) };
}
export function boundsOf(mask, w) {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -1, -1];
  for (let i = mask.indexOf(1); i >= 0; i = mask.indexOf(1, i + 1)) {
    const x = i % w,
      y = (i - x) / w;
    x0 = Math.min(x0, x);
    x1 = Math.max(x1, x);
    y0 = Math.min(y0, y);
    y1 = Math.max(y1, y);
  }
  return x1 < 0 ? null : [x0, y0, x1, y1];
}
