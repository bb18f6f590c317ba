// Two to four images side by side: one zoom for all, so that the same spot is seen in each; decisions per image.
import { curate, DECISIONS } from "./detail.js";
import { WHOLE, panned, zoomed } from "./lasso.js";
import { act, badge, byTask, emit, get, h, isClassification, kbd, on, percent, replace, segmented, urls } from "./lib.js";

export const MAX_COMPARED = 4;
const WORDS = { pending: "open", accepted: "accepted", rejected: "rejected", quarantined: "quarantine" };
const FINE = 3; // from this zoom on single pixels are shown as they are

const open = new Set(); // comparisons on the screen, to show what was decided elsewhere (an undo)
on("samples", (change) => change?.states && open.forEach((view) => view.patch(change.states)));

/** `items`: samples (with `id`), or real images `{ kind: "real", blob, label_map_blob, title }`. */
export async function openCompare(items) {
  const dialog = h("dialog", { class: "sx-dialog sx-compare", "aria-label": "Compare images" });
  const panels = await Promise.all(items.slice(0, MAX_COMPARED).map(asPanel));
  const view = new Comparison(dialog, panels);
  document.body.append(dialog);
  dialog.showModal();
  view.choose(0);
  return view;
}

async function asPanel(item) {
  if (item.kind === "real") return { ...item, prediction: null, ...(isClassification() && { label_map_blob: null }) };
  const sample = await get(`/api/samples/${item.id}`);
  return {
    kind: sample.is_composite ? "edited" : "synthetic",
    sample,
    blob: sample.blob,
    label_map_blob: isClassification() ? null : sample.label_map_blob,
    prediction: isClassification() ? null : (sample.scores.selector?.prediction_blob ?? null),
    title: `No. ${sample.id}`,
    words: sample.words,
    note: sample.dice === null ? "" : `${isClassification() ? "classifier" : "segmenter"} ${percent(sample.dice)}, judge ${percent(sample.judge_dice)}`,
  };
}

class Comparison {
  constructor(dialog, panels) {
    Object.assign(this, { dialog, panels, view: WHOLE, mode: "image", showsOutline: true, current: 0 });
    const modes = [
      ["image", "Image"],
      ...(isClassification() ? [] : [["asked", "Mask"]]),
      ...(panels.some((panel) => panel.prediction) ? [["differ", "Disagreement"]] : []),
    ];
    this.zoomText = h("output", { class: "sx-note", "aria-live": "polite" }, "100\u00a0%");
    dialog.append(
      h(
        "div",
        { class: "sx-compare-head" },
        h("b", {}, `Compare ${panels.length} images`),
        modes.length > 1 &&
          segmented("View", modes, this.mode, (mode) => {
            this.mode = mode;
            this.draw();
          }),
        this.zoomText,
        h("button", { type: "button", class: "sx-link", onclick: () => this.setView(WHOLE) }, "Whole image", kbd("0")),
        h("span", { class: "sx-hint" }, byTask(["Wheel zooms all, drag moves all, hold ", kbd("H"), " hides the outline"], "Wheel zooms all, drag moves all")),
        h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => dialog.close() }, "\u00d7"),
      ),
      h(
        "div",
        { class: "sx-compare-row", dataset: { count: panels.length } },
        panels.map((panel, index) => this.build(panel, index)),
      ),
    );
    this.draw();
    dialog.addEventListener("keydown", (event) => this.key(event));
    dialog.addEventListener("keyup", (event) => {
      if (event.key.toLowerCase() === "h") this.showOutline(true);
    });
    dialog.addEventListener("close", () => {
      open.delete(this);
      dialog.remove();
    });
    open.add(this);
  }

  build(panel, index) {
    panel.stage = h("div", { class: "sx-compare-stage" });
    panel.frame = h("div", { class: "sx-compare-frame" }, panel.stage, badge(panel.kind));
    panel.foot = h("div", { class: "sx-compare-foot" });
    panel.root = h(
      "figure",
      { class: "sx-compare-panel", tabindex: "0", "aria-label": `${index + 1}: ${panel.title}` },
      panel.frame,
      panel.foot,
    );
    panel.root.addEventListener("focus", () => this.mark(index));
    panel.frame.addEventListener("wheel", (event) => this.wheel(event, panel.frame), { passive: false });
    panel.frame.addEventListener("pointerdown", (event) => this.drag(event, panel.frame));
    panel.frame.addEventListener("dblclick", () => this.setView(WHOLE));
    this.drawFoot(panel);
    return panel.root;
  }

  drawFoot(panel) {
    const { sample } = panel;
    replace(
      panel.foot,
      h("b", {}, panel.title),
      h("span", { class: "sx-note" }, sample ? [panel.note, sample.curation !== "pending" && ` \u00b7 ${WORDS[sample.curation]}`] : ""),
      h("p", { class: "sx-words" }, panel.words ?? ""),
      sample &&
        h(
          "div",
          { class: "sx-decisions" },
          DECISIONS.map(([curation, text, key]) =>
            h(
              "button",
              {
                type: "button",
                class: `sx-button sx-small sx-${curation}`,
                "aria-pressed": String(sample.curation === curation),
                onclick: () => this.decide(panel, curation),
              },
              text,
              kbd(key),
            ),
          ),
        ),
    );
  }

  /** A second press of the same decision takes it back. */
  decide(panel, curation) {
    const { sample } = panel,
      wanted = sample?.curation === curation ? "pending" : curation;
    if (!sample) return;
    return act(null, () => curate({ [sample.id]: wanted }));
  }
  patch(states) {
    for (const panel of this.panels) {
      if (!panel.sample || !(panel.sample.id in states)) continue;
      panel.sample.curation = states[panel.sample.id];
      const isFocused = panel.foot.contains(document.activeElement);
      this.drawFoot(panel);
      if (isFocused) panel.root.focus();
    }
  }

  draw() {
    for (const panel of this.panels) {
      const image = (source, className = "") => h("img", { src: source, alt: "", class: className, draggable: "false" });
      const map = panel.label_map_blob;
      const shown = {
        image: [image(urls.image(panel.blob)), map && image(urls.outline(map, panel.blob), "sx-compare-outline")],
        asked: [map ? image(urls.mask(map, 1024)) : h("p", { class: "sx-empty" }, "This image has no mask.")],
        differ: [
          panel.prediction
            ? image(urls.disagreement(map, panel.prediction, 1024))
            : h("p", { class: "sx-empty" }, "No prediction for this image."),
        ],
      }[this.mode];
      replace(panel.stage, shown);
    }
    this.setView(this.view);
  }

  // ---- one view for all

  setView(view) {
    this.view = view;
    this.dialog.dataset.zoom = view.scale.toFixed(3);
    this.zoomText.textContent = `${Math.round(100 * view.scale)}\u00a0%`;
    for (const { stage } of this.panels) {
      stage.style.transform = `translate(${100 * view.x}%, ${100 * view.y}%) scale(${view.scale})`;
      stage.classList.toggle("sx-fine", view.scale >= FINE);
    }
  }
  wheel(event, frame) {
    event.preventDefault();
    const r = frame.getBoundingClientRect();
    const [x, y] = [(event.clientX - r.left) / r.width, (event.clientY - r.top) / r.height];
    this.setView(zoomed(this.view, x, y, Math.exp(-event.deltaY / 400)));
  }
  drag(event, frame) {
    if (event.button > 1) return;
    frame.setPointerCapture(event.pointerId);
    const r = frame.getBoundingClientRect();
    let [x, y] = [event.clientX, event.clientY];
    const move = (moved) => {
      this.setView(panned(this.view, (moved.clientX - x) / r.width, (moved.clientY - y) / r.height));
      [x, y] = [moved.clientX, moved.clientY];
    };
    const end = () => {
      frame.removeEventListener("pointermove", move);
      frame.removeEventListener("pointerup", end);
      frame.removeEventListener("pointercancel", end);
    };
    frame.addEventListener("pointermove", move);
    frame.addEventListener("pointerup", end);
    frame.addEventListener("pointercancel", end);
  }

  showOutline(shown) {
    this.dialog.classList.toggle("sx-no-outline", !shown);
  }

  choose(index) {
    this.panels[(index + this.panels.length) % this.panels.length].root.focus();
  }
  mark(index) {
    this.current = index;
    this.panels.forEach((panel, at) => panel.root.classList.toggle("sx-current", at === index));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase(),
      decision = DECISIONS.find(([, , letter]) => letter.toLowerCase() === key);
    if (key === "h") this.showOutline(false);
    else if (decision && !event.repeat) this.decide(this.panels[this.current], decision[0]);
    else if (key === "z") emit("undo");
    else if (key === "arrowright") this.choose(this.current + 1);
    else if (key === "arrowleft") this.choose(this.current - 1);
    else if (/^[1-4]$/.test(key) && this.panels[key - 1]) this.choose(key - 1);
    else if (key === "0") this.setView(WHOLE);
    else if (key === "+" || key === "=") this.setView(zoomed(this.view, 0.5, 0.5, 1.4));
    else if (key === "-") this.setView(zoomed(this.view, 0.5, 0.5, 1 / 1.4));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
