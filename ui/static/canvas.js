// The mask canvas. The label map (one byte per pixel) is the only truth; canvases show it, so neither antialiasing nor
// the screen's pixel ratio can change a label. Every tool paints inside begin()/end(); end() keeps an undo step.
import { joined, makeEraser, makePen, paintCapsule, paintPolygon, paintSquare } from "./raster.js";
import { applyMove, pickClass, relabelSelected, selectionOf, TOOLS } from "./strokes.js";
import { h } from "./lib.js";
import { Smart } from "./smart.js";

const MAX_UNDO = 500,
  MAX_UNDO_BYTES = 256e6, // wide edits of large masks take megabytes each
  TAP_SLACK_PX = 8,
  MIN_ZOOM = 0.05,
  MAX_ZOOM = 40;

export class MaskCanvas {
  /** `onCommit(labels, step)` after each finished edit, `step` = {index, entry, before} unless it went back or forth in history;
   * `onChange()` when tool, class, zoom or hover change. */
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
      rule: "overwrite", // what strokes may paint over: "overwrite" all, "protect" other classes, stay "inside" one class
      insideClass: 0,
      erasesOnly: false, // the eraser clears the chosen class only
      isSquare: false,
      tolerance: 24,
      isOutlined: false,
      isHatched: false,
      hiddenClasses: new Set(),
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
      selection: null,
      lastPoint: null,
      fingers: new Map(),
      hover: null,
      isSpace: false,
      isFitted: true,
    });
    this.imageLayer = h("canvas", { class: "sx-layer" });
    this.labelLayer = h("canvas", { class: "sx-layer sx-layer-labels" });
    this.smart = new Smart(this);
    this.stage = h("div", { class: "sx-stage" }, this.imageLayer, this.labelLayer, this.smart.layer);
    this.guide = h("canvas", { class: "sx-guide" });
    this.cursor = h("div", { class: "sx-cursor", hidden: true });
    this.view = h(
      "div",
      { class: "sx-view", tabindex: "0", role: "application", "aria-label": "Mask canvas" },
      this.stage,
      this.guide,
      this.cursor,
      this.smart.busy,
    );
    this.lut = new Uint32Array(256);
    this.setOpacity(this.opacity);
    this.listen();
  }

  load({ w, h: height, labels, picture, classes }) {
    Object.assign(this, { w, h: height, labels, classes, undo: [], redo: [], polygon: [], stroke: null });
    Object.assign(this, { before: null, box: null, undoBytes: 0, firstStep: 0, tap: null, hasPicture: false });
    Object.assign(this, { selection: null, lastPoint: null, pixels: null, hiddenClasses: new Set() });
    Object.assign(this, { base: labels.slice(), model: null, shown: "edit", coming: null });
    for (const layer of [this.imageLayer, this.labelLayer]) {
      layer.width = w;
      layer.height = height;
    }
    Object.assign(this.stage.style, { width: `${w}px`, height: `${height}px` });
    if (this.classIndex !== UNSURE) this.classIndex = Math.min(this.classIndex, classes.length - 1);
    this.insideClass = Math.min(this.insideClass, classes.length - 1);
    this.fillLut();
    this.blitAll();
    this.showPicture(picture);
    this.smart.loaded();
    this.fit();
    this.onChange();
  }

  /** `picture`: an image element that is loading (see `loading` in lib.js), or null. */
  async showPicture(picture) {
    this.picture = picture;
    this.hasPicture = false;
    if (!picture) return;
    await picture.decode();
    if (this.picture !== picture) return;
    this.imageLayer.getContext("2d").drawImage(picture, 0, 0, this.w, this.h);
    this.pixels = null;
    this.hasPicture = true;
  }
  /** RGBA of the image at the label map's size, or null while there is none. */
  imagePixels() {
    if (!this.hasPicture) return null;
    this.pixels ??= this.imageLayer.getContext("2d").getImageData(0, 0, this.w, this.h).data;
    return this.pixels;
  }

  // ---- editing

  /** What the present tool paints with, by its class and the rule for what lies there already. */
  pen(erases = false) {
    // "Only this class" is the eraser's; of background there is nothing to erase.
    if (erases) return makeEraser(this.tool === "erase" && this.erasesOnly && this.classIndex ? this.classIndex : null);
    return makePen(this.classIndex, { rule: this.rule, inside: this.insideClass });
  }
  /** One undoable edit: `change(labels, w, h)` gives the box that it touched, or null. */
  edit(change) {
    const goesOn = this.before !== null && this.stroke; // a stroke is under way: what it has so far becomes a step
    if (goesOn) this.end();
    this.selection = null; // chosen pixels may have become others
    this.begin();
    this.touched(change(this.labels, this.w, this.h));
    this.end();
    if (goesOn) this.begin();
  }
  begin() {
    this.before = this.labels.slice();
    this.box = null;
  }
  touched(box) {
    if (!box) return;
    this.box = joined(this.box, box);
    this.schedule(box);
  }
  /** Give up an edit that has begun. */
  revert() {
    if (this.before) {
      this.labels.set(this.before);
      if (this.box) this.schedule(this.box);
    }
    this.before = this.box = this.stroke = null;
  }
  end() {
    const box = this.before && this.box && changedBox(this.before, this.labels, this.w, this.box);
    if (box) {
      const entry = { box, was: crop(this.before, this.w, box), now: crop(this.labels, this.w, box) };
      this.undo.push(entry);
      this.undoBytes += 2 * entry.was.length;
      const index = this.firstStep + this.undo.length - 1;
      while (this.undo.length > MAX_UNDO || (this.undoBytes > MAX_UNDO_BYTES && this.undo.length > 1)) {
        this.undoBytes -= 2 * this.undo.shift().was.length;
        this.firstStep++;
      }
      this.redo.forEach((old) => (this.undoBytes -= 2 * old.was.length));
      this.redo = [];
      this.onCommit(this.labels, { index, entry, before: this.before });
    }
    this.before = this.box = null;
    this.onChange();
  }
  /** What an edit under way has painted so far becomes a step, and the edit is over. */
  finish() {
    if (this.before) this.end();
    this.stroke = null;
  }
  step(from, to, side) {
    if (this.stroke) return;
    const entry = from.pop();
    if (!entry) return;
    paste(this.labels, this.w, entry.box, entry[side]);
    to.push(entry);
    this.selection = null;
    this.drawGuide();
    this.schedule(entry.box);
    this.onCommit(this.labels);
    this.onChange();
  }
  undoStep() {
    this.afterSteps(() => this.step(this.undo, this.redo, "was"));
  }
  redoStep() {
    this.afterSteps(() => this.step(this.redo, this.undo, "now"));
  }
  /** Do it now, or once the history of an earlier visit has been read. */
  afterSteps(act) {
    const { coming, labels } = this;
    if (coming) coming.then(() => labels === this.labels && act());
    else act();
  }
  /** Take up the history of an earlier visit when it is read (`coming`, a promise), unless somebody has drawn by then. */
  async restoreSteps(coming) {
    this.coming = coming;
    const { undo, redo, first } = await coming;
    if (this.coming !== coming) return; // another mask was opened
    this.coming = null;
    if (this.undo.length || this.redo.length || this.stroke) return;
    Object.assign(this, { undo, redo, firstStep: first });
    this.undoBytes = [...undo, ...redo].reduce((sum, step) => sum + 2 * step.was.length, 0);
    this.onChange();
  }
  /** Replace everything as one undoable edit. */
  replaceAll(labels) {
    this.begin();
    this.labels.set(labels);
    this.touched([0, 0, this.w - 1, this.h - 1]);
    this.end();
  }

  paint([x0, y0], [x1, y1]) {
    const draw = this.isSquare ? paintSquare : paintCapsule;
    this.touched(draw(this.labels, this.w, this.h, x0, y0, x1, y1, this.size / 2, this.stroke.pen));
  }
  select(mask) {
    this.selection = selectionOf(mask, this.labels, this.w);
    this.drawGuide();
    this.onChange();
  }
  closePolygon() {
    const points = this.polygon;
    this.polygon = [];
    if (points.length > 2) this.edit((labels, w, h) => paintPolygon(labels, w, h, points, this.pen()));
    this.drawGuide();
  }

  // ---- showing

  schedule(box) {
    (this.dirty ??= []).push(box);
    this.frame ??= requestAnimationFrame(() => {
      const boxes = this.dirty;
      this.dirty = [];
      this.frame = null;
      const [x0, y0, x1, y1] = boxes.reduce(joined);
      this.blit([Math.max(0, x0 - 1), Math.max(0, y0 - 1), x1 + 1, y1 + 1]); // outlines reach one pixel further
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
    const { source, against } = this.layers(),
      lut = against ? this.changesLut() : this.lut,
      gaps = this.isHatched ? this.hatchLut(lut) : lut,
      period = hatchPeriod(this.w);
    const isPlain = !against && !this.isOutlined && !this.isHatched; // by far the most frequent, and four times as fast
    for (let y = 0; isPlain && y < height; y++)
      for (let k = y * w, i = (y + y0) * this.w + x0, last = k + w; k < last; ) pixels[k++] = lut[source[i++]];
    for (let y = 0; !isPlain && y < height; y++)
      for (let x = 0; x < w; x++) {
        const i = (y + y0) * this.w + x + x0,
          value = source[i];
        const isHidden = against ? value === against[i] : this.isOutlined && !this.isEdge(source, i, x + x0);
        pixels[y * w + x] = isHidden ? 0 : this.isHatched && isGap(value, x + x0, y + y0, period) ? gaps[value] : lut[value];
      }
    context.putImageData(part, x0, y0);
  }
  blitAll() {
    this.blit([0, 0, this.w - 1, this.h - 1]);
  }
  /** The label map that is shown and, where only differences are, the one it is held against. */
  layers() {
    const { labels, base, model } = this;
    return {
      edit: { source: labels },
      base: { source: base },
      changes: { source: labels, against: base },
      model: { source: model ?? labels },
      differs: { source: model ?? labels, against: labels },
    }[this.shown];
  }
  /** Classes told apart by pattern as well as by colour. */
  setHatched(isHatched) {
    this.isHatched = isHatched;
    this.blitAll();
    this.onChange();
  }
  hatchLut(lut) {
    return lut.map((word) => (word ? darker(word) : 0));
  }
  /** What is cleared to background shows as well where only changes are shown. */
  changesLut() {
    const lut = this.lut.slice();
    lut[0] = 0xffffffff;
    return lut;
  }
  /** Show the mask as it is ("edit"), as it was when it was opened ("base"), or only what differs ("changes"); or what a model
   * sees in the image ("model"), or where it sees something else ("differs"). */
  setShown(shown) {
    this.shown = shown;
    this.blitAll();
    this.onChange();
  }
  isEdge(labels, i, x) {
    const { w } = this,
      own = labels[i];
    return (
      (x > 0 && labels[i - 1] !== own) ||
      (x < w - 1 && labels[i + 1] !== own) ||
      (i >= w && labels[i - w] !== own) ||
      (i + w < labels.length && labels[i + w] !== own)
    );
  }
  fillLut() {
    this.lut.fill(0);
    for (const item of this.classes)
      if (item.index && !this.hiddenClasses.has(item.index)) this.lut[item.index] = packed(item.color);
    if (!this.hiddenClasses.has(UNSURE)) this.lut[UNSURE] = 0xff808080;
  }
  toggleClass(index) {
    if (!this.hiddenClasses.delete(index)) this.hiddenClasses.add(index);
    this.fillLut();
    this.blitAll();
    this.onChange();
  }
  setOutlined(isOutlined) {
    this.isOutlined = isOutlined;
    this.blitAll();
    this.onChange();
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
  /** The point in the middle of the window, in pixels of the label map, and the zoom. */
  centre() {
    const { width, height } = this.view.getBoundingClientRect();
    return { x: (width / 2 - this.ox) / this.zoom, y: (height / 2 - this.oy) / this.zoom, zoom: this.zoom };
  }
  show({ x, y, zoom }) {
    const { width, height } = this.view.getBoundingClientRect();
    if (!width) return;
    Object.assign(this, { zoom, ox: width / 2 - x * zoom, oy: height / 2 - y * zoom, isFitted: false });
    this.place();
  }
  /** One pixel of the label map on one of the screen, about the middle. */
  actualSize() {
    const { width, height } = this.view.getBoundingClientRect();
    this.zoomAt(width / 2, height / 2, 1 / (this.zoom * (devicePixelRatio || 1)));
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
    if (tool !== this.tool && this.tool !== "pick") this.lastTool = this.tool;
    if (tool !== this.tool) this.smart.use(); // what is shown is wanted
    this.tool = tool;
    this.polygon = [];
    this.selection = null;
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
      borderRadius: this.isSquare ? "0" : "50%",
      borderColor: this.tool === "erase" || !this.classIndex ? "#fff" : (this.classes[this.classIndex]?.color ?? "#fff"),
    });
  }
  drawGuide() {
    const { width, height } = this.view.getBoundingClientRect(),
      ratio = devicePixelRatio || 1,
      lines = TOOLS[this.tool].guide?.(this) ?? [];
    this.guide.hidden = !lines.length;
    if (!lines.length) return;
    Object.assign(this.guide, { width: width * ratio, height: height * ratio });
    const context = this.guide.getContext("2d"),
      at = ([x, y]) => [this.ox + x * this.zoom, this.oy + y * this.zoom];
    context.scale(ratio, ratio);
    for (const [color, line] of [
      ["#000", 4],
      ["#fff", 2],
    ])
      for (const points of lines) {
        Object.assign(context, { strokeStyle: color, lineWidth: line });
        context.beginPath();
        points.forEach((point) => context.lineTo(...at(point)));
        context.stroke();
      }
    context.fillStyle = "#fff";
    const dots = this.tool === "polygon" ? this.polygon : this.tool === "move" ? [lines[0][2], lines[1][1]] : [];
    for (const point of dots) {
      const [x, y] = at(point);
      context.fillRect(x - 5, y - 5, 10, 10);
    }
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
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) view.addEventListener(name, (event) => this.up(event));
    view.addEventListener("pointerleave", () => {
      if (!this.stroke) {
        this.hover = null;
        this.smart.leave();
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
    if (event.pointerType === "touch") {
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.fingers.size > 1) {
        this.tap = null;
        return this.revert(); // two fingers move and zoom; what the first drew is taken back
      }
    }
    if (event.button === 1 || this.isSpace) {
      this.pan = [event.clientX - this.ox, event.clientY - this.oy];
      return;
    }
    // What acts at once waits for the finger to lift: it may be the first of two.
    if (event.pointerType === "touch" && !DRAGGED.includes(this.tool)) this.tap = event;
    else this.start(event);
  }
  start(event) {
    if (["base", "model"].includes(this.shown)) this.setShown("edit"); // a stroke that cannot be seen would be a surprise
    const point = this.at(event),
      tool = TOOLS[this.tool];
    if (event.altKey && this.tool !== "smart") pickClass(this, point);
    else tool.down(this, point, event);
    if (this.stroke) this.stroke.tool = tool;
    this.drawGuide();
  }
  move(event) {
    if (this.fingers.has(event.pointerId) && this.fingers.size > 1) return this.pinch(event);
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    this.hover = this.at(event);
    if (this.pan) {
      this.ox = event.clientX - this.pan[0];
      this.oy = event.clientY - this.pan[1];
      this.isFitted = false;
      return this.place();
    }
    if (this.tap && Math.hypot(event.clientX - this.tap.clientX, event.clientY - this.tap.clientY) > TAP_SLACK_PX) {
      if (this.tool === "move") this.start(this.tap);
      this.tap = null;
    }
    if (this.stroke) {
      const parts = event.getCoalescedEvents?.() ?? [];
      for (const part of parts.length ? parts : [event]) this.stroke.tool.move?.(this, this.at(part), part);
    }
    this.moveCursor();
    if (this.tool === "smart") this.smart.hover(this.hover);
    if (this.stroke || this.polygon.length) this.drawGuide();
  }
  pinch(event) {
    const middle = () => {
      const points = [...this.fingers.values()];
      return [0, 1].map((axis) => (points[0][axis] + points[1][axis]) / 2);
    };
    const spread = () => {
      const [[ax, ay], [bx, by]] = [...this.fingers.values()];
      return Math.max(1, Math.hypot(ax - bx, ay - by));
    };
    const [x0, y0] = middle(),
      before = spread();
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const [x1, y1] = middle(),
      r = this.view.getBoundingClientRect();
    this.ox += x1 - x0;
    this.oy += y1 - y0;
    this.zoomAt(x1 - r.left, y1 - r.top, spread() / before);
  }
  up(event) {
    this.fingers.delete(event.pointerId);
    this.pan = null;
    if (this.tap && event.type === "pointerup") this.start(this.tap);
    this.tap = null;
    const { stroke } = this;
    try {
      stroke?.tool.up?.(this, stroke);
    } finally {
      this.stroke = null;
    }
    this.drawGuide();
    this.moveCursor();
  }

  /** Whether Escape would give up something here. */
  isBusy() {
    return !!(this.polygon.length || this.selection || this.stroke || this.smart.isPending());
  }

  /** Handle one key; returns true when it was ours. */
  key(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") {
        if (this.smart.isPending() && !event.shiftKey) this.smart.takeBack();
        else event.shiftKey ? this.redoStep() : this.undoStep();
        return true;
      }
      if (key === "y") {
        this.redoStep();
        return true;
      }
      return false;
    }
    if (event.altKey) return false;
    if (this.stroke) return true; // a tool is not changed in the middle of its stroke
    const on = event.composedPath()[0];
    if ((key === " " || key === "enter") && on.closest?.("button,summary")) return false;
    if (key.startsWith("arrow") && on.closest?.("input")) return false;
    if (this.smart.key(key)) return true;
    if (this.selection && this.selectionKey(KEY_OF_CODE[event.code] ?? key, event.shiftKey)) return true;
    if (key >= "0" && key <= "9" && key.length === 1) {
      if (+key < this.classes.length) this.setClass(+key);
    } else if (TOOL_KEYS[key]) this.setTool(TOOL_KEYS[key]);
    else if (key === "u") this.setClass(UNSURE);
    else if (key === "o") this.setOutlined(!this.isOutlined);
    else if (key === "t") this.setHatched(!this.isHatched);
    else if (key === "n") this.actualSize();
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
  /** Keys that work on the chosen shapes. */
  selectionKey(key, isFar) {
    const far = isFar ? 10 : 1,
      turn = (Math.PI / 180) * (isFar ? 15 : 3);
    const moves = {
      arrowleft: { dx: -far },
      arrowright: { dx: far },
      arrowup: { dy: -far },
      arrowdown: { dy: far },
      ",": { angle: -turn },
      ".": { angle: turn },
      "+": { scale: 1.1 },
      "-": { scale: 1 / 1.1 },
    };
    if (moves[key]) applyMove(this, moves[key]);
    else if (key === "delete" || key === "backspace") relabelSelected(this, 0);
    else if (key === "enter") relabelSelected(this, this.classIndex);
    else if (key === "escape") this.select(null);
    else return false;
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

export const UNSURE = 255;
export const TOOL_KEYS = {
  b: "brush",
  e: "erase",
  p: "polygon",
  l: "lasso",
  r: "box",
  g: "fill",
  w: "wand",
  s: "smart",
  i: "pick",
  v: "move",
};

/** Shift turns these into other characters, which differ by keyboard. */
const KEY_OF_CODE = { Comma: ",", Period: "." };
/** Tools that only begin at the first touch; what they began can be taken back. */
const DRAGGED = ["brush", "erase", "lasso", "box", "smart"];

// Patterns by class, repeating after six; the class chips wear the same.
const PATTERNS = [
  (x, y, n) => (x + y) % (2 * n) < n,
  (x, y, n) => (x - y + 4096 * n) % (2 * n) < n,
  (x, y, n) => y % (2 * n) < n,
  (x, y, n) => x % (2 * n) < n,
  (x, y, n) => x % (2 * n) < n && y % (2 * n) < n,
  (x, y, n) => x % (2 * n) < n !== y % (2 * n) < n,
];
const isGap = (value, x, y, period) => value > 0 && PATTERNS[(value - 1) % PATTERNS.length](x, y, period);
/** Width of a stripe in pixels of the label map: about 36 stripes across. */
const hatchPeriod = (width) => Math.max(2, Math.round(width / 72));
const darker = (word) => ((word & 0xff000000) | ((word >>> 1) & 0x007f7f7f)) >>> 0;

/** '#rrggbb' as a little-endian RGBA word. */
export function packed(color) {
  const n = parseInt(color.slice(1), 16);
  return ((255 << 24) | ((n & 255) << 16) | (n & 0xff00) | (n >> 16)) >>> 0;
}
/** The smallest box within `box` that holds all differences, or null. */
function changedBox(before, after, width, [x0, y0, x1, y1]) {
  let box = null;
  for (let y = y0; y <= y1; y++) {
    let a = y * width + x0,
      b = y * width + x1;
    while (a <= b && before[a] === after[a]) a++;
    if (a > b) continue;
    while (before[b] === after[b]) b--;
    box = joined(box, [a - y * width, y, b - y * width, y]);
  }
  return box;
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
