// "Paint like": a class is to look as in a real image that is chosen here. Shown where the generator has learnt to.
import { act, classTag, get, h, on, picture, plural, replace, state, urls, withProject } from "./lib.js";

export class References {
  /** Each `{ class_index, image_id, blob }`; `onchange()` is called when somebody chose or took away one. */
  constructor({ onchange = () => {} } = {}) {
    Object.assign(this, { onchange, chosen: [] });
    this.chips = h("div", { class: "sx-chips", role: "group", "aria-label": "Painted like" });
    this.button = h("button", { type: "button", class: "sx-button sx-small", onclick: () => act(this.button, () => this.open()) }, "Paint like\u2026");
    this.button.title = "A class is to look as in an image of yours: its colours and texture, in your mask's shape";
    this.root = h("div", { class: "sx-references", hidden: true }, this.button, this.chips);
    this.classes = h("div", { class: "sx-chips", role: "group", "aria-label": "What is painted" });
    this.grid = h("div", { class: "sx-reference-grid" });
    this.words = h("p", { class: "sx-note", role: "status", "aria-live": "polite" });
    this.dialog = h(
      "dialog",
      { class: "sx-dialog sx-reference-dialog", "aria-label": "Paint like" },
      h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => this.dialog.close() }, "\u00d7"),
      h("h2", {}, "Paint it like this one"),
      this.classes,
      this.words,
      this.grid,
    );
    document.body.append(this.dialog);
    on("overview", () => this.showIfKnown());
    withProject(() => {
      this.chosen = [];
      this.dialog.close();
      this.show();
      this.showIfKnown(); // of another project nothing is left in the overview
    });
  }

  showIfKnown() {
    this.root.hidden = !state.overview?.models?.engine?.paints_like;
    if (this.root.hidden && this.chosen.length) this.set([]);
  }

  /** As an order has it; undefined = none. */
  value() {
    if (this.root.hidden || !this.chosen.length) return undefined;
    return this.chosen.map(({ class_index, image_id, sample_id }) => (image_id ? { class_index, image_id } : { class_index, sample_id }));
  }

  set(chosen) {
    this.chosen = chosen;
    this.show();
    this.onchange();
  }

  show() {
    replace(
      this.chips,
      this.chosen.map((one) =>
        h(
          "button",
          {
            type: "button",
            class: "sx-chip",
            "aria-label": `Take away: ${state.project.classes[one.class_index]?.name} like image ${one.image_id ?? one.sample_id}`,
            onclick: () => {
              this.set(this.chosen.filter((other) => other !== one));
              (this.chips.querySelector("button") ?? this.button).focus();
            },
          },
          one.blob && picture(urls.thumb(one.blob, 64), "", { width: 22, height: 22 }),
          classTag(one.class_index),
          h("span", { "aria-hidden": "true" }, "\u00d7"),
        ),
      ),
    );
  }

  async open() {
    const own = state.project.classes.filter(({ index }) => index);
    replace(
      this.classes,
      own.map(({ index }) =>
        h("button", { type: "button", class: "sx-chip sx-chip-choice", dataset: { class: index }, onclick: () => act(null, () => this.offer(index)) }, classTag(index)),
      ),
    );
    replace(this.grid, null);
    this.words.textContent = "";
    this.dialog.showModal();
    await this.offer(this.chosen.at(-1)?.class_index ?? own[0].index);
  }

  /** Training images that show the class, those with most of it first. */
  async offer(index) {
    for (const button of this.classes.children) button.setAttribute("aria-pressed", String(Number(button.dataset.class) === index));
    replace(this.grid, null);
    const project = state.project,
      { items } = await get(`/api/projects/${project.id}/references?class_index=${index}`);
    if (state.project !== project || this.classes.querySelector("[aria-pressed=true]")?.dataset.class !== String(index)) return;
    const { name } = project.classes[index];
    this.words.textContent = items.length
      ? `Choose the image whose ${name} it is to look like (${plural(items.length, "training image")}). Its shape stays that of your mask.`
      : `No training image shows enough of ${name}.`;
    replace(
      this.grid,
      items.map((item) =>
        h(
          "button",
          {
            type: "button",
            class: "sx-reference-choice",
            title: item.name,
            onclick: () => {
              this.dialog.close();
              this.set([...this.chosen.filter((one) => one.class_index !== index), { class_index: index, image_id: item.id, blob: item.blob }]);
            },
          },
          picture(urls.thumb(item.blob, 192), `${name} in ${item.name}`, { loading: "eager" }),
        ),
      ),
    );
  }
}
