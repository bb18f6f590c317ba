// The mask canvas. The label map (one byte per pixel) is the only truth; canvases show it, so neither antialiasing nor
// the screen's pixel ratio can change a label. Every tool paints inside begin()/end(); end() keeps an undo step.
import { flood, paintCapsule, paintPolygon } from "./raster.js";
import { h } from "./lib.js";

const MAX_UNDO = 200,
  MIN_ZOOM = 0.05,
  MAX_ZOOM = 40;

export class MaskCanvas {
  /** `onCommit(labels)` after each finished edit; `onChange()` when tool, class, zoom or hover change. */
  constructor({ onCommit, onChange }) {
    Object.assign(this, {
      onCommit,
      onChange,
      w: 0,
      h: 0,
      labels: new Uint8Array(0),
      classes: [],
      classIndex: 1,
      tool: "brush",
      lastTool: "erase",
    });
    Object.assign(this, {
      size: 14,
      opacity: 0.4,
      undo: [],
      redo: [],
      zoom: 1,
      ox: 0,
      oy: 0,
      polygon: [],
      hover: null,
      isSpace: false,
      isFitted: true,
    });
    this.imageLayer = h("canvas", { class: "sx-layer" });
    this.labelLayer = h("canvas", { class: "sx-layer sx-layer-labels" });
    this.stage = h("div", { class: "sx-stage" }, this.imageLayer, this.labelLayer);
    this.guide = h("canvas", { class: "sx-guide" });
    this.cursor = h("div", { class: "sx-cursor", hidden: true });
    this.view = h(
      "div",
      { class: "sx-view", tabindex: "0", role: "application", "aria-label": "Mask canvas" },
      this.stage,
      this.guide,
      this.cursor,
    );
    this.lut = new Uint32Array(256);
    this.setOpacity(this.opacity);
    this.listen();
  }

  load({ w, h: height, labels, image, classes }) {
    Object.assign(this, { w, h: height, labels, classes, undo: [], redo: [], polygon: [], stroke: null });
    for (const layer of [this.imageLayer, this.labelLayer]) {
      layer.width = w;
      layer.height = height;
    }
    Object.assign(this.stage.style, { width: `${w}px`, height: `${height}px` });
    this.lut.fill(0);
    for (const item of classes) if (item.index) this.lut[item.index] = packed(item.color);
    this.lut[255] = 0xff808080;
    this.classIndex = Math.min(this.classIndex, classes.length - 1);
    this.blit([0, 0, w - 1, height - 1]);
    this.showImage(image);
    this.fit();
    this.onChange();
  }

  async showImage(source) {
    const context = this.imageLayer.getContext("2d");
    this.imageSource = source;
    context.fillStyle = "#15181c";
    context.fillRect(0, 0, this.w, this.h);
    if (!source) return;
    const picture = new Image();
    picture.fetchPriority = "high"; // before the filmstrip, which asks for dozens
    picture.src = source;
    await picture.decode();
    if (this.imageSource === source) context.drawImage(picture, 0, 0, this.w, this.h);
  }

  // ---- editing

  begin() {
    this.before = this.labels.slice();
    this.box = null;
  }
  touched(box) {
    if (!box) return;
    this.box = this.box
      ? [
          Math.min(this.box[0], box[0]),
          Math.min(this.box[1], box[1]),
          Math.max(this.box[2], box[2]),
          Math.max(this.box[3], box[3]),
        ]
      : box;
    this.schedule(box);
  }
  end() {
    if (this.before && this.box) {
      const was = crop(this.before, this.w, this.box),
        now = crop(this.labels, this.w, this.box);
      if (was.some((value, index) => value !== now[index])) {
        this.undo.push({ box: this.box, was, now });
        if (this.undo.length > MAX_UNDO) this.undo.shift();
        this.redo = [];
        this.onCommit(this.labels);
      }
    }
    this.before = null;
    this.onChange();
  }
  step(from, to, side) {
    if (this.stroke) return;
    const entry = from.pop();
    if (!entry) return;
    paste(this.labels, this.w, entry.box, entry[side]);
    to.push(entry);
    this.schedule(entry.box);
    this.onCommit(this.labels);
    this.onChange();
  }
  undoStep() {
    this.step(this.undo, this.redo, "was");
  }
  redoStep() {
    this.step(this.redo, this.undo, "now");
  }
  /** Replace everything as one undoable edit. */
  replaceAll(labels) {
    this.begin();
    this.labels.set(labels);
    this.touched([0, 0, this.w - 1, this.h - 1]);
    this.end();
  }

  paint(x0, y0, x1, y1) {
    this.touched(paintCapsule(this.labels, this.w, this.h, x0, y0, x1, y1, this.size / 2, this.stroke.value));
  }
  fillAt(x, y) {
    if (x < 0 || y < 0 || x >= this.w || y >= this.h) return;
    this.begin();
    this.touched(flood(this.labels, this.w, this.h, Math.floor(x), Math.floor(y), this.classIndex));
    this.end();
  }
  closePolygon() {
    const points = this.polygon;
    this.polygon = [];
    if (points.length > 2) {
      this.begin();
      this.touched(paintPolygon(this.labels, this.w, this.h, points, this.classIndex));
      this.end();
    }
    this.drawGuide();
  }

  // ---- showing

  schedule(box) {
    (this.dirty ??= []).push(box);
    this.frame ??= requestAnimationFrame(() => {
      const boxes = this.dirty;
      this.dirty = [];
      this.frame = null;
      this.blit([
        Math.min(...boxes.map((b) => b[0])),
        Math.min(...boxes.map((b) => b[1])),
        Math.max(...boxes.map((b) => b[2])),
        Math.max(...boxes.map((b) => b[3])),
      ]);
    });
  }
  blit([x0, y0, x1, y1]) {
    x1 = Math.min(x1, this.w - 1);
    y1 = Math.min(y1, this.h - 1);
    const w = x1 - x0 + 1,
      height = y1 - y0 + 1;
    if (w < 1 || height < 1) return;
    const context = this.labelLayer.getContext("2d"),
      part = context.createImageData(w, height),
      pixels = new Uint32Array(part.data.buffer);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < w; x++) pixels[y * w + x] = this.lut[this.labels[(y + y0) * this.w + x + x0]];
    context.putImageData(part, x0, y0);
  }
  place() {
    this.stage.style.transform = `translate(${this.ox}px,${this.oy}px) scale(${this.zoom})`;
    this.imageLayer.style.imageRendering = this.zoom > 6 ? "pixelated" : "auto";
    this.moveCursor();
    this.drawGuide();
    this.onChange();
  }
  fit() {
    const { width, height } = this.view.getBoundingClientRect();
    if (!this.w || !width) return;
    this.zoom = Math.min(width / this.w, height / this.h);
    this.ox = (width - this.w * this.zoom) / 2;
    this.oy = (height - this.h * this.zoom) / 2;
    this.isFitted = true;
    this.place();
  }
  zoomAt(x, y, factor) {
    const zoom = Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, this.zoom * factor));
    this.ox = x - ((x - this.ox) * zoom) / this.zoom;
    this.oy = y - ((y - this.oy) * zoom) / this.zoom;
    this.zoom = zoom;
    this.isFitted = false;
    this.place();
  }
  setOpacity(value) {
    this.opacity = value;
    this.labelLayer.style.opacity = value;
  }
  setHidden(hidden) {
    this.labelLayer.style.visibility = hidden ? "hidden" : "visible";
  }
  setSize(value) {
    this.size = Math.max(1, Math.min(200, value));
    this.moveCursor();
    this.onChange();
  }
  setTool(tool) {
    if (tool !== this.tool) this.lastTool = this.tool;
    this.tool = tool;
    this.polygon = [];
    this.drawGuide();
    this.moveCursor();
    this.onChange();
  }
  setClass(index) {
    this.classIndex = index;
    if (this.tool === "erase") this.setTool("brush");
    this.moveCursor();
    this.onChange();
  }
  moveCursor() {
    const isRound = ["brush", "erase"].includes(this.tool) && this.hover && !this.isSpace;
    this.cursor.hidden = !isRound;
    this.view.style.cursor = this.isSpace || this.pan ? "grab" : isRound ? "none" : "crosshair";
    if (!isRound) return;
    const side = Math.max(3, this.size * this.zoom);
    Object.assign(this.cursor.style, {
      left: `${this.ox + this.hover[0] * this.zoom}px`,
      top: `${this.oy + this.hover[1] * this.zoom}px`,
      width: `${side}px`,
      height: `${side}px`,
      borderColor: this.tool === "erase" || !this.classIndex ? "#fff" : (this.classes[this.classIndex]?.color ?? "#fff"),
    });
  }
  drawGuide() {
    const { width, height } = this.view.getBoundingClientRect(),
      ratio = devicePixelRatio || 1;
    if (!this.polygon.length) {
      this.guide.hidden = true;
      return;
    }
    this.guide.hidden = false;
    Object.assign(this.guide, { width: width * ratio, height: height * ratio });
    const context = this.guide.getContext("2d"),
      at = ([x, y]) => [this.ox + x * this.zoom, this.oy + y * this.zoom];
    context.scale(ratio, ratio);
    for (const [color, line] of [
      ["#000", 4],
      ["#fff", 2],
    ]) {
      Object.assign(context, { strokeStyle: color, lineWidth: line });
      context.beginPath();
      [...this.polygon, this.hover ?? this.polygon.at(-1)].forEach((point) => context.lineTo(...at(point)));
      context.stroke();
    }
    context.fillStyle = "#fff";
    this.polygon.forEach((point) => {
      const [x, y] = at(point);
      context.fillRect(x - 3, y - 3, 6, 6);
    });
  }

  // ---- pointer and keys

  at(event) {
    const r = this.view.getBoundingClientRect();
    return [(event.clientX - r.left - this.ox) / this.zoom, (event.clientY - r.top - this.oy) / this.zoom];
  }

  listen() {
    const view = this.view;
    view.addEventListener("pointerdown", (event) => this.down(event));
    view.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) view.addEventListener(name, () => this.up());
    view.addEventListener("pointerleave", () => {
      if (!this.stroke) {
        this.hover = null;
        this.moveCursor();
      }
    });
    view.addEventListener("contextmenu", (event) => event.preventDefault());
    view.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const r = view.getBoundingClientRect();
        this.zoomAt(event.clientX - r.left, event.clientY - r.top, Math.exp(-event.deltaY / 400));
      },
      { passive: false },
    );
    new ResizeObserver(() => (this.isFitted ? this.fit() : this.place())).observe(view);
  }
  down(event) {
    this.view.focus({ preventScroll: true });
    if (!this.w) return;
    try {
      this.view.setPointerCapture(event.pointerId);
    } catch {
      /* a synthetic pointer has no capture */
    }
    const [x, y] = this.at(event);
    if (event.button === 1 || this.isSpace) {
      this.pan = [event.clientX - this.ox, event.clientY - this.oy];
      return;
    }
    if (this.tool === "brush" || this.tool === "erase") {
      this.begin();
      this.stroke = { x, y, value: this.tool === "erase" || event.button === 2 ? 0 : this.classIndex };
      this.paint(x, y, x, y);
    } else if (this.tool === "fill") this.fillAt(x, y);
    else if (this.tool === "polygon") {
      if (event.button === 2 || event.detail === 2) return this.closePolygon();
      this.polygon.push([x, y]);
      this.drawGuide();
    }
  }
  move(event) {
    this.hover = this.at(event);
    if (this.pan) {
      this.ox = event.clientX - this.pan[0];
      this.oy = event.clientY - this.pan[1];
      this.isFitted = false;
      return this.place();
    }
    if (this.stroke) {
      const parts = event.getCoalescedEvents?.() ?? [];
      for (const part of parts.length ? parts : [event]) {
        const [x, y] = this.at(part);
        this.paint(this.stroke.x, this.stroke.y, x, y);
        Object.assign(this.stroke, { x, y });
      }
    }
    this.moveCursor();
    if (this.polygon.length) this.drawGuide();
  }
  up() {
    this.pan = null;
    if (this.stroke) {
      this.stroke = null;
      this.end();
    }
    this.moveCursor();
  }

  /** Handle one key; returns true when it was ours. */
  key(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") {
        event.shiftKey ? this.redoStep() : this.undoStep();
        return true;
      }
      if (key === "y") {
        this.redoStep();
        return true;
      }
      return false;
    }
    if (event.altKey) return false;
    const tools = { b: "brush", e: "erase", g: "fill", p: "polygon" };
    if (key >= "0" && key <= "9" && key.length === 1) {
      if (+key < this.classes.length) this.setClass(+key);
    } else if (tools[key]) this.setTool(tools[key]);
    else if (key === "[" || key === "]") this.setSize(this.size + (key === "]" ? 2 : -2));
    else if (key === "q") this.setTool(this.lastTool);
    else if (key === "f") this.fit();
    else if (key === "h") this.setHidden(true);
    else if (key === " ") {
      this.isSpace = true;
      this.moveCursor();
    } else if (key === "enter" && this.polygon.length) this.closePolygon();
    else if (key === "escape" && this.polygon.length) {
      this.polygon = [];
      this.drawGuide();
    } else return false;
    return true;
  }
  keyUp(event) {
    if (event.key === " ") {
      this.isSpace = false;
      this.moveCursor();
    }
    if (event.key.toLowerCase() === "h") this.setHidden(false);
  }
}

/** '#rrggbb' as a little-endian RGBA word. */
export function packed(color) {
  const n = parseInt(color.slice(1), 16);
  return ((255 << 24) | ((n & 255) << 16) | (n & 0xff00) | (n >> 16)) >>> 0;
}
function crop(labels, width, [x0, y0, x1, y1]) {
  const w = x1 - x0 + 1,
    part = new Uint8Array(w * (y1 - y0 + 1));
  for (let y = y0; y <= y1; y++) part.set(labels.subarray(y * width + x0, y * width + x1 + 1), (y - y0) * w);
  return part;
}
function paste(labels, width, [x0, y0, x1, y1], part) {
  const w = x1 - x0 + 1;
  for (let y = y0; y <= y1; y++) labels.set(part.subarray((y - y0) * w, (y - y0 + 1) * w), y * width + x0);
}
