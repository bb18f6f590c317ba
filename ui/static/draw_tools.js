// The tools of the canvas: buttons, sliders, classes, and the line of keys. What was chosen last comes back next time.
import { h, kbd, replace } from "./lib.js";

const TOOLS = [
  ["brush", "Brush", "B"],
  ["erase", "Eraser", "E"],
  ["fill", "Fill", "G"],
  ["polygon", "Polygon", "P"],
];

export class DrawTools {
  constructor(canvas) {
    this.canvas = canvas;
    this.bar = h("div", { class: "sx-toolbar", role: "toolbar", "aria-label": "Tools" });
    this.palette = h("div", { class: "sx-palette", role: "toolbar", "aria-label": "Classes" });
    this.hint = h("span", { class: "sx-hint" });
    this.restore();
    this.build();
  }

  build() {
    const button = (text, key, title, onclick, dataset = {}) =>
      h("button", { type: "button", class: "sx-tool", title, "aria-label": title, dataset, onclick }, text, key && kbd(key));
    this.undo = button("\u21b6", "", "Undo (Ctrl+Z)", () => this.canvas.undoStep());
    this.redo = button("\u21b7", "", "Redo (Ctrl+Shift+Z)", () => this.canvas.redoStep());
    this.sizeInput = h("input", {
      type: "range",
      min: 1,
      max: 80,
      value: this.canvas.size,
      "aria-label": "Brush size in pixels",
      oninput: () => this.canvas.setSize(+this.sizeInput.value),
    });
    this.opacityInput = h("input", {
      type: "range",
      min: 0,
      max: 1,
      step: 0.05,
      value: this.canvas.opacity,
      "aria-label": "Mask opacity",
      oninput: () => this.canvas.setOpacity(+this.opacityInput.value),
    });
    this.sizeText = h("output", {});
    replace(
      this.bar,
      TOOLS.map(([tool, text, key]) => button(text, key, `${text} (${key})`, () => this.canvas.setTool(tool), { tool })),
      h("span", { class: "sx-gap" }),
      this.undo,
      this.redo,
      button("Fit", "F", "Fit to the window (F)", () => this.canvas.fit()),
      h("span", { class: "sx-gap" }),
      h("label", { class: "sx-slider" }, "Size", this.sizeInput, this.sizeText),
    );
  }

  restore() {
    const kept = JSON.parse(localStorage.getItem("saadi.draw.tools") ?? "{}");
    for (const name of ["tool", "classIndex", "size"]) if (kept[name] !== undefined) this.canvas[name] = kept[name];
    if (kept.opacity !== undefined) this.canvas.setOpacity(kept.opacity);
  }

  show() {
    const { canvas } = this;
    localStorage.setItem(
      "saadi.draw.tools",
      JSON.stringify({ tool: canvas.tool, classIndex: canvas.classIndex, size: canvas.size, opacity: canvas.opacity }),
    );
    this.bar
      .querySelectorAll("[data-tool]")
      .forEach((node) => node.setAttribute("aria-pressed", node.dataset.tool === canvas.tool));
    [...this.palette.children].forEach((node) =>
      node.setAttribute("aria-pressed", +node.dataset.index === canvas.classIndex && canvas.tool !== "erase"),
    );
    this.undo.disabled = !canvas.undo.length;
    this.redo.disabled = !canvas.redo.length;
    this.sizeInput.value = canvas.size;
    this.sizeText.textContent = `${canvas.size} px`;
    if (!this.hint.firstChild)
      replace(
        this.hint,
        kbd("0"),
        "-",
        kbd("9"),
        " class  ",
        kbd("["),
        kbd("]"),
        " size  ",
        kbd("Wheel"),
        " zoom  ",
        kbd("Space"),
        " move  ",
        kbd("H"),
        " hide mask  ",
        kbd("Q"),
        " last tool",
        h("span", { class: "sx-zoom" }),
      );
    this.hint.lastChild.textContent = canvas.w
      ? `${canvas.w} \u00d7 ${canvas.h} px \u00b7 ${Math.round(100 * canvas.zoom)} %`
      : "";
  }

  showClasses(classes) {
    replace(
      this.palette,
      classes.map((item) =>
        h(
          "button",
          {
            type: "button",
            class: "sx-class",
            dataset: { index: item.index },
            style: { "--c": item.index ? item.color : "transparent" },
            onclick: () => this.canvas.setClass(item.index),
          },
          kbd(item.index < 10 ? String(item.index) : ""),
          h("span", { class: "sx-dot" }),
          item.name,
        ),
      ),
    );
  }
}
