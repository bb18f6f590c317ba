// A running alignment: curves, the alarms as lamps, and the same masks and seeds side by side as they change.
import { linesChart } from "./chart.js";
import { badge, byTask, fixed, h, isClassification, onKeys, picture, replace, urls } from "./lib.js";

/** [title, digits, reference line or "start" for the value at step 0, lines as [metric, name, smoothed over so many steps]] */
const CHARTS = [
  ["Loss", 3, null, [["loss", "", 5]]],
  [
    "Pairs ranked right",
    2,
    0.5,
    [
      ["accuracy", "learned", 1],
      ["held_accuracy", "held out", 1],
    ],
  ],
  [
    "Error (present version = 1)",
    3,
    1,
    [
      ["winner_error", "winner", 9],
      ["loser_error", "loser", 9],
    ],
  ],
  ["Wins against the present version", 2, 0.5, [["win_rate", "", 1]]],
  [() => (isClassification() ? "Probability of the asked class" : "Overlap with the drawn mask"), 3, "start", [["dice", "", 1]]],
  [
    "Distance to real images (lower is better)",
    2,
    "start",
    [["feature_distance", "", 1]],
  ],
];

/** Running mean over the last `width` points: single steps of eight pairs jump about. */
export function smoothed(points, width) {
  return points.map(([step], index) => {
    const part = points.slice(Math.max(0, index - width + 1), index + 1);
    return [step, part.reduce((sum, point) => sum + point[1], 0) / part.length];
  });
}

/**
 * The alarms as they stand: [{ name, state: "calm" | "near" | "alarm" | "idle", value, words }]. `alarms` are the server's limits;
 * each lamp reads the same number that stops a run or turns a version down.
 */
export function lamps(metrics, alarms) {
  const last = (name) => metrics[name]?.at(-1)?.[1];
  const lamp = (name, value, limit, near, start, words) => ({
    name,
    value,
    state: value === undefined ? "idle" : value > limit ? "alarm" : value > near ? "near" : "calm",
    words: value === undefined ? start : words,
  });
  const gap = last("accuracy_gap"),
    held = last("held_pairs"),
    ratio = last("winner_ratio"),
    newest = (metrics.gradient_ratio ?? []).slice(-alarms.gradient_steps).map((point) => point[1]);
  // It stops at so many steps in a row, so the smallest of them is what counts; one high step is near.
  const jump = newest.length ? Math.max(...newest) : undefined,
    lasting = newest.length === alarms.gradient_steps ? Math.min(...newest) : 0;
  const gradient = lamp("Gradient", jump, Infinity, 0.6 * alarms.gradient_ratio, "after 20 steps", "");
  if (jump !== undefined) {
    gradient.words = `${fixed(jump, 1)} \u00d7 usual; alarm above ${alarms.gradient_ratio}, ${alarms.gradient_steps} times`;
    if (lasting > alarms.gradient_ratio) gradient.state = "alarm";
  }
  const judged = held === undefined || held >= alarms.min_held_pairs;
  return [
    lamp(
      "Winner error",
      ratio,
      alarms.winner_ratio,
      1.1,
      "at the first test",
      `${fixed(ratio)} \u00d7 before; alarm above ${alarms.winner_ratio}`,
    ),
    judged
      ? lamp(
          "Learning by heart",
          gap,
          alarms.accuracy_gap,
          0.1,
          "at the first test",
          `gap ${fixed(gap)}; alarm above ${alarms.accuracy_gap}`,
        )
      : {
          name: "Learning by heart",
          state: "idle",
          words: `not judged: ${held} held-out pairs, ${alarms.min_held_pairs} needed`,
        },
    gradient,
    metrics.not_a_number
      ? { name: "Numbers", state: "alarm", words: "the gradient is no longer a number; stopped" }
      : { name: "Numbers", state: last("loss") === undefined ? "idle" : "calm", words: "all are finite" },
  ];
}

/** One sentence over the lamps. */
export function lampsInWords(found) {
  const named = (state) => found.filter((lamp) => lamp.state === state).map((lamp) => lamp.name.toLowerCase());
  const [fired, near] = [named("alarm"), named("near")];
  if (fired.length) return `Alarm: ${fired.join(", ")}.`;
  if (near.length) return `Watch: ${near.join(", ")}.`;
  return found.some((lamp) => lamp.state === "calm") ? "All calm." : "Not measured yet.";
}

const MARKS = { calm: "\u2713", near: "\u25b2", alarm: "\u2716", idle: "\u2013" };

/** Live pictures as rows (masks) of [step, blob], and the label map of each row. */
export function pictureRows(images) {
  const rows = new Map(),
    maps = new Map();
  for (const [name, step, blob] of images) {
    const [, kind, number] = /^(image|label map) (\d+)$/.exec(name) ?? [];
    if (kind === "label map") maps.set(Number(number), blob);
    if (kind === "image") (rows.get(Number(number)) ?? rows.set(Number(number), []).get(Number(number))).push([step, blob]);
  }
  return [...rows]
    .sort((a, b) => a[0] - b[0])
    .map(([number, cells]) => ({ number, map: maps.get(number) ?? null, cells: cells.sort((a, b) => a[0] - b[0]) }));
}

export class Curves {
  constructor() {
    this.lampsText = h("b", { role: "status" });
    this.lampsRow = h("ul", { class: "sx-lamps" });
    this.charts = h("div", { class: "sx-charts" });
    this.strip = h("div", { class: "sx-side-by-side" });
    this.root = h(
      "div",
      { class: "sx-live" },
      h("div", { class: "sx-live-head" }, this.lampsText, this.lampsRow),
      h("div", { class: "sx-live-body" }, this.strip, this.charts),
    );
    onKeys(this.root, (event) => event.key.toLowerCase() === "h" && this.showOutlines(true));
    document.addEventListener("keyup", (event) => event.key.toLowerCase() === "h" && this.showOutlines(false));
  }

  clear() {
    [this.charts, this.strip, this.lampsRow].forEach((node) => replace(node));
    delete this.strip.dataset.key;
    this.lampsText.textContent = "";
  }

  show(job, alarms) {
    this.showLamps(lamps(job.metrics, alarms));
    replace(
      this.charts,
      CHARTS.map((chart) => this.chart(job, chart)),
    );
    this.showPictures(pictureRows(job.images));
  }

  showLamps(found) {
    const words = lampsInWords(found);
    if (this.lampsText.textContent !== words) this.lampsText.textContent = words; // said once, when it changes
    replace(
      this.lampsRow,
      found.map((lamp) =>
        h(
          "li",
          { dataset: { lamp: lamp.name, state: lamp.state }, title: lamp.words },
          h("span", { "aria-hidden": "true" }, MARKS[lamp.state]),
          h("span", {}, h("b", {}, lamp.name), h("small", {}, lamp.words)),
        ),
      ),
    );
  }

  chart(job, [named, digits, wanted, lines]) {
    const title = typeof named === "function" ? named() : named;
    const series = lines
      .map(([metric, name, width]) => ({ name, metric, points: smoothed(job.metrics[metric] ?? [], width) }))
      .filter(({ points }) => points.length);
    if (!series.length) return null;
    const reference = wanted === "start" ? (series[0].points[0][0] === 0 ? series[0].points[0][1] : null) : wanted;
    return h(
      "figure",
      { class: "sx-figure", dataset: { curve: series[0].metric } },
      h(
        "figcaption",
        {},
        h("span", {}, title),
        series.map(({ name, points }, index) =>
          h(
            "b",
            { class: index ? "sx-second" : "" },
            name && h("small", {}, `${index ? "\u25a0" : "\u25cf"} ${name} `),
            fixed(points.at(-1)[1], digits),
          ),
        ),
      ),
      linesChart(series, { label: title, reference, digits, until: job.total }),
    );
  }

  showPictures(rows) {
    const key = rows.map((row) => row.cells.map((cell) => cell[1]).join()).join(";");
    if (this.strip.dataset.key === key) return;
    this.strip.dataset.key = key;
    this.rows = rows;
    if (!rows.length) return replace(this.strip);
    const steps = rows[0].cells.map((cell) => cell[0]);
    const table = h(
      "table",
      {},
      h("caption", {}, byTask(["The same masks and seeds, test by test. Hold ", h("kbd", {}, "H"), " for the mask."], "The same classes and seeds, test by test.")),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          steps.map((step) => h("th", { scope: "col" }, step === 0 ? "now in use" : `step ${step}`)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.cells.map(([step, blob]) => h("td", {}, this.cell(row, step, blob))),
          ),
        ),
      ),
    );
    replace(this.strip, table);
    this.strip.scrollLeft = this.strip.scrollWidth; // the newest
  }

  cell(row, step, blob) {
    const what = step === 0 ? "present version" : `step ${step}`;
    return h("figure", {}, picture(urls.thumb(blob, 256), `${isClassification() ? "Image" : "Mask"} ${row.number}, ${what}`), badge("synthetic"));
  }

  showOutlines(shown) {
    this.strip.classList.toggle("sx-outlined", shown);
    if (!shown || this.strip.dataset.outlined === this.strip.dataset.key) return shown;
    this.strip.dataset.outlined = this.strip.dataset.key;
    this.strip.querySelectorAll("tbody tr").forEach((line, number) => {
      const row = this.rows[number];
      if (row.map)
        line.querySelectorAll("figure").forEach((figure, index) => {
          figure.append(picture(urls.outline(row.map, row.cells[index][1], 256), "", { class: "sx-outline" }));
        });
    });
    return shown;
  }
}

/** Two rows of pictures, same masks and seeds, before and after. */
export function beforeAfter(before, after, masks) {
  const row = (name, blobs, address, mark) =>
    h(
      "div",
      { class: "sx-compare-row" },
      h("b", {}, name),
      blobs
        .slice(0, 8)
        .map((blob, index) => h("figure", {}, picture(address(blob, 256), `${name} ${index + 1}`), mark && badge("synthetic"))),
    );
  return h(
    "div",
    { class: "sx-compare", style: { "--n": Math.min(8, before.length) } },
    masks.length && !isClassification() ? row("Asked", masks, urls.mask, false) : null,
    row("Before", before, urls.thumb, true),
    row("After", after, urls.thumb, true),
  );
}
