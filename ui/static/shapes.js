// Edits of whole shapes of a label map: components, holes, islands, smoothing, growing, moving. Each edit changes `labels` in
// place and returns the touched box [x0, y0, x1, y1] or null. A pixel that a shape gives up takes the label of its nearest
// neighbour that is not the shape's.
import { joined, region } from "./raster.js";

/** 4-connected components: { ids, list }, ids[i] = 1 + place in list of { label, count, box, touchesBorder }. */
export function components(labels, w, h) {
  const ids = new Int32Array(w * h),
    list = [],
    stack = [];
  for (let start = 0; start < labels.length; start++) {
    if (ids[start]) continue;
    const label = labels[start],
      id = list.length + 1,
      box = [w, h, -1, -1];
    let count = 0;
    stack.push(start);
    while (stack.length) {
      const i = stack.pop();
      if (ids[i] || labels[i] !== label) continue;
      const y = Math.floor(i / w);
      let a = i,
        b = i;
      while (a > y * w && !ids[a - 1] && labels[a - 1] === label) a--;
      while (b < y * w + w - 1 && !ids[b + 1] && labels[b + 1] === label) b++;
      ids.fill(id, a, b + 1);
      count += b - a + 1;
      box[0] = Math.min(box[0], a - y * w);
      box[1] = Math.min(box[1], y);
      box[2] = Math.max(box[2], b - y * w);
      box[3] = Math.max(box[3], y);
      for (const next of [-w, w])
        for (let k = a + next, wasHit = false; k <= b + next; k++) {
          const isHit = k >= 0 && k < labels.length && !ids[k] && labels[k] === label;
          if (isHit && !wasHit) stack.push(k);
          wasHit = isHit;
        }
    }
    list.push({ label, count, box, touchesBorder: !box[0] || !box[1] || box[2] === w - 1 || box[3] === h - 1 });
  }
  return { ids, list };
}

/** Per label of the map: pixels, components (4-connected) and holes (areas that the class encloses). */
export function statistics(labels, w, h) {
  const found = new Map(),
    entry = (label) => {
      if (!found.has(label)) found.set(label, { pixels: 0, components: 0, holes: 0, quads: 0 });
      return found.get(label);
    };
  for (const { label, count } of components(labels, w, h).list) {
    entry(label).pixels += count;
    entry(label).components += 1;
  }
  // Euler number from the squares of 2 x 2 pixels (Gray 1971): four times it is #1 - #3 + 2 #diagonal.
  const at = (x, y) => (x < 0 || y < 0 || x >= w || y >= h ? -1 : labels[y * w + x]);
  for (let y = -1; y < h; y++)
    for (let x = -1; x < w; x++) {
      const i0 = y * w + x,
        isInside = x >= 0 && y >= 0 && x < w - 1 && y < h - 1;
      if (isInside && labels[i0] === labels[i0 + 1] && labels[i0] === labels[i0 + w] && labels[i0] === labels[i0 + w + 1])
        continue;
      const quad = [at(x, y), at(x + 1, y), at(x + 1, y + 1), at(x, y + 1)];
      for (let i = 0; i < 4; i++) {
        if (quad[i] < 0 || quad.indexOf(quad[i]) < i) continue;
        const count = quad.filter((label) => label === quad[i]).length;
        if (count === 1) entry(quad[i]).quads += 1;
        else if (count === 3) entry(quad[i]).quads -= 1;
        else if (quad[i] === quad[(i + 2) % 4] && quad[(i + 1) % 4] !== quad[i]) entry(quad[i]).quads += 2;
      }
    }
  for (const item of found.values()) {
    item.holes = item.components - item.quads / 4;
    delete item.quads;
  }
  return found;
}

/** Background that the class encloses becomes the class; other classes in there stay. */
export function fillHoles(labels, w, h, value) {
  // What is not the class and connected to the border, also by corners, is outside.
  const outside = new Uint8Array(w * h),
    stack = [];
  const visit = (x, y) => {
    const i = y * w + x;
    if (x < 0 || y < 0 || x >= w || y >= h || outside[i] || labels[i] === value) return;
    outside[i] = 1;
    stack.push(i);
  };
  for (let x = 0; x < w; x++) for (const y of [0, h - 1]) visit(x, y);
  for (let y = 0; y < h; y++) for (const x of [0, w - 1]) visit(x, y);
  while (stack.length) {
    const i = stack.pop(),
      x = i % w,
      y = (i - x) / w;
    for (let dy = -1; dy <= 1; dy++) for (let dx = -1; dx <= 1; dx++) visit(x + dx, y + dy);
  }
  let box = null;
  for (let i = 0; i < labels.length; i++)
    if (!outside[i] && labels[i] === 0) {
      labels[i] = value;
      box = joined(box, [i % w, Math.floor(i / w), i % w, Math.floor(i / w)]);
    }
  return box;
}

/** Components of the class with fewer than `minPixels` pixels go to their nearest other label. */
export function dropIslands(labels, w, h, value, minPixels) {
  const { ids, list } = components(labels, w, h);
  const small = list.map((item) => item.label === value && item.count < minPixels);
  if (!small.some(Boolean)) return null;
  return giveUp(labels, w, h, (i) => small[ids[i] - 1], value);
}

/** The class takes all pixels within `px` of it that the pen may paint over. */
export function grow(labels, w, h, px, pen) {
  const { value, allows } = pen;
  const { distance2 } = nearest(w, h, (i) => labels[i] === value);
  let box = null;
  for (let i = 0; i < labels.length; i++)
    if (labels[i] !== value && distance2[i] <= px * px && (!allows || allows[labels[i]])) {
      labels[i] = value;
      box = joined(box, [i % w, Math.floor(i / w), i % w, Math.floor(i / w)]);
    }
  return box;
}

/** The class gives up all pixels within `px` of another label; the picture's border is no other label. */
export function shrink(labels, w, h, px, value) {
  const { distance2 } = nearest(w, h, (i) => labels[i] !== value);
  return giveUp(labels, w, h, (i) => labels[i] === value && distance2[i] <= px * px, value);
}

/** Majority vote in a square of side 2 `radius` + 1: takes off bumps and fills notches of the class. */
export function smooth(labels, w, h, radius, pen) {
  const { value, allows } = pen;
  // sums[(y, x)] = pixels of the class above and left of (x, y)
  const sums = new Int32Array((w + 1) * (h + 1));
  for (let y = 0; y < h; y++)
    for (let x = 0, row = 0; x < w; x++) {
      row += labels[y * w + x] === value ? 1 : 0;
      sums[(y + 1) * (w + 1) + x + 1] = sums[y * (w + 1) + x + 1] + row;
    }
  const wanted = new Uint8Array(w * h);
  for (let y = 0; y < h; y++) {
    const top = Math.max(0, y - radius) * (w + 1),
      bottom = Math.min(h, y + radius + 1) * (w + 1),
      rows = (bottom - top) / (w + 1);
    for (let x = 0; x < w; x++) {
      const a = Math.max(0, x - radius),
        b = Math.min(w, x + radius + 1);
      const inside = sums[bottom + b] - sums[bottom + a] - sums[top + b] + sums[top + a];
      wanted[y * w + x] = 2 * inside > rows * (b - a) ? 1 : 0;
    }
  }
  let box = giveUp(labels, w, h, (i) => labels[i] === value && !wanted[i], value);
  for (let i = 0; i < labels.length; i++)
    if (wanted[i] && labels[i] !== value && (!allows || allows[labels[i]])) {
      labels[i] = value;
      box = joined(box, [i % w, Math.floor(i / w), i % w, Math.floor(i / w)]);
    }
  return box;
}

/** The component at (x, y): { mask, box, count }. */
export function componentAt(labels, w, h, x, y) {
  const label = labels[y * w + x];
  return region(w, h, x, y, (i) => labels[i] === label);
}

/**
 * Move, turn and scale the pixels of a mask about its middle; they keep their labels, and what they leave behind takes its
 * nearest other label.
 * `transform`: { dx, dy } in pixels, `angle` in radians (clockwise on screen), `scale`.
 */
export function moveShape(labels, w, h, mask, { dx = 0, dy = 0, angle = 0, scale = 1 }) {
  const middle = middleOf(mask, w);
  if (!middle) return null;
  const carried = labels.slice();
  let box = giveUp(labels, w, h, (i) => mask[i], null);
  // About the centre of a pixel a quarter turn moves every pixel onto a pixel.
  const [cx, cy] = angle ? middle.map((value) => Math.floor(value) + 0.5) : middle,
    cos = Math.cos(angle) / scale,
    sin = Math.sin(angle) / scale;
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      // Where this pixel's centre was before.
      const ux = x + 0.5 - cx - dx,
        uy = y + 0.5 - cy - dy;
      const sx = Math.floor(cx + cos * ux + sin * uy),
        sy = Math.floor(cy - sin * ux + cos * uy);
      if (sx < 0 || sy < 0 || sx >= w || sy >= h || !mask[sy * w + sx]) continue;
      labels[y * w + x] = carried[sy * w + sx];
      box = joined(box, [x, y, x, y]);
    }
  return box;
}

/** Centre of the bounding box of a mask, in pixels, or null. */
export function middleOf(mask, w) {
  let box = null;
  for (let i = 0; i < mask.length; i++)
    if (mask[i]) {
      const x = i % w,
        y = (i - x) / w;
      box = joined(box, [x, y, x, y]);
    }
  return box && [(box[0] + box[2] + 1) / 2, (box[1] + box[3] + 1) / 2];
}

/** Pixels for which `leaves` holds take the label of the nearest pixel that stays and is not `value`; 0 where there is none. */
function giveUp(labels, w, h, leaves, value) {
  const going = new Uint8Array(w * h);
  let box = null;
  for (let i = 0; i < labels.length; i++)
    if (leaves(i)) {
      going[i] = 1;
      box = joined(box, [i % w, Math.floor(i / w), i % w, Math.floor(i / w)]);
    }
  if (!box) return null;
  const { source } = nearest(w, h, (i) => !going[i] && labels[i] !== value);
  const before = labels.slice();
  for (let i = 0; i < labels.length; i++) if (going[i]) labels[i] = source[i] < 0 ? 0 : before[source[i]];
  return box;
}

/**
 * Squared distance of each pixel to the nearest source, and which one it is (-1: there is none). Exact, in linear time
 * (Felzenszwalb and Huttenlocher 2012), with the place of the minimum kept.
 */
export function nearest(w, h, isSource) {
  const far = 1e12,
    distance2 = new Float64Array(w * h),
    source = new Int32Array(w * h).fill(-1);
  // Down the columns: the nearest source in the same column.
  for (let x = 0; x < w; x++) {
    for (let y = 0, last = -1; y < h; y++) {
      const i = y * w + x;
      if (isSource(i)) last = y;
      distance2[i] = last < 0 ? far : (y - last) ** 2;
      source[i] = last < 0 ? -1 : last * w + x;
    }
    for (let y = h - 1, last = -1; y >= 0; y--) {
      const i = y * w + x;
      if (source[i] === i) last = y;
      if (last >= 0 && (last - y) ** 2 < distance2[i]) {
        distance2[i] = (last - y) ** 2;
        source[i] = last * w + x;
      }
    }
  }
  // Along the rows: the lower envelope of the parabolas that stand on each pixel.
  const at = new Int32Array(w),
    edge = new Float64Array(w + 1),
    row = new Float64Array(w),
    from = new Int32Array(w);
  for (let y = 0; y < h; y++) {
    const start = y * w;
    row.set(distance2.subarray(start, start + w));
    from.set(source.subarray(start, start + w));
    let k = 0;
    at[0] = 0;
    edge[0] = -Infinity;
    edge[1] = Infinity;
    for (let x = 1; x < w; x++) {
      let cut;
      for (;;) {
        const p = at[k];
        cut = (row[x] + x * x - row[p] - p * p) / (2 * (x - p));
        if (cut > edge[k] || k === 0) break;
        k -= 1;
      }
      if (cut <= edge[k]) k = -1;
      k += 1;
      at[k] = x;
      edge[k] = k ? cut : -Infinity;
      edge[k + 1] = Infinity;
    }
    for (let x = 0, j = 0; x < w; x++) {
      while (edge[j + 1] < x) j += 1;
      distance2[start + x] = row[at[j]] + (x - at[j]) ** 2;
      source[start + x] = from[at[j]];
    }
  }
  return { distance2, source };
}

/** Take over one class of another label map, by the pen's rule; what was the class only here becomes what it is there. */
export function copyClass(labels, w, from, { value, allows }) {
  let box = null;
  for (let i = 0; i < labels.length; i++) {
    const isOurs = labels[i] === value,
      isTheirs = from[i] === value;
    if (isOurs === isTheirs || (isTheirs && allows && !allows[labels[i]])) continue;
    labels[i] = from[i];
    const x = i % w,
      y = (i - x) / w;
    box = joined(box, [x, y, x, y]);
  }
  return box;
}
