// What each tool does with the pointer. A tool has down, move and up, called with the canvas, a point in pixels of the label
// map and the event; `guide` gives the lines to show while it works, as lists of points.
import { flood, paintBox, paintMask, paintPolygon, wand } from "./raster.js";
import { componentAt, middleOf, moveShape } from "./shapes.js";

const HANDLE_PX = 12,
  TURN_HANDLE_PX = 26;

const inside = (canvas, [x, y]) => x >= 0 && y >= 0 && x < canvas.w && y < canvas.h;
const floor = ([x, y]) => [Math.floor(x), Math.floor(y)];

const brush = {
  down(canvas, point, event) {
    canvas.begin();
    canvas.stroke = { at: point, pen: canvas.pen(canvas.tool === "erase" || event.button === 2) };
    // With Shift a straight line from where the last stroke ended.
    canvas.paint(event.shiftKey && canvas.lastPoint ? canvas.lastPoint : point, point);
  },
  move(canvas, point) {
    canvas.paint(canvas.stroke.at, point);
    canvas.stroke.at = point;
  },
  up(canvas) {
    canvas.lastPoint = canvas.stroke.at;
    canvas.end();
  },
};

const lasso = {
  down(canvas, point, event) {
    canvas.stroke = { points: [point], erases: event.button === 2 };
  },
  move(canvas, point) {
    canvas.stroke.points.push(point);
  },
  up(canvas, { points, erases }) {
    if (points.length > 2) canvas.edit((labels, w, h) => paintPolygon(labels, w, h, points, canvas.pen(erases)));
  },
  guide: (canvas) => (canvas.stroke ? [[...canvas.stroke.points, canvas.stroke.points[0]]] : []),
};

const box = {
  down(canvas, point, event) {
    canvas.stroke = { from: point, to: point, erases: event.button === 2 };
  },
  move(canvas, point) {
    canvas.stroke.to = point;
  },
  up(canvas, { from, to, erases }) {
    canvas.edit((labels, w, h) => paintBox(labels, w, h, ...from, ...to, canvas.pen(erases)));
  },
  guide(canvas) {
    if (!canvas.stroke) return [];
    const [[a, b], [c, d]] = [canvas.stroke.from, canvas.stroke.to];
    return [[[a, b], [c, b], [c, d], [a, d], [a, b]]]; // prettier-ignore
  },
};

const polygon = {
  down(canvas, point, event) {
    if (event.button === 2 || event.detail === 2) canvas.closePolygon();
    else canvas.polygon.push(point);
  },
  guide: (canvas) => (canvas.polygon.length ? [[...canvas.polygon, canvas.hover ?? canvas.polygon.at(-1)]] : []),
};

const fill = {
  down(canvas, point, event) {
    if (inside(canvas, point))
      canvas.edit((labels, w, h) => flood(labels, w, h, ...floor(point), canvas.pen(event.button === 2)));
  },
};

const magic = {
  down(canvas, point, event) {
    const pixels = inside(canvas, point) && canvas.imagePixels();
    if (pixels)
      canvas.edit((labels, w, h) => wand(labels, pixels, w, h, ...floor(point), canvas.tolerance, canvas.pen(event.button === 2)));
  },
};

const pick = {
  down(canvas, point) {
    if (!inside(canvas, point)) return;
    const [x, y] = floor(point);
    canvas.setClass(canvas.labels[y * canvas.w + x]);
    canvas.setTool(canvas.lastTool === "pick" || canvas.lastTool === "erase" ? "brush" : canvas.lastTool);
  },
};

/** Move, turn or scale components: a click chooses one, Shift adds another. */
const move = {
  down(canvas, point, event) {
    const grip = gripAt(canvas, point);
    if (grip) {
      canvas.stroke = { grip, from: point, to: point };
      return;
    }
    if (!inside(canvas, point)) return canvas.select(null);
    const [x, y] = floor(point),
      label = canvas.labels[y * canvas.w + x];
    if (!label) return canvas.select(null);
    const { mask } = componentAt(canvas.labels, canvas.w, canvas.h, x, y);
    if (event.shiftKey && canvas.selection) canvas.selection.mask.forEach((value, i) => value && (mask[i] = 1));
    canvas.select(mask);
    canvas.stroke = { grip: "move", from: point, to: point };
  },
  move(canvas, point) {
    canvas.stroke.to = point;
  },
  up(canvas, stroke) {
    applyMove(canvas, transformOf(canvas, stroke));
  },
  guide(canvas) {
    if (!canvas.selection) return [];
    const [x0, y0, x1, y1] = canvas.selection.box,
      place = placer(canvas, canvas.stroke ? transformOf(canvas, canvas.stroke) : {});
    const corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]].map(place); // prettier-ignore
    const top = [(x0 + x1) / 2, y0];
    return [corners, [place(top), place([top[0], y0 - TURN_HANDLE_PX / canvas.zoom])]];
  },
};

export const TOOLS = { brush, erase: brush, lasso, box, polygon, fill, wand: magic, pick, move };

/** Move the selected shapes as one undoable edit; they stay selected. */
export function applyMove(canvas, transform) {
  const { dx = 0, dy = 0, angle = 0, scale = 1 } = transform;
  if (!canvas.selection || (!dx && !dy && !angle && scale === 1)) return;
  const { mask } = canvas.selection,
    moved = mask.slice();
  moveShape(moved, canvas.w, canvas.h, mask, transform);
  canvas.edit((labels, w, h) => moveShape(labels, w, h, mask, transform));
  canvas.select(moved);
}

/** The selected shapes become background. */
export function removeSelected(canvas) {
  if (!canvas.selection) return;
  const { mask } = canvas.selection;
  canvas.edit((labels, w, h) => paintMask(labels, w, mask, [0, 0, w - 1, h - 1], { value: 0, allows: null }));
  canvas.select(null);
}

function transformOf(canvas, { grip, from, to }) {
  // Whole pixels: a shape moved there and back is the same shape.
  if (grip === "move") return { dx: Math.round(to[0] - from[0]), dy: Math.round(to[1] - from[1]) };
  const [cx, cy] = canvas.selection.middle;
  if (grip === "turn") return { angle: Math.atan2(to[1] - cy, to[0] - cx) - Math.atan2(from[1] - cy, from[0] - cx) };
  const before = Math.hypot(from[0] - cx, from[1] - cy) || 1;
  return { scale: Math.min(10, Math.max(0.1, Math.hypot(to[0] - cx, to[1] - cy) / before)) };
}

function placer(canvas, { dx = 0, dy = 0, angle = 0, scale = 1 }) {
  const [cx, cy] = canvas.selection.middle;
  return ([x, y]) => [
    cx + dx + scale * (Math.cos(angle) * (x - cx) - Math.sin(angle) * (y - cy)),
    cy + dy + scale * (Math.sin(angle) * (x - cx) + Math.cos(angle) * (y - cy)),
  ];
}

function gripAt(canvas, [x, y]) {
  if (!canvas.selection) return null;
  const [x0, y0, x1, y1] = canvas.selection.box,
    near = (px, py) => Math.hypot(x - px, y - py) * canvas.zoom < HANDLE_PX;
  if (near((x0 + x1) / 2, y0 - TURN_HANDLE_PX / canvas.zoom)) return "turn";
  if (near(x1, y1)) return "scale";
  const [column, row] = [Math.floor(x), Math.floor(y)];
  return inside(canvas, [x, y]) && canvas.selection.mask[row * canvas.w + column] ? "move" : null;
}

/** What the canvas keeps of a chosen mask. */
export function selectionOf(mask, w) {
  const middle = mask && middleOf(mask, w);
  if (!middle) return null;
  let box = [Infinity, Infinity, 0, 0];
  mask.forEach((value, i) => {
    if (!value) return;
    const x = i % w,
      y = (i - x) / w;
    box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x + 1), Math.max(box[3], y + 1)];
  });
  return { mask, middle, box };
}
