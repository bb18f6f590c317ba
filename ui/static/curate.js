// Curate: all synthetic images with their scores; decide one by one or many at once, by keys.
import { curate, DECISIONS, DetailView } from "./detail.js";
import { VirtualGrid } from "./grid.js";
import {
  act,
  badge,
  get,
  h,
  kbd,
  on,
  onKeys,
  onShow,
  percent,
  picture,
  plural,
  replace,
  segmented,
  selectField,
  state,
  toast,
  urls,
  withProject,
} from "./lib.js";

const GOOD = 0.7,
  WEAK = 0.4;
const FILTERS = [
  ["all", "All"],
  ["pending", "Open"],
  ["accepted", "Accepted"],
  ["rejected", "Rejected"],
  ["quarantined", "Quarantined"],
];
const SORTS = {
  newest: (a, b) => b.id - a.id,
  best: (a, b) => (b.dice ?? -1) - (a.dice ?? -1) || b.id - a.id,
  worst: (a, b) => (a.dice ?? 2) - (b.dice ?? 2) || b.id - a.id,
  doubtful: (a, b) => Math.abs((b.dice ?? 0) - (b.judge_dice ?? 0)) - Math.abs((a.dice ?? 0) - (a.judge_dice ?? 0)),
  mask: (a, b) => a.label_map_blob.localeCompare(b.label_map_blob) || a.id - b.id,
};

export function mount(element) {
  new CurateTab(element);
}

class CurateTab {
  constructor(element) {
    Object.assign(this, { root: element, all: [], shown: [], current: null, chosen: new Set(), anchor: 0, history: [] });
    this.filter = segmented("State", FILTERS, "all", () => this.apply());
    this.sort = selectField(
      "Order",
      [
        ["newest", "Newest first"],
        ["best", "Best first"],
        ["worst", "Worst first"],
        ["doubtful", "Models disagree"],
        ["mask", "By mask"],
      ],
      "newest",
      () => this.apply(),
    );
    this.version = selectField("Made by", [["", "any version"]], "", () => this.apply());
    this.count = h("span", { class: "sx-note" });
    this.grid = new VirtualGrid({
      width: 164,
      height: 206,
      make: () => this.makeCard(),
      update: (card, item, index) => this.updateCard(card, item, index),
      label: "Synthetic images",
    });
    this.detail = new DetailView((curation) => this.decide(curation));
    this.bulk = h("div", { class: "sx-bulk", hidden: true });
    element.classList.add("sx-curate");
    element.append(
      h(
        "section",
        { class: "sx-main-column" },
        h("div", { class: "sx-filter-row" }, this.filter, this.sort, this.version, this.count),
        this.bulk,
        this.grid.root,
        h(
          "p",
          { class: "sx-hint" },
          kbd("A"),
          " accept  ",
          kbd("R"),
          " reject  ",
          kbd("Q"),
          " quarantine  ",
          kbd("\u2190"),
          kbd("\u2192"),
          kbd("\u2191"),
          kbd("\u2193"),
          " move  ",
          kbd("Shift"),
          "+click several  ",
          kbd("X"),
          " add or leave out  ",
          kbd("Z"),
          " undo",
        ),
      ),
      h("aside", { class: "sx-side-column" }, this.detail.root),
    );
    onKeys(element, (event) => this.key(event));
    onShow(element, () => state.project && this.load());
    on("samples", () => element.offsetParent && this.load());
    on("job:end", () => element.offsetParent && this.load());
    withProject(() => {
      this.current = null;
      this.chosen.clear();
      this.history = [];
      this.load();
    });
    element.dataset.ready = "1";
  }

  async load() {
    const project = state.project;
    const { items } = await get(`/api/projects/${project.id}/samples`);
    if (state.project !== project) return;
    this.all = items;
    const versions = [...new Set(items.map((item) => item.adapter))].sort(),
      kept = this.version.input.value;
    replace(
      this.version.input,
      [["", "any version"], ...versions.map((name) => [name, name === "base" ? "base generator" : name])].map(([key, text]) =>
        h("option", { value: key }, text),
      ),
    );
    this.version.input.value = versions.includes(kept) ? kept : "";
    this.apply();
  }

  apply() {
    const wanted = this.filter.value,
      version = this.version.input.value;
    this.shown = this.all
      .filter((item) => (wanted === "all" || item.curation === wanted) && (!version || item.adapter === version))
      .sort(SORTS[this.sort.input.value]);
    this.grid.set(this.shown);
    const counts = Object.fromEntries(FILTERS.map(([name]) => [name, this.all.filter((item) => item.curation === name).length]));
    this.count.textContent = `${this.shown.length} of ${plural(this.all.length, "image")} \u00b7 ${counts.accepted} accepted, ${counts.pending} open`;
    if (!this.shown.some((item) => item.id === this.current)) this.select(this.shown[0]?.id ?? null, false);
    this.showBulk();
    this.root.dataset.loaded = String(this.shown.length);
  }

  // ---- cards

  makeCard() {
    const card = h(
      "div",
      { class: "sx-sample", role: "option" },
      h("div", { class: "sx-sample-picture" }),
      h("div", { class: "sx-sample-foot" }),
    );
    card.addEventListener("click", (event) => this.click(Number(card.dataset.index), event));
    return card;
  }

  updateCard(card, item, index) {
    Object.assign(card.dataset, { index, id: item.id, state: item.curation });
    card.setAttribute("aria-selected", String(item.id === this.current || this.chosen.has(item.id)));
    card.classList.toggle("sx-current", item.id === this.current);
    card.classList.toggle("sx-chosen", this.chosen.has(item.id));
    const [frame, foot] = card.children;
    if (frame.dataset.blob !== item.blob) {
      frame.dataset.blob = item.blob;
      replace(frame, picture(urls.thumb(item.blob, 256), `Synthetic image ${item.id}`), badge(item.badge));
    }
    const level = item.dice === null ? "none" : item.dice >= GOOD ? "good" : item.dice >= WEAK ? "fair" : "weak";
    replace(
      foot,
      h(
        "div",
        { class: "sx-meter", dataset: { level }, title: item.words },
        h("i", { style: { width: `${100 * (item.dice ?? 0)}%` } }),
        item.judge_dice !== null && h("b", { style: { left: `${100 * item.judge_dice}%` } }),
      ),
      h("span", {}, item.dice === null ? "no score" : percent(item.dice)),
      h(
        "span",
        { class: "sx-state" },
        { accepted: "accepted", rejected: "rejected", quarantined: "quarantine", pending: "" }[item.curation],
      ),
    );
  }

  click(index, event) {
    const item = this.shown[index];
    if (event.shiftKey)
      for (let i = Math.min(this.anchor, index); i <= Math.max(this.anchor, index); i++) this.chosen.add(this.shown[i].id);
    else if (event.ctrlKey || event.metaKey) this.toggle(item.id);
    else {
      this.chosen.clear();
      this.anchor = index;
    }
    this.select(item.id);
  }

  toggle(id) {
    if (!this.chosen.delete(id)) this.chosen.add(id);
    this.grid.refresh();
    this.showBulk();
  }

  select(id, refresh = true) {
    this.current = id;
    if (refresh) this.grid.refresh();
    this.showBulk();
    act(null, () => this.detail.show(id));
  }

  showBulk() {
    const several = this.chosen.size > 1;
    this.bulk.hidden = !several;
    if (several)
      replace(
        this.bulk,
        h("b", {}, `${this.chosen.size} chosen`),
        DECISIONS.map(([curation, text]) =>
          h("button", { type: "button", class: "sx-button sx-small", onclick: () => this.decide(curation) }, text),
        ),
        h(
          "button",
          {
            type: "button",
            class: "sx-link",
            onclick: () => {
              this.chosen = new Set(this.shown.map((item) => item.id));
              this.grid.refresh();
              this.showBulk();
            },
          },
          `Choose all ${this.shown.length}`,
        ),
        h(
          "button",
          {
            type: "button",
            class: "sx-link",
            onclick: () => {
              this.chosen.clear();
              this.grid.refresh();
              this.showBulk();
            },
          },
          "None",
        ),
      );
  }

  // ---- decisions

  decide(curation) {
    const ids = this.chosen.size ? [...this.chosen] : this.current ? [this.current] : [];
    if (!ids.length) return;
    const next = this.shown[this.shown.findIndex((item) => item.id === this.current) + 1]?.id ?? this.current;
    const isSame = ids.length === 1 && this.all.find((item) => item.id === ids[0])?.curation === curation;
    return act(null, async () => {
      const before = await curate(Object.fromEntries(ids.map((id) => [id, isSame ? "pending" : curation])));
      this.history.push(before);
      for (const item of this.all) if (ids.includes(item.id)) item.curation = isSame ? "pending" : curation;
      if (ids.length > 1) {
        toast(`${plural(ids.length, "image")} ${curation}`, "good", { label: "Undo", run: () => this.undo() });
        this.chosen.clear();
      } else this.current = next;
      this.apply();
      this.select(this.current);
      this.reveal();
    });
  }

  undo() {
    const before = this.history.pop();
    if (!before) return toast("Nothing to undo.");
    return act(null, async () => {
      await curate(before);
      await this.load();
      this.select(Number(Object.keys(before)[0]));
      this.reveal();
    });
  }

  reveal() {
    const index = this.shown.findIndex((item) => item.id === this.current);
    if (index >= 0) this.grid.reveal(index);
  }

  key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -(this.grid.columns ?? 1), ArrowDown: this.grid.columns ?? 1 };
    const decision = DECISIONS.find(([, , key]) => key.toLowerCase() === event.key.toLowerCase());
    if (decision) this.decide(decision[0]);
    else if (event.key.toLowerCase() === "z") this.undo();
    else if (event.key.toLowerCase() === "x") {
      if (this.current) this.toggle(this.current);
    } else if (event.key === "Escape") {
      this.chosen.clear();
      this.grid.refresh();
      this.showBulk();
    } else if (event.key in moves && this.shown.length) {
      const index = this.shown.findIndex((item) => item.id === this.current) + moves[event.key];
      const next = Math.max(0, Math.min(this.shown.length - 1, index));
      if (event.shiftKey) {
        this.chosen.add(this.current);
        this.chosen.add(this.shown[next].id);
      }
      this.anchor = next;
      this.select(this.shown[next].id);
      this.reveal();
    } else return false;
    return true;
  }
}
