// Hard-edged drawing on a label map, exact at pixel centres. Each function returns the touched box [x0, y0, x1, y1] or null.
// A `pen` is { value, allows }: `allows` has 1 for each label that may be painted over, null = all.

/** What a pen may paint over. `rule`: "overwrite" all, "protect" other classes, stay "inside" the class `inside`. */
export function makePen(value, { rule = "overwrite", inside = 0 } = {}) {
  if (rule === "overwrite") return { value, allows: null };
  const allows = new Uint8Array(256);
  if (rule === "protect") allows[0] = allows[value] = 1;
  else allows[inside] = 1;
  return { value, allows };
}

/** A pen that clears one class only. */
export function makeEraser(only = null) {
  return only === null ? makePen(0) : makePen(0, { rule: "inside", inside: only });
}

function paintRun(labels, from, to, { value, allows }) {
  if (!allows) labels.fill(value, from, to);
  else for (let i = from; i < to; i++) if (allows[labels[i]]) labels[i] = value;
}

/** Rows y0..y1; `span(y)` gives [from, to) in pixels with centres inside, or null. */
function paintRows(labels, w, h, y0, y1, span, pen) {
  let X0 = w,
    X1 = -1,
    top = -1,
    bottom = -1;
  for (let y = Math.max(0, y0); y <= Math.min(h - 1, y1); y++) {
    const found = span(y + 0.5);
    if (!found) continue;
    const a = Math.max(0, found[0]),
      b = Math.min(w, found[1]);
    if (b <= a) continue;
    paintRun(labels, y * w + a, y * w + b, pen);
    X0 = Math.min(X0, a);
    X1 = Math.max(X1, b - 1);
    if (top < 0) top = y;
    bottom = y;
  }
  return X1 < 0 ? null : [X0, top, X1, bottom];
}

const firstCentre = (x) => Math.ceil(x - 0.5),
  afterLast = (x) => Math.floor(x - 0.5) + 1;

/** A brush segment: all pixels whose centre is within `radius` of the line. A radius below half a pixel still marks one. */
export function paintCapsule(labels, w, h, x0, y0, x1, y1, radius, pen) {
  const r = Math.max(radius, 0.71),
    dx = x1 - x0,
    dy = y1 - y0,
    length = Math.hypot(dx, dy);
  const span = (y) => {
    let a = Infinity,
      b = -Infinity;
    const widen = (from, to) => {
      a = Math.min(a, from);
      b = Math.max(b, to);
    };
    for (const [cx, cy] of [
      [x0, y0],
      [x1, y1],
    ]) {
      const half2 = r * r - (y - cy) ** 2;
      if (half2 >= 0) widen(cx - Math.sqrt(half2), cx + Math.sqrt(half2));
    }
    if (length) {
      // The band between both ends: distance to the line at most r, projection between the ends.
      const nx = -dy / length,
        ny = dx / length,
        offset = (y - y0) * ny,
        along = (y - y0) * dy;
      let from = -Infinity,
        to = Infinity;
      const cut = (slope, low, high) => {
        if (Math.abs(slope) < 1e-12) {
          if (low > 0 || high < 0) to = -Infinity;
          return;
        }
        const ends = [low / slope, high / slope].sort((p, q) => p - q);
        from = Math.max(from, ends[0]);
        to = Math.min(to, ends[1]);
      };
      cut(nx, -r - offset, r - offset);
      cut(dx, -along, length * length - along);
      if (to >= from) widen(x0 + from, x0 + to);
    }
    return b >= a ? [firstCentre(a), afterLast(b)] : null;
  };
  return paintRows(labels, w, h, Math.floor(Math.min(y0, y1) - r), Math.ceil(Math.max(y0, y1) + r), span, pen);
}

/** A square brush of side 2 `radius`, drawn along a line. */
export function paintSquare(labels, w, h, x0, y0, x1, y1, radius, pen) {
  const r = Math.max(radius, 0.5),
    dx = x1 - x0,
    dy = y1 - y0;
  const span = (y) => {
    let from = 0,
      to = 1;
    if (dy) {
      const ends = [(y - y0 - r) / dy, (y - y0 + r) / dy].sort((p, q) => p - q);
      from = Math.max(from, ends[0]);
      to = Math.min(to, ends[1]);
    } else if (y < y0 - r || y >= y0 + r) return null;
    if (to < from) return null;
    const xs = [x0 + from * dx, x0 + to * dx];
    // Half open, so that a brush of n pixels is n pixels wide wherever it stands.
    return [Math.ceil(Math.min(...xs) - r - 0.5), Math.ceil(Math.max(...xs) + r - 0.5)];
  };
  return paintRows(labels, w, h, Math.floor(Math.min(y0, y1) - r), Math.ceil(Math.max(y0, y1) + r), span, pen);
}

/** All pixels whose centre lies in the box between two corners. */
export function paintBox(labels, w, h, x0, y0, x1, y1, pen) {
  const [a, b] = [firstCentre(Math.min(x0, x1)), afterLast(Math.max(x0, x1))];
  const [top, bottom] = [firstCentre(Math.min(y0, y1)), afterLast(Math.max(y0, y1)) - 1];
  return paintRows(labels, w, h, top, bottom, () => [a, b], pen);
}

/** Even-odd fill of a closed polygon, by scan lines. */
export function paintPolygon(labels, w, h, points, pen) {
  const ys = points.map((point) => point[1]);
  let box = null;
  for (let y = Math.max(0, Math.floor(Math.min(...ys))); y <= Math.min(h - 1, Math.ceil(Math.max(...ys))); y++) {
    const centre = y + 0.5,
      cuts = [];
    points.forEach(([ax, ay], i) => {
      const [bx, by] = points[(i + 1) % points.length];
      if (ay <= centre !== by <= centre) cuts.push(ax + ((centre - ay) / (by - ay)) * (bx - ax));
    });
    cuts.sort((a, b) => a - b);
    for (let i = 0; i + 1 < cuts.length; i += 2) {
      const a = Math.max(0, Math.ceil(cuts[i] - 0.5)),
        b = Math.min(w - 1, Math.ceil(cuts[i + 1] - 0.5) - 1);
      if (b < a) continue;
      paintRun(labels, y * w + a, y * w + b + 1, pen);
      box = joined(box, [a, y, b, y]);
    }
  }
  return box;
}

/** The smallest box that holds both; either may be null. */
export function joined(one, other) {
  if (!one || !other) return one ?? other;
  return [Math.min(one[0], other[0]), Math.min(one[1], other[1]), Math.max(one[2], other[2]), Math.max(one[3], other[3])];
}

/** Pixels 4-connected to (x, y) for which `belongs(index)` holds, by scan lines: { mask, box, count }. */
export function region(w, h, x, y, belongs) {
  const mask = new Uint8Array(w * h),
    stack = [y * w + x],
    box = [x, y, x, y];
  let count = 0;
  while (stack.length) {
    const i = stack.pop();
    if (mask[i] || !belongs(i)) continue;
    const row = Math.floor(i / w);
    let a = i,
      b = i;
    while (a > row * w && !mask[a - 1] && belongs(a - 1)) a--;
    while (b < row * w + w - 1 && !mask[b + 1] && belongs(b + 1)) b++;
    mask.fill(1, a, b + 1);
    count += b - a + 1;
    box[0] = Math.min(box[0], a - row * w);
    box[2] = Math.max(box[2], b - row * w);
    box[1] = Math.min(box[1], row);
    box[3] = Math.max(box[3], row);
    for (const next of [-w, w])
      for (let k = a + next, wasHit = false; k <= b + next; k++) {
        const isHit = k >= 0 && k < w * h && !mask[k] && belongs(k);
        if (isHit && !wasHit) stack.push(k);
        wasHit = isHit;
      }
  }
  return { mask, box, count };
}

/** Paint where a mask is set. */
export function paintMask(labels, w, mask, box, pen) {
  for (let y = box[1]; y <= box[3]; y++)
    for (let i = y * w + box[0]; i <= y * w + box[2]; i++)
      if (mask[i] && (!pen.allows || pen.allows[labels[i]])) labels[i] = pen.value;
  return box;
}

/** Fill the 4-connected region of one class. */
export function flood(labels, w, h, x, y, pen) {
  const target = labels[y * w + x];
  if (target === pen.value || (pen.allows && !pen.allows[target])) return null;
  const found = region(w, h, x, y, (i) => labels[i] === target);
  return paintMask(labels, w, found.mask, found.box, pen);
}

/** Fill pixels connected to (x, y) whose colour differs from it by at most `tolerance` (largest of R, G, B; 0-255). */
export function wand(labels, pixels, w, h, x, y, tolerance, pen) {
  const at = 4 * (y * w + x),
    [r, g, b] = [pixels[at], pixels[at + 1], pixels[at + 2]];
  const found = region(w, h, x, y, (i) => {
    const k = 4 * i;
    return (
      Math.abs(pixels[k] - r) <= tolerance &&
      Math.abs(pixels[k + 1] - g) <= tolerance &&
      Math.abs(pixels[k + 2] - b) <= tolerance
    );
  });
  return paintMask(labels, w, found.mask, found.box, pen);
}
