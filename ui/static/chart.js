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
export const lineChart = (points, options) => linesChart([{ points }], options);

/**
 * A chart of several lines over the same steps. The second one is dashed and ends in a square: colour alone tells nothing to one
 * man in twelve. `until` is the last step of an axis from 0, so that a line which has just begun stays at the left.
 */
export function linesChart(series, { label, reference = null, digits = 2, until = null }) {
  const lines = series
    .filter(({ points }) => points.length)
    .map(({ points, ...rest }) => {
      const every = Math.max(1, Math.ceil(points.length / MAX_POINTS));
      return { ...rest, points: points.filter((_, index) => index % every === 0 || index === points.length - 1) };
    });
  const xs = lines.flatMap(({ points }) => points.map((point) => point[0])),
    ys = [...lines.flatMap(({ points }) => points.map((point) => point[1])), ...(reference === null ? [] : [reference])];
  const low = Math.min(...ys),
    high = Math.max(...ys),
    pad = (high - low || Math.abs(high) || 1) * 0.08,
    y0 = low - pad,
    y1 = high + pad;
  const first = until === null ? Math.min(...xs) : 0,
    last = Math.max(...xs, until ?? 0);
  const x = (value) => LEFT + ((value - first) / Math.max(1, last - first)) * (W - LEFT - RIGHT),
    y = (value) => TOP + ((y1 - value) / (y1 - y0)) * (H - TOP - BOTTOM);
  const text = (content, tx, ty, anchor) => svg("text", { x: tx, y: ty, "text-anchor": anchor, class: "sx-chart-text" }, content);
  const ends = lines.map(({ name, points }) => `${name ? `${name} ` : ""}last value ${fixed(points.at(-1)[1], digits)}`);
  const node = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": [label, ...ends].join(", "), class: "sx-chart" });
  node.append(
    ...[high, (high + low) / 2, low].map((value) =>
      svg("line", { x1: LEFT, x2: W - RIGHT, y1: y(value), y2: y(value), class: "sx-chart-line" }),
    ),
    text(fixed(high, digits), LEFT - 5, y(high) + 4, "end"),
    text(fixed(low, digits), LEFT - 5, y(low) + 4, "end"),
    text(`step ${last}`, W - RIGHT, H - 5, "end"),
  );
  if (reference !== null)
    node.append(svg("line", { x1: LEFT, x2: W - RIGHT, y1: y(reference), y2: y(reference), class: "sx-chart-reference" }));
  lines.forEach(({ points }, index) => {
    const kind = index ? " sx-chart-second" : "",
      [endX, endY] = [x(points.at(-1)[0]), y(points.at(-1)[1])];
    if (points.length > 1)
      node.append(
        svg("path", {
          d: `M${points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join("L")}`,
          class: `sx-chart-path${kind}`,
        }),
      );
    node.append(
      index
        ? svg("rect", { x: endX - 3, y: endY - 3, width: 6, height: 6, class: `sx-chart-dot${kind}` })
        : svg("circle", { cx: endX, cy: endY, r: 3.5, class: "sx-chart-dot" }),
    );
  });
  return node;
}
