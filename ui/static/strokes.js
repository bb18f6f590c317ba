// What each tool does with the pointer. A tool has down, move and up, called with the canvas, a point in pixels of the label
// map and the event; `guide` gives the lines to show while it works, as lists of points.
import { flood, paintBox, paintMask, paintPolygon, wand } from "./raster.js";
import { toast } from "./lib.js";
import { smartTool } from "./smart.js";
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
    if (!inside(canvas, point)) return;
    const pixels = canvas.imagePixels();
    if (!pixels) toast("The wand goes by the colours of an image, and there is none here (yet).");
    else
      canvas.edit((labels, w, h) => wand(labels, pixels, w, h, ...floor(point), canvas.tolerance, canvas.pen(event.button === 2)));
  },
};

/** Choose the class under a point. */
export function pickClass(canvas, point) {
  if (!inside(canvas, point)) return;
  const [x, y] = floor(point);
  canvas.setClass(canvas.labels[y * canvas.w + x]);
}

const pick = {
  down(canvas, point) {
    pickClass(canvas, point);
    canvas.setTool(canvas.lastTool === "erase" ? "brush" : canvas.lastTool);
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
    const { corners, turn } = gripsOf(canvas.selection, canvas.zoom, canvas.stroke ? transformOf(canvas, canvas.stroke) : {});
    const [topLeft, topRight] = corners;
    return [
      [...corners, topLeft],
      [[(topLeft[0] + topRight[0]) / 2, (topLeft[1] + topRight[1]) / 2], turn],
    ];
  },
};

export const TOOLS = { brush, erase: brush, lasso, box, polygon, fill, wand: magic, pick, move, smart: smartTool };

/**
 * Move the selected shapes as one undoable edit; they stay selected. Each time they are drawn anew from what they were when
 * they were chosen: turned again and again, rounded pixels would tear them apart.
 */
export function applyMove(canvas, { dx = 0, dy = 0, angle = 0, scale = 1 }) {
  const { selection } = canvas;
  if (!selection || (!dx && !dy && !angle && scale === 1)) return;
  const { origin } = selection,
    total = joinedMove(selection.total, { dx, dy, angle, scale });
  const mask = origin.mask.slice();
  moveShape(mask, canvas.w, canvas.h, origin.mask, total);
  canvas.edit((labels, w, h) => {
    labels.set(origin.labels);
    moveShape(labels, w, h, origin.mask, total);
    return [0, 0, w - 1, h - 1];
  });
  canvas.selection = { origin, total, mask };
  canvas.drawGuide();
}

const joinedMove = (one, { dx = 0, dy = 0, angle = 0, scale = 1 }) => ({
  dx: one.dx + dx,
  dy: one.dy + dy,
  angle: one.angle + angle,
  scale: one.scale * scale,
});

/** The selected shapes become one class; 0 removes them. */
export function relabelSelected(canvas, value) {
  if (!canvas.selection) return;
  const { mask } = canvas.selection;
  canvas.edit((labels, w, h) => paintMask(labels, w, mask, [0, 0, w - 1, h - 1], { value, allows: null }));
}

function transformOf(canvas, { grip, from, to }) {
  // Whole pixels: a shape moved there and back is the same shape.
  if (grip === "move") return { dx: Math.round(to[0] - from[0]), dy: Math.round(to[1] - from[1]) };
  const [cx, cy] = centreOf(canvas.selection);
  if (grip === "turn") return { angle: Math.atan2(to[1] - cy, to[0] - cx) - Math.atan2(from[1] - cy, from[0] - cx) };
  const before = Math.hypot(from[0] - cx, from[1] - cy) || 1;
  return { scale: Math.min(10, Math.max(0.1, Math.hypot(to[0] - cx, to[1] - cy) / before)) };
}

const centreOf = ({ origin, total }) => [origin.middle[0] + total.dx, origin.middle[1] + total.dy];

/** Corners of the selection's frame, clockwise from the top left, and its handle for turning, moved by `more`. */
function gripsOf(selection, zoom, more = {}) {
  const { dx, dy, angle, scale } = joinedMove(selection.total, more),
    [cx, cy] = selection.origin.middle,
    [x0, y0, x1, y1] = selection.origin.box;
  const place = ([x, y]) => [
    cx + dx + scale * (Math.cos(angle) * (x - cx) - Math.sin(angle) * (y - cy)),
    cy + dy + scale * (Math.sin(angle) * (x - cx) + Math.cos(angle) * (y - cy)),
  ];
  return {
    corners: [[x0, y0], [x1, y0], [x1, y1], [x0, y1]].map(place), // prettier-ignore
    turn: place([(x0 + x1) / 2, y0 - TURN_HANDLE_PX / zoom / scale]),
  };
}

function gripAt(canvas, [x, y]) {
  if (!canvas.selection) return null;
  const { corners, turn } = gripsOf(canvas.selection, canvas.zoom),
    near = ([px, py]) => Math.hypot(x - px, y - py) * canvas.zoom < HANDLE_PX;
  if (near(turn)) return "turn";
  if (near(corners[2])) return "scale";
  const [column, row] = [Math.floor(x), Math.floor(y)];
  return inside(canvas, [x, y]) && canvas.selection.mask[row * canvas.w + column] ? "move" : null;
}

/** What the canvas keeps of a chosen mask: what it was (`origin`), how far it has been moved, where it is now. */
export function selectionOf(mask, labels, w) {
  const middle = mask && middleOf(mask, w);
  if (!middle) return null;
  let box = [Infinity, Infinity, 0, 0];
  mask.forEach((value, i) => {
    if (!value) return;
    const x = i % w,
      y = (i - x) / w;
    box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x + 1), Math.max(box[3], y + 1)];
  });
  return { mask, origin: { mask, labels: labels.slice(), middle, box }, total: { dx: 0, dy: 0, angle: 0, scale: 1 } };
}
