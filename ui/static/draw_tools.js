// The tools of the canvas: icons, sliders, rules, classes, what a class measures, and the card of keys. What was chosen last
// comes back next time.
import { UNSURE } from "./canvas.js";
import { h, kbd, patterns, remember, replace, svg } from "./lib.js";
import { makePen } from "./raster.js";
import { measured } from "./measuring.js";
import { copyClass, dropIslands, fillHoles, grow, shrink, smooth } from "./shapes.js";

// name, key, title, path of its icon on a field of 20 x 20
const TOOLS = [
  ["brush", "B", "Brush", "M3 17c3 0 4-1 4-3s2-2 3-1 1 4-2 5-5 0-5-1zM9 12 16 3l2 2-7 9"],
  ["erase", "E", "Eraser", "M3 13 11 4l6 5-7 8H6zM7 9l6 5"],
  ["polygon", "P", "Polygon", "M4 7 11 3l6 6-3 8H6zM4 7v.1M11 3v.1M17 9v.1M14 17v.1M6 17v.1"],
  ["lasso", "L", "Lasso", "M6 14C2 12 2 5 9 4s9 5 5 8-7 2-8 2 0 4-2 4"],
  ["box", "R", "Box", "M3 5h14v10H3z"],
  ["fill", "G", "Fill", "M4 10 10 4l6 6-6 6zM10 4 8 2M17 13c1.500 2 1.500 4 0 4s-1.500-2 0-4"],
  ["wand", "W", "Magic wand", "M3 17 12 8M14 2v4M12 4h4M17 8v3M15.500 9.500h3M9 3v2M8 4h2"],
  ["smart", "S", "Smart click", "M4 2v12l3-3 2 5 2-1-2-5h4zM14 3v4M12 5h4M16 9v2M15 10h2"],
  ["pick", "I", "Pick class", "M4 16v-3l7-7 3 3-7 7zM10 5l5 5M13 4l2-2 3 3-2 2"],
  ["move", "V", "Move shape", "M10 2v16M2 10h16M8 4l2-2 2 2M8 16l2 2 2-2M4 8l-2 2 2 2M16 8l2 2-2 2"],
];
const RULES = [
  ["overwrite", "Over all"],
  ["protect", "Protect others"],
];
const KEPT = ["tool", "classIndex", "size", "opacity", "rule", "erasesOnly", "isSquare", "tolerance", "isHatched"];
const MEASURE_AFTER_MS = 150;

export class DrawTools {
  /** `onModel()` fetches what the segmenter sees into `canvas.model`; false when there is nothing to show. */
  constructor(canvas, { onModel }) {
    Object.assign(this, { canvas, onModel, areas: null });
    this.bar = h("div", { class: "sx-toolbar", role: "toolbar", "aria-label": "Tools" });
    this.palette = h("div", { class: "sx-palette", role: "toolbar", "aria-label": "Classes" });
    this.hint = h("div", { class: "sx-hint" });
    this.measured = h("span", { class: "sx-measured", role: "status" });
    this.zoomText = h("span", { class: "sx-zoom" });
    this.restore();
    this.build();
  }

  build() {
    const { canvas } = this;
    const button = (text, title, onclick, attributes = {}) =>
      h("button", { type: "button", class: "sx-tool", title, "aria-label": title, onclick, ...attributes }, text);
    const slider = (label, attributes, oninput) => {
      const input = h("input", { type: "range", "aria-label": label, oninput: () => oninput(+input.value), ...attributes });
      return input;
    };
    this.undo = button("\u21b6", "Undo (Ctrl+Z)", () => (canvas.smart.isPending() ? canvas.smart.takeBack() : canvas.undoStep()));
    this.redo = button("\u21b7", "Redo (Ctrl+Shift+Z)", () => canvas.redoStep());
    this.sizeInput = slider("Brush size in pixels", { min: 1, max: 200 }, (value) => canvas.setSize(value));
    this.toleranceInput = slider("Tolerance of the wand", { min: 0, max: 128 }, (value) => this.set("tolerance", value));
    this.opacityInput = slider("Mask opacity", { min: 0, max: 1, step: 0.05, value: canvas.opacity }, (value) =>
      canvas.setOpacity(value),
    );
    this.sliderText = h("output", {});
    this.slider = h("label", { class: "sx-slider" }, this.sizeInput, this.toleranceInput, this.sliderText);
    this.square = button("\u25a0", "Square brush", () => this.set("isSquare", !canvas.isSquare));
    this.only = button("only this class", "The eraser clears the chosen class only", () =>
      this.set("erasesOnly", !canvas.erasesOnly),
    );
    this.rule = h("select", {
      class: "sx-rule",
      "aria-label": "What strokes may paint over",
      title: "What strokes may paint over",
      onchange: () => this.setRule(this.rule.value),
    });
    this.outline = button("\u25a2", "Outlines only (O)", () => canvas.setOutlined(!canvas.isOutlined));
    this.hatch = button("\u25a8", "Patterns: tell classes apart without colour (T)", () => canvas.setHatched(!canvas.isHatched));
    replace(
      this.bar,
      h(
        "span",
        { class: "sx-tools" },
        TOOLS.map(([tool, key, title, path]) =>
          button([icon(path), kbd(key)], `${title} (${key})`, () => canvas.setTool(tool), { dataset: { tool } }),
        ),
      ),
      this.undo,
      this.redo,
      this.slider,
      this.square,
      this.only,
      this.rule,
      this.shapeMenu(),
    );
    this.shown = h("select", {
      class: "sx-rule",
      "aria-label": "Which mask is shown",
      title: "Which mask is shown",
      onchange: () => this.choose(this.shown.value),
    });
    replace(
      this.shown,
      [
        ["edit", "My mask"],
        ["base", "As opened"],
        ["changes", "Changes"],
        ["model", "Segmenter"],
        ["differs", "Disagreement"],
      ].map(([value, text]) => h("option", { value }, text)),
    );
    this.viewBar = h(
      "div",
      { class: "sx-view-bar", role: "toolbar", "aria-label": "View" },
      this.shown,
      this.opacityInput,
      this.outline,
      this.hatch,
      button("Fit", "Fit to the window (F)", () => canvas.fit()),
      button("1:1", "One pixel of the mask on one of the screen (N)", () => canvas.actualSize()),
      button("?", "All keys (?)", () => showKeys()),
    );
    replace(this.hint, canvas.smart.bar, this.measured, this.zoomText, this.viewBar);
  }

  /** Show another layer; what the segmenter sees is fetched when it is first asked for. */
  async choose(shown) {
    const { canvas } = this;
    canvas.view.focus({ preventScroll: true });
    const isModel = ["model", "differs"].includes(shown);
    if (isModel && !canvas.model) {
      this.shown.value = canvas.shown;
      this.shown.disabled = true;
      this.measured.textContent = "The segmenter is looking\u2026";
      const isThere = await this.onModel();
      this.shown.disabled = false;
      if (!isThere) return this.show();
    }
    canvas.setShown(shown);
  }

  /** Edits of the chosen class as a whole. */
  shapeMenu() {
    const { canvas } = this;
    const amount = h("input", { type: "number", min: 1, max: 50, value: 2, "aria-label": "Pixels" });
    const px = () => Math.max(1, Math.min(50, Math.round(+amount.value) || 1));
    const pen = () => makePen(canvas.classIndex, { rule: canvas.rule, inside: canvas.insideClass });
    const entries = [
      ["Fill holes", (l, w, height) => fillHoles(l, w, height, canvas.classIndex)],
      ["Drop islands under 0.05 %", (l, w, height) => dropIslands(l, w, height, canvas.classIndex, Math.ceil(l.length / 2000))],
      ["Smooth", (l, w, height) => smooth(l, w, height, px(), pen())],
      ["Grow", (l, w, height) => grow(l, w, height, px(), pen())],
      ["Shrink", (l, w, height) => shrink(l, w, height, px(), canvas.classIndex)],
    ];
    const menu = h(
      "details",
      { class: "sx-menu" },
      h("summary", { class: "sx-tool", title: "Edit the chosen class as a whole" }, "Shape"),
      h(
        "div",
        { class: "sx-menu-body" },
        (this.shapeTitle = h("b", {})),
        entries.map(([text, change]) =>
          h("button", { type: "button", class: "sx-button sx-small", onclick: () => canvas.edit(change) }, text),
        ),
        h("label", { class: "sx-menu-amount" }, "by", amount, "px"),
        (this.takeOver = h(
          "button",
          { type: "button", class: "sx-button sx-small", onclick: () => canvas.edit((l, w) => copyClass(l, w, canvas.model, pen())) },
          "Take the segmenter's",
        )),
      ),
    );
    // On a narrow screen the button stands at the left edge.
    menu.addEventListener("toggle", () =>
      menu.classList.toggle("sx-opens-right", menu.getBoundingClientRect().left < 2 * menu.offsetWidth),
    );
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      menu.open = false;
      menu.firstChild.focus();
      event.stopPropagation();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!menu.contains(event.target)) menu.open = false;
    });
    return menu;
  }

  set(name, value) {
    this.canvas[name] = value;
    this.canvas.moveCursor();
    this.show();
  }
  setRule(value) {
    const { canvas } = this;
    if (value.startsWith("inside-")) Object.assign(canvas, { rule: "inside", insideClass: +value.slice(7) });
    else canvas.rule = value;
    canvas.view.focus({ preventScroll: true }); // in the list, the next tool key would choose another rule
    this.show();
  }

  restore() {
    const kept = JSON.parse(localStorage.getItem("saadi.draw.tools") ?? "{}");
    for (const name of KEPT) if (kept[name] !== undefined) this.canvas[name] = kept[name];
    if (!TOOLS.some(([tool]) => tool === this.canvas.tool)) this.canvas.tool = "brush";
    if (!["overwrite", "protect"].includes(this.canvas.rule)) this.canvas.rule = "overwrite"; // classes differ by project
    this.canvas.setOpacity(this.canvas.opacity);
  }

  show() {
    const { canvas } = this,
      paints = ["brush", "erase"].includes(canvas.tool);
    remember("saadi.draw.tools", JSON.stringify(Object.fromEntries(KEPT.map((name) => [name, canvas[name]]))));
    this.bar
      .querySelectorAll("[data-tool]")
      .forEach((node) => node.setAttribute("aria-pressed", node.dataset.tool === canvas.tool));
    for (const node of this.palette.querySelectorAll(".sx-class")) {
      const index = +node.dataset.index;
      node.setAttribute("aria-pressed", index === canvas.classIndex && canvas.tool !== "erase");
      node.previousSibling.setAttribute("aria-pressed", canvas.hiddenClasses.has(index));
    }
    canvas.smart.show();
    this.undo.disabled = !canvas.undo.length && !canvas.smart.isPending();
    this.redo.disabled = !canvas.redo.length;
    this.slider.hidden = !paints && canvas.tool !== "wand";
    this.sizeInput.hidden = !paints;
    this.toleranceInput.hidden = canvas.tool !== "wand";
    this.square.hidden = !paints;
    this.only.hidden = canvas.tool !== "erase";
    this.rule.hidden = canvas.tool === "erase"; // which has a rule of its own
    this.sizeInput.value = canvas.size;
    this.toleranceInput.value = canvas.tolerance;
    this.sliderText.textContent = paints ? `${canvas.size} px` : `\u00b1 ${canvas.tolerance}`;
    this.square.setAttribute("aria-pressed", canvas.isSquare);
    this.only.setAttribute("aria-pressed", canvas.erasesOnly);
    this.outline.setAttribute("aria-pressed", canvas.isOutlined);
    this.hatch.setAttribute("aria-pressed", canvas.isHatched);
    this.palette.classList.toggle("sx-hatched", canvas.isHatched);
    patterns.isOn = canvas.isHatched;
    this.takeOver.hidden = !canvas.model;
    this.shown.value = canvas.shown;
    this.rule.value = canvas.rule === "inside" ? `inside-${canvas.insideClass}` : canvas.rule;
    this.shapeTitle.textContent = this.nameOf(canvas.classIndex);
    this.zoomText.textContent = canvas.w
      ? `${canvas.w} \u00d7 ${canvas.h} px \u00b7 ${Math.round(100 * canvas.zoom)} %`
      : "";
    clearTimeout(this.measuring);
    this.measuring = setTimeout(() => this.measure(), MEASURE_AFTER_MS);
  }

  nameOf(index) {
    return index === UNSURE ? "unsure" : (this.classes?.[index]?.name ?? "");
  }

  /** Area, parts and holes of the chosen class, once the hand rests. */
  async measure() {
    const { canvas } = this,
      { labels } = canvas;
    if (!canvas.w || canvas.stroke || !this.bar.offsetParent) return;
    const all = await measured(labels, canvas.w, canvas.h);
    if (labels !== canvas.labels) return; // another mask is open by now
    const found = all.get(canvas.classIndex),
      name = this.nameOf(canvas.classIndex);
    const count = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;
    const share = found ? found.pixels / canvas.labels.length : 0;
    const parts = found && [`${(100 * share).toFixed(1)} %`, count(found.components, "part"), count(found.holes, "hole")];
    replace(
      this.measured,
      h("span", {}, h("b", {}, name), " ", parts ? parts.join(" \u00b7 ") : "not drawn"),
      h("span", {}, this.rarity(canvas.classIndex, share)),
    );
  }

  /** How usual the chosen class and its size are among the real masks. */
  rarity(index, share) {
    if (!this.areas?.masks || !index || index === UNSURE) return "";
    const known = this.areas.classes[index];
    if (!known) return "in no real mask";
    const words = `in ${Math.round(100 * known.share)} % of real masks`;
    if (!share) return words;
    const rank = known.areas.filter((area) => area < share).length / known.areas.length;
    return `${words}, ${rank > 0.95 ? "larger than nearly all" : rank < 0.05 ? "smaller than nearly all" : "usual size"}`;
  }

  showClasses(classes) {
    this.classes = classes;
    const { canvas } = this;
    if (canvas.rule === "inside") canvas.rule = "overwrite"; // of another project's class
    // The coloured square hides and shows its class; the rest of the chip chooses it.
    const chip = (index, key, name, color) =>
      h(
        "span",
        { class: "sx-chip", style: { "--c": color } },
        h(
          "button",
          {
            type: "button",
            class: "sx-eye",
            title: `Hide or show ${name}`,
            "aria-label": `Hide ${name}`,
            disabled: !index,
            onclick: () => canvas.toggleClass(index),
          },
          h("span", { class: "sx-dot", dataset: { hatch: index && index !== UNSURE ? (index - 1) % 6 : "" } }),
        ),
        h(
          "button",
          { type: "button", class: "sx-class", dataset: { index }, onclick: () => canvas.setClass(index) },
          name,
          kbd(key),
        ),
      );
    replace(
      this.palette,
      classes.map((item) =>
        chip(item.index, item.index < 10 ? String(item.index) : "", item.name, item.index ? item.color : "transparent"),
      ),
      chip(UNSURE, "U", "unsure", "#808080"),
    );
    replace(
      this.rule,
      [...RULES, ...classes.map((item) => [`inside-${item.index}`, `Inside ${item.name}`])].map(([value, text]) =>
        h("option", { value }, text),
      ),
    );
  }
}

function icon(path) {
  const picture = svg("svg", { viewBox: "0 0 20 20", class: "sx-icon-line", "aria-hidden": "true" });
  picture.append(svg("path", { d: path }));
  return picture;
}

const KEYS = [
  ["0 - 9", "choose a class"],
  ["U", "unsure: left out of training"],
  ["B  E", "brush, eraser"],
  ["P  L  R", "polygon, lasso, box"],
  ["G  W", "fill, magic wand"],
  ["S", "smart click: click an object or drag a box around it"],
  ["Enter  Esc", "use or drop what the smart click found (Shift + click takes away)"],
  ["I or Alt + click", "pick the class under the pointer"],
  ["V", "move, turn or scale a shape; Shift + click adds one"],
  ["Arrows  ,  .", "move or turn the chosen shape (Shift: further)"],
  ["+  -", "scale the chosen shape"],
  ["Delete  Enter", "remove the chosen shape, make it the chosen class"],
  ["[  ]", "brush size"],
  ["Shift + click", "straight line from the last stroke"],
  ["Right button", "erase with brush, lasso, box, fill or wand"],
  ["Ctrl + Z, Ctrl + Shift + Z", "undo, redo"],
  ["Wheel or two fingers", "zoom at the pointer"],
  ["Space + drag", "move the picture"],
  ["F  N", "fit to the window, 1:1"],
  ["H  O  T", "hide the mask while held, outlines only, patterns"],
  ["Q", "last tool"],
  ["Enter  Esc", "close or give up a polygon"],
  ["Ctrl + Enter", "four variants of this mask"],
  ["Esc, Shift + Esc", "stop the running order, stop all of mine"],
  ["C", "while held: the images before, of the same seeds"],
];

/** All keys on a card. */
export function showKeys() {
  const card = h(
    "dialog",
    { class: "sx-dialog sx-keys", "aria-label": "Keys" },
    h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => card.close() }, "\u00d7"),
    h("h2", {}, "Keys"),
    h(
      "dl",
      {},
      KEYS.map(([keys, text]) => [h("dt", {}, keys.split(/  +/).map((key) => kbd(key))), h("dd", {}, text)]),
    ),
  );
  card.addEventListener("close", () => card.remove());
  card.addEventListener("keydown", (event) => event.stopPropagation()); // reading about a key must not press it
  card.addEventListener("click", (event) => {
    if (event.target === card) card.close();
  });
  document.body.append(card);
  card.showModal();
}
