// Numbers with their 95 % intervals as rows of dots and lines, inline SVG in the theme's colours.
import { fixed, svg } from "./lib.js";

const W = 640,
  ROW = 30,
  LEFT = 224,
  RIGHT = 62,
  TOP = 6,
  BOTTOM = 24;

/**
 * One row per item: { name, value: [mean, low, high], kind, missing: what is said where there is no value }. `reference` draws a dashed line, `band` its interval.
 * A dot's shape tells the kind, not its colour alone: "real" is hollow, all else is filled.
 */
export function intervalChart(rows, { label, reference = null, band = null, digits = 2, signed = false }) {
  const known = rows.filter(({ value }) => value && value[0] !== null);
  const ends = known.flatMap(({ value }) => value.filter((part) => part !== null));
  const marks = [...ends, ...(reference === null ? [] : [reference])],
    low = Math.min(...marks),
    high = Math.max(...marks),
    pad = (high - low || Math.abs(high) || 1) * 0.06;
  const x = (value) => LEFT + ((value - low + pad) / (high - low + 2 * pad)) * (W - LEFT - RIGHT),
    height = TOP + rows.length * ROW + BOTTOM;
  const said = (value) => (signed && value > 0 ? "+" : "") + fixed(value, digits);
  const words = known.map(({ name, value }) => `${name} ${said(value[0])} (${said(value[1])} to ${said(value[2])})`);
  const node = svg("svg", {
    viewBox: `0 0 ${W} ${height}`,
    role: "img",
    "aria-label": `${label}: ${words.join("; ")}`,
    class: "sx-intervals",
  });
  if (band) node.append(svg("rect", { x: x(band[1]), y: TOP, width: x(band[2]) - x(band[1]), height: rows.length * ROW, class: "sx-band" }));
  if (reference !== null)
    node.append(svg("line", { x1: x(reference), x2: x(reference), y1: TOP, y2: height - BOTTOM + 4, class: "sx-chart-reference" }));
  rows.forEach(({ name, value, kind, missing }, index) => {
    const y = TOP + index * ROW + ROW / 2;
    node.append(svg("text", { x: LEFT - 10, y: y + 4, "text-anchor": "end", class: "sx-interval-name" }, name));
    if (!value || value[0] === null) {
      node.append(svg("text", { x: LEFT, y: y + 4, class: "sx-chart-text" }, missing ?? "not measured yet"));
      return;
    }
    const [mean, from, to] = value;
    if (from !== null && to !== from)
      node.append(svg("line", { x1: x(from), x2: x(to), y1: y, y2: y, class: `sx-interval sx-interval-${kind}` }));
    node.append(
      svg("circle", { cx: x(mean), cy: y, r: 5, class: `sx-dot sx-dot-${kind}` }),
      svg("text", { x: W - 4, y: y + 4, "text-anchor": "end", class: "sx-interval-value" }, said(mean)),
    );
  });
  for (const value of [low, (low + high) / 2, high])
    node.append(svg("text", { x: x(value), y: height - 6, "text-anchor": "middle", class: "sx-chart-text" }, said(value)));
  return node;
}
