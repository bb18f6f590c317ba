// Hard-edged drawing on a label map, exact at pixel centres. Each function returns the touched box [x0, y0, x1, y1] or null.

/** A brush segment: all pixels whose centre is within `radius` of the line. A radius below half a pixel still marks one. */
export function paintCapsule(labels, w, h, x0, y0, x1, y1, radius, value) {
  const r = Math.max(radius, 0.71);
  const X0 = Math.max(0, Math.floor(Math.min(x0, x1) - r)),
    X1 = Math.min(w - 1, Math.ceil(Math.max(x0, x1) + r));
  const Y0 = Math.max(0, Math.floor(Math.min(y0, y1) - r)),
    Y1 = Math.min(h - 1, Math.ceil(Math.max(y0, y1) + r));
  if (X1 < X0 || Y1 < Y0) return null;
  const dx = x1 - x0,
    dy = y1 - y0,
    length2 = dx * dx + dy * dy;
  for (let y = Y0; y <= Y1; y++)
    for (let x = X0; x <= X1; x++) {
      const px = x + 0.5 - x0,
        py = y + 0.5 - y0,
        t = length2 ? Math.max(0, Math.min(1, (px * dx + py * dy) / length2)) : 0;
      const ex = px - t * dx,
        ey = py - t * dy;
      if (ex * ex + ey * ey <= r * r) labels[y * w + x] = value;
    }
  return [X0, Y0, X1, Y1];
}

/** Even-odd fill of a closed polygon, by scan lines. */
export function paintPolygon(labels, w, h, points, value) {
  const ys = points.map((point) => point[1]),
    xs = points.map((point) => point[0]);
  const Y0 = Math.max(0, Math.floor(Math.min(...ys))),
    Y1 = Math.min(h - 1, Math.ceil(Math.max(...ys)));
  for (let y = Y0; y <= Y1; y++) {
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
      if (b >= a) labels.fill(value, y * w + a, y * w + b + 1);
    }
  }
  const X0 = Math.max(0, Math.floor(Math.min(...xs))),
    X1 = Math.min(w - 1, Math.ceil(Math.max(...xs)));
  return X1 < X0 || Y1 < Y0 ? null : [X0, Y0, X1, Y1];
}

/** Fill the 4-connected region of one class, by scan lines. */
export function flood(labels, w, h, x, y, value) {
  const target = labels[y * w + x],
    stack = [y * w + x],
    box = [x, y, x, y];
  if (target === value) return null;
  while (stack.length) {
    const i = stack.pop();
    if (labels[i] !== target) continue;
    const row = Math.floor(i / w);
    let a = i,
      b = i;
    while (a > row * w && labels[a - 1] === target) a--;
    while (b < row * w + w - 1 && labels[b + 1] === target) b++;
    labels.fill(value, a, b + 1);
    box[0] = Math.min(box[0], a - row * w);
    box[2] = Math.max(box[2], b - row * w);
    box[1] = Math.min(box[1], row);
    box[3] = Math.max(box[3], row);
    for (const next of [-w, w])
      for (let k = a + next, wasHit = false; k <= b + next; k++) {
        const isHit = k >= 0 && k < w * h && labels[k] === target;
        if (isHit && !wasHit) stack.push(k);
        wasHit = isHit;
      }
  }
  return box;
}
