// The classes of a classification project as large buttons, each with the number of real training images that show it.
import { classTag, emit, h, isClassification, plural, replace, state } from "./lib.js";

let asked = null; // what somebody chose elsewhere before Generate was ever opened

/** Choose classes for the next pool, from another tab. */
export function askFor(indices) {
  asked = { project: state.project.id, indices };
  emit("generate:classes", indices);
}

/** One button per class; `say(count)` is the line below its name. */
export function classButtons({ isPressed = null, onclick, say = (count) => (count ? plural(count, "real training image") : "no training image yet") }) {
  const shown = state.overview?.shown ?? {};
  return state.project.classes.map(({ index, name }) => {
    const count = shown[name] ?? 0;
    return h(
      "button",
      {
        type: "button",
        dataset: { class: index },
        disabled: !count, // the generator has never seen one
        ...(isPressed && { "aria-pressed": String(isPressed(index)) }),
        onclick: () => onclick(index),
      },
      classTag(index),
      h("small", {}, say(count)),
    );
  });
}

export class ClassChoice {
  constructor({ onchange }) {
    Object.assign(this, { onchange, wanted: null });
    this.grid = h("div", { class: "sx-class-choice", role: "group", "aria-label": "Classes" });
    const link = (text, wanted) => h("button", { type: "button", class: "sx-link", onclick: () => this.choose(wanted()) }, text);
    this.root = h(
      "div",
      { class: "sx-class-only sx-stack", id: "pool-classes" },
      this.grid,
      h("div", { class: "sx-row" }, link("All classes", () => null), link("None", () => []), link("The rarest", () => this.rarest())),
    );
  }

  /** Class indices, by index; at first all that there are images of. */
  get chosen() {
    const known = this.known();
    return this.wanted === null ? known : known.filter((index) => this.wanted.includes(index));
  }

  known() {
    const shown = state.overview?.shown ?? {};
    return (state.project?.classes ?? []).filter(({ name }) => shown[name]).map(({ index }) => index);
  }

  /** The class that the fewest training images show: more of it help most. */
  rarest() {
    const shown = state.overview?.shown ?? {},
      count = (index) => shown[state.project.classes[index].name];
    return [...this.known()].sort((one, two) => count(one) - count(two)).slice(0, 1);
  }

  reset() {
    this.wanted = asked?.project === state.project.id ? asked.indices : null;
    asked = null;
    replace(this.grid);
    delete this.grid.dataset.shown;
  }

  choose(indices) {
    asked = null;
    this.wanted = indices;
    this.show();
  }

  toggle(index) {
    const { chosen } = this;
    this.choose(chosen.includes(index) ? chosen.filter((other) => other !== index) : [...chosen, index]);
  }

  /** Built once per project and list of counts; else only the pressed states follow, so that nobody loses the focus. */
  show() {
    if (!isClassification() || !state.overview) return;
    const key = JSON.stringify([state.project.id, state.overview.shown]);
    if (this.grid.dataset.shown !== key) {
      replace(this.grid, classButtons({ isPressed: () => false, onclick: (index) => this.toggle(index) }));
      this.grid.dataset.shown = key;
    }
    const { chosen } = this;
    for (const button of this.grid.children) button.setAttribute("aria-pressed", String(chosen.includes(Number(button.dataset.class))));
    this.onchange();
  }
}
