// Looking closely at one or two pictures: the same zoom and place in all frames, the mask's outline and the difference on demand.
import { h } from "./lib.js";

const MAX_ZOOM = 12,
  STEP = 1.4,
  GAIN = 4; // a difference of 64 of 255 is white

/** A view is a zoom and the shift of the picture in parts of the frame; the picture always covers its frame. */
export const WHOLE = { zoom: 1, x: 0, y: 0 };

/** Zoom so that the point under (x, y), in parts of the frame, stays where it is. */
export function zoomAt(view, factor, x, y) {
  const zoom = Math.max(1, Math.min(MAX_ZOOM, view.zoom * factor)),
    ratio = zoom / view.zoom;
  return within({ zoom, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio });
}

export const panBy = (view, dx, dy) => within({ ...view, x: view.x + dx, y: view.y + dy });

function within({ zoom, x, y }) {
  const clamp = (value) => Math.min(0, Math.max(1 - zoom, value));
  return { zoom, x: clamp(x), y: clamp(y) };
}

/** Grey picture of how far two pictures (RGBA bytes) are apart, times four; alpha is opaque. */
export function difference(first, second) {
  const out = new Uint8ClampedArray(first.length);
  for (let i = 0; i < first.length; i += 4) {
    const apart = Math.max(
      Math.abs(first[i] - second[i]),
      Math.abs(first[i + 1] - second[i + 1]),
      Math.abs(first[i + 2] - second[i + 2]),
    );
    out[i] = out[i + 1] = out[i + 2] = GAIN * apart;
    out[i + 3] = 255;
  }
  return out;
}

/** Pixels of a decoded picture at a given size. */
function pixels(image, width, height) {
  const canvas = h("canvas", { width, height }),
    context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

export class Look {
  /** `frames`: elements that hold a stage each; `images()` gives the two pictures to compare, or null. */
  constructor(root, frames, images = () => null) {
    Object.assign(this, { root, frames, images, view: WHOLE, held: new Set() });
    for (const { frame } of frames) {
      frame.addEventListener("wheel", (event) => this.wheel(event, frame), { passive: false });
      frame.addEventListener("dblclick", (event) => {
        const [x, y] = place(event, frame);
        this.set(this.view.zoom > 1 ? WHOLE : zoomAt(WHOLE, 3, x, y));
      });
      this.drag(frame);
    }
    this.outlineBox = this.box("Mask outline", "H", true);
    this.outlineBox.classList.add("sx-mask-only");
    this.differenceBox = this.box("Difference", "D", false);
    document.addEventListener("keyup", (event) => this.release(event.key.toLowerCase()));
    addEventListener("blur", () => [...this.held].forEach((key) => this.release(key)));
  }

  box(text, key, checked) {
    const input = h("input", { type: "checkbox", checked, onchange: () => this.apply() });
    const label = h("label", { class: "sx-check" }, input, text, h("kbd", {}, key));
    label.input = input;
    return label;
  }

  reset() {
    this.set(WHOLE);
    this.differenceBox.input.checked = false;
    this.apply();
  }

  set(view) {
    this.view = view;
    for (const { frame, stage } of this.frames) {
      stage.style.transform = `translate(${100 * view.x}%, ${100 * view.y}%) scale(${view.zoom})`;
      frame.classList.toggle("sx-zoomed", view.zoom > 1);
    }
    this.root.dataset.zoom = view.zoom.toFixed(2);
  }

  wheel(event, frame) {
    event.preventDefault();
    this.set(zoomAt(this.view, Math.exp(-event.deltaY / 400), ...place(event, frame)));
  }

  drag(frame) {
    frame.addEventListener("pointerdown", (event) => {
      if (this.view.zoom === 1 || event.button !== 0) return;
      frame.setPointerCapture(event.pointerId);
      const start = this.view,
        [x, y] = place(event, frame);
      const move = (at) => {
        const [nowX, nowY] = place(at, frame);
        this.set(panBy(start, nowX - x, nowY - y));
      };
      frame.addEventListener("pointermove", move);
      for (const end of ["pointerup", "pointercancel"])
        frame.addEventListener(end, () => frame.removeEventListener("pointermove", move), { once: true });
    });
  }

  /** True when the key was for looking. */
  key(event) {
    const arrows = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    const key = event.key.toLowerCase();
    if (event.shiftKey && arrows[event.key]) this.set(panBy(this.view, ...arrows[event.key]));
    else if (key === "+" || key === "=") this.set(zoomAt(this.view, STEP, 0.5, 0.5));
    else if (key === "-") this.set(zoomAt(this.view, 1 / STEP, 0.5, 0.5));
    else if (key === "0") this.set(WHOLE);
    else if (key === "h" || (key === "d" && this.frames.length > 1)) {
      this.held.add(key);
      this.apply();
    } else return false;
    return true;
  }

  release(key) {
    if (this.held.delete(key)) this.apply();
  }

  /** Holding a key turns the box over. */
  apply() {
    this.root.classList.toggle("sx-no-outline", this.outlineBox.input.checked === this.held.has("h"));
    const differs = this.differenceBox.input.checked !== this.held.has("d");
    if (differs === Boolean(this.drawn)) return;
    this.drawn?.forEach((canvas) => canvas.remove());
    this.drawn = differs ? this.drawDifference() : null;
    this.root.classList.toggle("sx-differs", Boolean(this.drawn));
  }

  drawDifference() {
    const images = this.images();
    if (!images?.every((image) => image.naturalWidth)) return null;
    const [width, height] = [images[0].naturalWidth, images[0].naturalHeight];
    const found = new ImageData(difference(...images.map((image) => pixels(image, width, height))), width, height);
    return this.frames.map(({ stage }) => {
      const canvas = h("canvas", { width, height, class: "sx-vote-difference", role: "img", "aria-label": "Difference of the two images" });
      canvas.getContext("2d").putImageData(found, 0, 0);
      stage.append(canvas);
      return canvas;
    });
  }
}

function place(event, frame) {
  const area = frame.getBoundingClientRect();
  return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
}

/** A frame with its stage and the badge that every synthetic image carries. */
export function frameOf(name) {
  const stage = h("div", { class: "sx-vote-stage" });
  const frame = h(
    "figure",
    { class: "sx-vote-frame", "aria-label": name },
    stage,
    h("span", { class: "sx-badge sx-badge-synthetic" }, "SYNTHETIC"),
    h("span", { class: "sx-vote-word" }, "difference: brighter = more"),
  );
  return { frame, stage };
}

/** Load a picture and have it decoded, so that showing it later costs nothing; a broken one is shown as broken. */
export async function decoded(source, attributes) {
  const image = Object.assign(new Image(), { draggable: false, fetchPriority: "high", src: source, ...attributes });
  await image.decode().catch(() => {});
  return image;
}
