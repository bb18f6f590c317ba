// Live curves and pictures of one job, named in plain words.
import { lineChart } from "./chart.js";
import { badge, fixed, h, picture, replace, urls } from "./lib.js";

const NAMES = {
  win_rate: ["Wins against the present version", 2, 0.5],
  dice: ["Overlap with the drawn mask", 3, null],
  feature_distance: ["Distance to real images (lower is better)", 2, null],
  accuracy: ["Pairs it ranks right", 2, 0.5],
  loss: ["Loss", 3, null],
  winner_ratio: ["Winner's error against base", 2, 1],
  images_per_second: ["Images per second", 1, null],
};

export class Curves {
  constructor() {
    this.charts = h("div", { class: "sx-charts" });
    this.strip = h("div", { class: "sx-strip-images" });
    this.root = h("div", { class: "sx-stack" }, this.charts, this.strip);
  }
  clear() {
    replace(this.charts);
    replace(this.strip);
  }

  show(job) {
    const names = [
      ...Object.keys(NAMES).filter((name) => job.metrics[name]?.length),
      ...Object.keys(job.metrics).filter((name) => !(name in NAMES)),
    ].slice(0, 6);
    replace(
      this.charts,
      names.map((name) => {
        const [title, digits, reference] = NAMES[name] ?? [name.replaceAll("_", " "), 3, null],
          points = job.metrics[name];
        return h(
          "figure",
          { class: "sx-figure", dataset: { curve: name } },
          h("figcaption", {}, h("span", {}, title), h("b", {}, fixed(points.at(-1)[1], digits))),
          lineChart(points, { label: title, reference, digits }),
        );
      }),
    );
    const newest = new Map(job.images.map(([name, step, blob]) => [name, { step, blob }]));
    const key = [...newest.values()].map((item) => item.blob).join();
    if (this.strip.dataset.key === key) return;
    this.strip.dataset.key = key;
    replace(
      this.strip,
      [...newest]
        .slice(0, 12)
        .map(([name, { blob, step }]) =>
          h("figure", {}, picture(urls.thumb(blob, 256), `${name} at step ${step}`), badge("synthetic")),
        ),
      newest.size ? h("figcaption", {}, "The same masks and seeds, as it learns") : null,
    );
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
    masks.length ? row("Asked", masks, urls.mask, false) : null,
    row("Before", before, urls.thumb, true),
    row("After", after, urls.thumb, true),
  );
}
