// Plane geometry of the map and of zoomed pictures. Knows nothing of the page.

/** Whether a point lies in a closed polygon `[[x, y], ...]` (even-odd rule). */
export function isInside(x, y, polygon) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [xi, yi] = polygon[i],
      [xj, yj] = polygon[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

/** Indices of the points (two lists of coordinates) inside a polygon; `isWanted(index)` may leave some out. */
export function enclosed(xs, ys, polygon, isWanted = () => true) {
  if (polygon.length < 3) return [];
  const across = polygon.map(([x]) => x),
    down = polygon.map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...across), Math.max(...across), Math.min(...down), Math.max(...down)];
  const found = [];
  for (let i = 0; i < xs.length; i++)
    if (xs[i] >= left && xs[i] <= right && ys[i] >= top && ys[i] <= bottom && isWanted(i) && isInside(xs[i], ys[i], polygon))
      found.push(i);
  return found;
}

/** Index of the nearest point within `reach`, or -1. */
export function nearestTo(x, y, xs, ys, reach, isWanted = () => true) {
  let best = -1,
    least = reach * reach;
  for (let i = 0; i < xs.length; i++) {
    const d = (xs[i] - x) ** 2 + (ys[i] - y) ** 2;
    if (d <= least && isWanted(i)) [best, least] = [i, d];
  }
  return best;
}

/** A view maps content u (0-1) to screen u * scale + offset (in shares of the frame); zooming keeps the point under (x, y). */
export const WHOLE = Object.freeze({ scale: 1, x: 0, y: 0 });
export function zoomed(view, x, y, factor, { least = 1, most = 16, margin = 0 } = {}) {
  const scale = Math.min(most, Math.max(least, view.scale * factor)),
    grown = scale / view.scale;
  return kept({ scale, x: x - (x - view.x) * grown, y: y - (y - view.y) * grown }, margin);
}
export const panned = (view, dx, dy, { margin = 0 } = {}) => kept({ ...view, x: view.x + dx, y: view.y + dy }, margin);

/** The view moved so that the content still covers the frame; `margin` is what may lie open beside it. */
function kept(view, margin) {
  const hold = (offset) => Math.min(margin, Math.max(1 - view.scale - margin, offset));
  return { scale: view.scale, x: hold(view.x), y: hold(view.y) };
}
