// History: what was made for a mask in all its revisions, and my favourites. Nothing here changes what is open in Draw
// unless it is asked to, and then what was there can be had back.
import { openDetail } from "./detail.js";
import { favourites, star } from "./favourites.js";
import { act, badge, get, h, on, picture, replace, segmented, state, urls, when } from "./lib.js";

const MAX_FAVOURITES = 60;

export class History {
  /** `onShow(generation)`, `onSettings(generation)` and `onMask(generation)` are what a row offers. */
  constructor({ onShow, onSettings, onMask }) {
    Object.assign(this, { onShow, onSettings, onMask, items: [] });
    this.list = h("div", { class: "sx-history-list" });
    this.filter = segmented(
      "What the history shows",
      [
        ["mask", "This mask"],
        ["favourites", "\u2605 Favourites"],
      ],
      "mask",
      () => this.render(),
    );
    this.root = h("section", { class: "sx-history", "aria-label": "History", hidden: true }, this.filter, this.list);
    on("favourites", () => !this.root.hidden && this.filter.value === "favourites" && this.render());
  }

  /** Fetch what was made for these label maps. */
  async load(labelMapIds) {
    const ids = [...new Set(labelMapIds.filter(Boolean))].slice(0, 8),
      key = ids.join(",");
    this.key = key;
    const items = ids.length ? (await get(`/api/projects/${state.project.id}/generations?label_maps=${key}`)).items : [];
    if (this.key !== key) return;
    this.items = items;
    if (!this.root.hidden) this.render();
  }

  open(isOpen) {
    this.root.hidden = !isOpen;
    if (isOpen) this.render();
  }

  /** Of a part its source; else the image that the same seed and version gave, in the same picture if any, under the mask before
   * the present one; `null` where there is none. */
  before(sample) {
    if (sample.is_part) return sample.source_blob;
    const isBefore = (other) =>
      other.seed === sample.seed &&
      other.id < sample.id &&
      other.label_map_blob !== sample.label_map_blob &&
      !other.is_part &&
      other.source_blob === sample.source_blob;
    const items = this.items.filter((item) => item.version === sample.adapter);
    return items.flatMap((item) => item.samples).find(isBefore)?.blob ?? null;
  }

  render() {
    if (this.filter.value === "favourites") return act(null, () => this.renderFavourites());
    replace(
      this.list,
      this.items.length
        ? this.items.map((item) => this.row(item))
        : h("p", { class: "sx-empty" }, "Nothing was made for this mask yet."),
    );
  }

  row(item) {
    const last = item.samples.at(-1).seed;
    const facts = [
      `rev ${item.label_map_rev}`,
      String(item.seed) === last ? `seed ${last}` : `seeds ${item.seed}\u2013${last}`,
      `${item.num_inference_steps} steps`,
      item.settings.guidance_scale > 1 && `guidance ${item.settings.guidance_scale}`,
      item.version,
      item.part && "a part",
    ];
    const name = `${when(item.finished_at)}, ${item.created_by}`;
    return h(
      "article",
      { class: "sx-generation", dataset: { job: item.job_id } },
      h(
        "button",
        { type: "button", class: "sx-generation-strip", title: "Show these images", "aria-label": `Show the images of ${name}`, onclick: () => this.onShow(item) },
        picture(urls.mask(item.label_map_blob, 96), "", { class: "sx-generation-mask" }),
        item.samples.slice(0, 4).map((sample) => picture(urls.thumb(sample.blob, 128), "")),
      ),
      h("p", {}, h("b", {}, name), h("small", {}, facts.filter(Boolean).join(" \u00b7 "))),
      h(
        "div",
        { class: "sx-mini-row" },
        h("button", { type: "button", class: "sx-mini", title: "Your present settings are kept", onclick: () => this.onSettings(item) }, "Use these settings"),
        h("button", { type: "button", class: "sx-mini", title: "Opens as a new mask; nothing is overwritten", onclick: () => this.onMask(item) }, "Use this mask"),
      ),
    );
  }

  async renderFavourites() {
    const ids = favourites().slice(0, MAX_FAVOURITES);
    const items = ids.length ? (await get(`/api/samples?ids=${ids.join(",")}`)).items : [];
    if (this.filter.value !== "favourites") return;
    replace(
      this.list,
      items.length
        ? h(
            "div",
            { class: "sx-favourites" },
            items.map((item) =>
              h(
                "div",
                { class: "sx-favourite", dataset: { id: item.id } },
                h(
                  "button",
                  { type: "button", class: "sx-result-picture", title: "Look closer", onclick: () => openDetail(item.id) },
                  picture(urls.thumb(item.blob, 192), `Favourite, seed ${item.seed}`),
                  badge(item.badge),
                ),
                star(item.id),
              ),
            ),
          )
        : h("p", { class: "sx-empty" }, "Press the star on an image to find it again here."),
    );
  }
}
