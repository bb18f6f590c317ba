// Small line charts as inline SVG in the theme's colours.
import { fixed, svg } from "./lib.js";

const W = 300,
  H = 118,
  LEFT = 40,
  RIGHT = 10,
  TOP = 8,
  BOTTOM = 20,
  MAX_POINTS = 300;

/** A chart of [[step, value], ...]; `reference` draws a dashed line (a coin's toss, the base's value). */
export function lineChart(points, { label, reference = null, digits = 2 }) {
  const step = Math.max(1, Math.ceil(points.length / MAX_POINTS)),
    shown = points.filter((_, index) => index % step === 0 || index === points.length - 1);
  const xs = shown.map((point) => point[0]),
    ys = [...shown.map((point) => point[1]), ...(reference === null ? [] : [reference])];
  const low = Math.min(...ys),
    high = Math.max(...ys),
    pad = (high - low || Math.abs(high) || 1) * 0.08,
    y0 = low - pad,
    y1 = high + pad;
  const x = (value) => LEFT + ((value - xs[0]) / Math.max(1, xs.at(-1) - xs[0])) * (W - LEFT - RIGHT),
    y = (value) => TOP + ((y1 - value) / (y1 - y0)) * (H - TOP - BOTTOM);
  const text = (content, tx, ty, anchor) => svg("text", { x: tx, y: ty, "text-anchor": anchor, class: "sx-chart-text" }, content);
  const node = svg("svg", {
    viewBox: `0 0 ${W} ${H}`,
    role: "img",
    "aria-label": `${label}, last value ${fixed(ys[shown.length - 1], digits)}`,
    class: "sx-chart",
  });
  node.append(
    ...[high, (high + low) / 2, low].map((value) =>
      svg("line", { x1: LEFT, x2: W - RIGHT, y1: y(value), y2: y(value), class: "sx-chart-line" }),
    ),
    text(fixed(high, digits), LEFT - 5, y(high) + 4, "end"),
    text(fixed(low, digits), LEFT - 5, y(low) + 4, "end"),
    text(`step ${xs.at(-1)}`, W - RIGHT, H - 5, "end"),
  );
  if (reference !== null)
    node.append(svg("line", { x1: LEFT, x2: W - RIGHT, y1: y(reference), y2: y(reference), class: "sx-chart-reference" }));
  if (shown.length > 1)
    node.append(
      svg("path", {
        d: `M${shown.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join("L")}`,
        class: "sx-chart-path",
      }),
    );
  node.append(svg("circle", { cx: x(xs.at(-1)), cy: y(shown.at(-1)[1]), r: 3.5, class: "sx-chart-dot" }));
  return node;
}
