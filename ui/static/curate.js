// Curate: sort out the synthetic images, one by one or many at once, in a grid or on a map; by keys, and with a way back.
import { forget, lookAhead } from "./ahead.js";
import { MAX_COMPARED, openCompare } from "./compare.js";
import { askedFilter } from "./curate_filter.js";
import { curate, decided, DECISIONS, DetailView } from "./detail.js";
import { arrange, EMPTY, filterFrom, filterText, FOUND, itemsOf, MISSED, shortWords, sortsOf, STATES } from "./facts.js";
import { Filters } from "./filters.js";
import { VirtualGrid } from "./grid.js";
import {
  act,
  badge,
  classTag,
  get,
  h,
  isClassification,
  kbd,
  on,
  onKeys,
  onShow,
  order,
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
import { SampleMap } from "./map.js";
import { setMark } from "./marks.js";
import { Selection } from "./selection.js";

const SEGMENTS = [
  ["all", "All"],
  ["pending", "Open"],
  ["accepted", "Accepted"],
  ["rejected", "Rejected"],
  ["quarantined", "Quarantined"],
];
const WORDS = { pending: "", accepted: "accepted", rejected: "rejected", quarantined: "quarantine" };
const MAX_UNDO = 200,
  MAX_UNDO_TEXT = 1_000_000,
  DETAIL_MS = 90;
const number = (value) => value.toLocaleString("en-US");

export function mount(element) {
  new CurateTab(element);
}

class CurateTab {
  constructor(element) {
    Object.assign(this, { root: element, all: [], byId: new Map(), shown: [], places: new Map(), current: null, history: [] });
    Object.assign(this, { filter: EMPTY, columns: null, chosen: new Selection(), loads: new Set() });
    this.segments = segmented("State", SEGMENTS, "all", (name) => this.setFilter({ ...this.filter, state: name }));
    this.sort = selectField(
      "Sort",
      sortsOf(false),
      "newest",
      () => this.apply({ toTop: true }),
    );
    this.filters = new Filters({
      onchange: (filter) => this.setFilter(filter),
      measure: () => act(null, () => order("map", {})),
    });
    this.mode = segmented(
      "Show as",
      [
        ["grid", "Grid"],
        ["map", "Map"],
      ],
      "grid",
      (mode) => this.show(mode),
    );
    this.count = h("span", { class: "sx-note", role: "status", "aria-live": "polite" });
    this.grid = new VirtualGrid({
      width: 164,
      height: 226,
      make: () => this.makeCard(),
      update: (card, item, index) => this.updateCard(card, item, index),
      drop: (card) => this.dropCard(card),
      label: "Synthetic images",
    });
    this.map = new SampleMap({
      onchoose: (ids, adds) => this.lasso(ids, adds),
      onpick: (id, adds) => (adds ? this.toggle(id) : this.pick(id)),
    });
    this.detail = new DetailView(
      (curation) => this.decide(curation, [this.detail.sample.id]), // the one that is shown
      (id) => this.byId.get(id)?.curation,
    );
    this.bulk = h("div", { class: "sx-bulk", hidden: true, role: "group", "aria-label": "Chosen images" });
    this.empty = h("div", { class: "sx-empty sx-grid-empty", hidden: true });
    this.spoken = h("div", { class: "sx-spoken", role: "status", "aria-live": "polite" });
    this.hint = this.keyHint();
    element.classList.add("sx-curate");
    element.append(
      h(
        "section",
        { class: "sx-main-column" },
        h("div", { class: "sx-filter-row" }, this.segments, this.sort, this.filters.button, this.count, this.mode),
        this.filters.chips,
        this.filters.drawer,
        h("div", { class: "sx-grid-holder" }, this.grid.root, this.map.root, this.empty),
        h("div", { class: "sx-foot-row" }, this.hint, this.bulk),
        this.spoken,
      ),
      h("aside", { class: "sx-side-column", "aria-label": "Close look" }, this.detail.root),
    );
    onKeys(element, (event) => this.key(event));
    this.grid.root.addEventListener("keydown", (event) => this.chooseAllKey(event));
    // A project that comes while the tab is being opened has been asked for already.
    onShow(element, () => state.project && this.asked?.project !== state.project && this.load());
    on("samples", (change) => (change?.states ? this.decided(change) : this.renew()));
    on("marks", (change) => this.marked(change));
    on("undo", () => decided().then(() => this.undo())); // from a comparison, whose last decision may be on its way
    on("job:end", () => this.renew());
    on("curate:filter", () => this.columns && this.takeAsked());
    withProject(() => this.reset());
    element.dataset.ready = "1";
  }

  keyHint() {
    const keys = (letters, text) => [letters.map(kbd), ` ${text}  `];
    return h(
      "p",
      { class: "sx-hint" },
      keys(["A"], "accept"),
      keys(["R"], "reject"),
      keys(["Q"], "quarantine"),
      keys(["Z"], "undo"),
      keys(["F"], "flag"),
      keys(["S"], "favourite"),
      keys(["\u2190", "\u2192", "\u2191", "\u2193"], "move"),
      keys(["Shift"], "several"),
      keys(["X"], "add"),
      keys(["C"], "compare"),
      keys(["M"], "map"),
    );
  }

  // ---- what there is

  get memory() {
    return `saadi.curate.${state.project.id}.${state.project.created_at}`;
  }

  reset() {
    const kept = this.recall();
    Object.assign(this, { current: null, all: [], columns: null, filter: filterFrom(kept.filter) });
    this.history = this.recallHistory();
    this.chosen.clear();
    this.segments.set(this.filter.state);
    const sorts = sortsOf(isClassification());
    replace(this.sort.input, sorts.map(([key, text]) => h("option", { value: key }, text)));
    this.sort.input.value = sorts.some(([key]) => key === kept.sort) ? kept.sort : "newest";
    this.filters.toggle(false); // another task has other filters
    Object.assign(this.map, { data: null, items: null, limits: null });
    this.show(kept.mode === "map" ? "map" : "grid", false);
    if (this.root.offsetParent) this.load();
  }
  recall() {
    try {
      return JSON.parse(localStorage.getItem(this.memory) ?? "{}") ?? {};
    } catch {
      return {};
    }
  }
  /** The way back survives a reload of this tab: what was decided, and what was before. */
  recallHistory() {
    try {
      return JSON.parse(sessionStorage.getItem(`${this.memory}.undo`) ?? "[]");
    } catch {
      return [];
    }
  }
  setHistory(history) {
    this.history = history.slice(-MAX_UNDO);
    const key = `${this.memory}.undo`,
      sizeOf = (entry) => 60 * Object.keys(entry.before).length;
    // Decisions about thousands of images at once may be too large to keep; then the steps after them are kept.
    let room = MAX_UNDO_TEXT,
      first = this.history.length;
    while (first > 0 && (room -= sizeOf(this.history[first - 1])) >= 0) first--;
    try {
      sessionStorage.setItem(key, JSON.stringify(this.history.slice(first)));
    } catch {
      sessionStorage.removeItem(key); // no room: this tab goes back as long as it is open
    }
  }
  remember() {
    const kept = { filter: filterText(this.filter), sort: this.sort.input.value, mode: this.mode.value };
    localStorage.setItem(this.memory, JSON.stringify(kept));
  }

  /** There may be other images now; a hidden tab asks when it is shown, whatever is on its way. */
  renew() {
    this.asked = null;
    if (this.root.offsetParent) this.load();
  }

  async load() {
    const project = state.project,
      since = {};
    this.loads.add(since); // what is decided meanwhile, the answer may not know
    const mine = (this.asked = { project });
    await decided();
    const columns = await get(`/api/projects/${project.id}/facts`).finally(() => {
      this.loads.delete(since);
      if (this.asked === mine) this.asked = null;
    });
    if (state.project !== project) return;
    this.columns = columns;
    this.limits = columns.limits;
    this.all = itemsOf(columns);
    this.byId = new Map(this.all.map((item) => [item.id, item]));
    this.setStates(since);
    this.chosen.keep(this.byId);
    const before = this.current;
    if (!this.takeAsked()) this.apply();
    if (this.current && this.current === before) {
      forget(before); // scores or neighbours may have come
      // Never under the hands of who writes a note: the next letters would be keys.
      if (!this.detail.root.contains(document.activeElement) || !document.activeElement.matches("input"))
        act(null, () => this.detail.show(before));
    }
    if (this.map.isOpen) await this.map.load();
  }

  /** What was asked for in another tab. */
  takeAsked() {
    const asked = askedFilter();
    if (asked) this.setFilter({ ...EMPTY, ...asked });
    return Boolean(asked);
  }

  setFilter(filter) {
    this.filter = filter;
    this.segments.set(filter.state);
    this.apply({ toTop: true });
  }

  apply({ toTop = false } = {}) {
    if (!this.columns) return;
    this.shown = arrange(this.all, this.filter, this.sort.input.value);
    this.places = new Map(this.shown.map((item, index) => [item.id, index]));
    if (toTop) this.grid.root.scrollTop = 0;
    if (!this.places.has(this.current)) this.select(this.shown[0]?.id ?? null, false); // before the cards, one of which shows it
    this.grid.set(this.shown);
    const { versions, unmeasured } = this.columns,
      { classes } = state.project;
    this.filters.show(this.filter, { classes, versions, items: this.all, unmeasured, shown: this.shown.length });
    this.showCounts();
    this.showEmpty();
    this.showChosen(false);
    this.remember();
    this.root.dataset.loaded = String(this.shown.length);
  }

  showCounts() {
    const counts = Object.fromEntries(STATES.map((name) => [name, 0]));
    for (const item of this.all) counts[item.curation]++;
    const total = this.all.length,
      shown = this.shown.length === total ? `${number(total)} image${total === 1 ? "" : "s"}` : `${number(this.shown.length)} of ${number(total)}`;
    this.count.textContent = `${shown} \u00b7 ${number(counts.accepted)} accepted`;
    this.count.title = `${number(counts.pending)} open`;
  }

  showEmpty() {
    this.empty.hidden = this.shown.length > 0 || this.map.isOpen;
    if (this.empty.hidden) return;
    if (!this.all.length)
      replace(this.empty, `No synthetic images yet. Make some in ${isClassification() ? "Generate" : "Draw or Generate"}.`);
    else
      replace(
        this.empty,
        h("p", {}, `None of ${plural(this.all.length, "image")} passes these filters.`),
        h("button", { type: "button", class: "sx-button", onclick: () => this.setFilter(EMPTY) }, "Show all"),
      );
  }

  show(mode, remember = true) {
    this.mode.set(mode);
    const isMap = mode === "map";
    this.grid.root.hidden = isMap;
    this.map.root.hidden = !isMap;
    this.root.dataset.mode = mode;
    if (remember) this.remember();
    if (!this.columns) return;
    this.showEmpty();
    this.showChosen();
    if (isMap) act(null, () => this.map.load());
    else {
      this.grid.refresh();
      this.reveal();
    }
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
    card.addEventListener("dblclick", () => this.compare());
    return card;
  }

  /** Pictures asked for and passed by would stand in the queue before those on the screen. */
  dropCard(card) {
    const waiting = card.querySelector("img");
    if (!waiting || waiting.complete) return;
    waiting.removeAttribute("src");
    card.firstChild.dataset.id = "";
  }

  updateCard(card, item, index) {
    Object.assign(card.dataset, { index, id: item.id, state: item.curation });
    const isChosen = this.chosen.has(item.id);
    card.setAttribute("aria-selected", String(item.id === this.current || isChosen));
    card.classList.toggle("sx-current", item.id === this.current);
    card.classList.toggle("sx-chosen", isChosen);
    const [frame, foot] = card.children;
    if (frame.dataset.id !== String(item.id)) {
      this.dropCard(card);
      // In flight only the mean colour is shown: pictures that nobody will see would delay those that somebody will.
      frame.dataset.id = this.grid.isFlying ? "" : item.id;
      frame.style.backgroundColor = item.color ? `#${item.color}` : "";
      replace(
        frame,
        !this.grid.isFlying && picture(urls.thumb(item.blob, 256), `Synthetic image ${item.id}`, { loading: "eager" }),
        badge(item.isComposite ? "edited" : "synthetic"),
        h("span", { class: "sx-sample-marks" }),
      );
      card.dataset.key = ""; // the marks are to be filled in again
    }
    const marks = `${item.flagged ? "\u2691" : ""}${item.favourite ? "\u2605" : ""}`;
    const key = `${item.id} ${item.curation} ${marks} ${item.selector} ${item.judge} ${item.seen}`;
    if (card.dataset.key === key) return;
    card.dataset.key = key;
    frame.lastChild.textContent = marks;
    const level = item.selector === null ? "none" : item.selector >= FOUND ? "good" : item.selector >= MISSED ? "fair" : "weak";
    replace(
      foot,
      h("span", { class: "sx-sample-words" }, item.isClass ? classTag(item.classes[0]) : shortWords(item, this.columns.classes)),
      h(
        "div",
        { class: "sx-meter", dataset: { level } },
        h("i", { style: { width: `${100 * (item.selector ?? 0)}%` } }),
        item.judge !== null && h("b", { style: { left: `${100 * item.judge}%` } }),
      ),
      h("span", { class: "sx-cut", title: item.isClass ? shortWords(item, this.columns.classes) : null }, this.scoreOf(item)),
      h("span", { class: "sx-state" }, WORDS[item.curation]),
    );
  }

  /** The score of a card; of a class also what the classifier takes the image for, where that is another one. */
  scoreOf(item) {
    if (item.selector === null) return "no score";
    const isOther = item.isClass && item.seen !== null && item.seen !== item.classes[0];
    return percent(item.selector) + (isOther ? `, like ${this.columns.classes[item.seen]}` : "");
  }

  // ---- choosing

  click(index, event) {
    const item = this.shown[index];
    if (!item) return;
    if (event.shiftKey) this.chosen.extend(this.shown, this.current ?? item.id, item.id);
    else if (event.ctrlKey || event.metaKey) this.chosen.toggle(item.id);
    else this.chosen.clear();
    this.select(item.id);
  }
  pick(id) {
    this.chosen.clear();
    this.select(id);
  }
  toggle(id) {
    this.chosen.toggle(id);
    this.showChosen();
  }
  choose(ids) {
    this.chosen.set(ids);
    this.showChosen();
  }
  lasso(ids, adds) {
    if (adds) this.chosen.add(ids);
    else this.chosen.set(ids);
    this.showChosen();
    this.spoken.textContent = `${plural(this.chosen.size, "image")} chosen`;
  }

  select(id, refresh = true) {
    const isNew = this.current !== id;
    this.current = id;
    this.showChosen(refresh);
    // Whoever holds an arrow key flies past images; the server is asked for the one where they rest.
    clearTimeout(this.detailTimer);
    const ask = () =>
      act(null, async () => {
        await this.detail.show(id);
        const index = this.places.get(id);
        if (id === this.current && index !== undefined)
          lookAhead([1, 2, -1, this.grid.columns ?? 1].flatMap((step) => this.shown[index + step]?.id ?? []));
      });
    const now = performance.now();
    if (now - (this.lastSelect ?? -1e9) > DETAIL_MS) ask();
    else this.detailTimer = setTimeout(ask, DETAIL_MS);
    this.lastSelect = now;
    const item = this.byId.get(id);
    if (item && isNew && refresh)
      this.spoken.textContent = `Image ${id}, ${item.curation === "pending" ? "open" : item.curation}, ${shortWords(item, this.columns.classes)}`;
  }

  /** Grid, map and bulk bar follow what is chosen. */
  showChosen(refresh = true) {
    if (refresh && !this.map.isOpen) this.grid.refresh();
    if (this.map.isOpen) this.map.show({ items: this.all, shown: this.shown, chosen: this.chosen.ids, current: this.current, limits: this.limits });
    this.showBulk();
  }

  showBulk() {
    const { size } = this.chosen,
      several = size > 1 || (size === 1 && this.map.isOpen);
    this.bulk.hidden = !several;
    this.hint.hidden = several;
    if (!several) return;
    const link = (text, run) => h("button", { type: "button", class: "sx-link", onclick: run }, text);
    const button = (text, run, title) =>
      h("button", { type: "button", class: "sx-button sx-small", onclick: run, ...(title && { title }) }, text);
    replace(
      this.bulk,
      h("b", {}, `${number(size)} chosen`),
      DECISIONS.map(([curation, text]) => button(text, () => this.decide(curation))),
      button("\u2691", () => this.mark("flag"), "Flag (F)"),
      button("\u2605", () => this.mark("favourite"), "Favourite (S)"),
      size <= MAX_COMPARED && size > 1 && button("Compare", () => this.compare()),
      this.map.isOpen &&
        button("Show in grid", () => {
          this.setFilter({ ...this.filter, ids: new Set(this.chosen.ids) });
          this.show("grid");
        }),
      size < this.shown.length && link(`All ${number(this.shown.length)}`, () => this.choose(this.shown.map((item) => item.id))),
      link("None", () => this.choose([])),
    );
  }

  /** Ctrl+A in the grid chooses everything shown; elsewhere it stays the browser's. */
  chooseAllKey(event) {
    if (event.key.toLowerCase() !== "a" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    this.choose(this.shown.map((item) => item.id));
  }

  /** Those chosen, or else the current one. */
  subjects() {
    return this.chosen.size ? [...this.chosen.ids] : this.current ? [this.current] : [];
  }

  // ---- decisions

  /** Keys and the bulk bar decide on what is chosen; the buttons of the close look on the image they stand under. */
  decide(curation, ids = this.subjects()) {
    if (!ids.length) return;
    const index = this.places.get(this.current) ?? 0,
      next = (this.shown[index + 1] ?? this.shown[index - 1])?.id ?? this.current;
    const wanted = ids.length === 1 && this.byId.get(ids[0])?.curation === curation ? "pending" : curation;
    const states = Object.fromEntries(ids.map((id) => [id, wanted])),
      before = Object.fromEntries(ids.map((id) => [id, this.byId.get(id).curation]));
    if (ids.length === 1 && ids[0] === this.current) this.following = next;
    const entry = { before, states };
    this.setHistory([...this.history, entry]);
    if (ids.length > 1) {
      this.chosen.clear();
      toast(`${number(ids.length)} images ${curation}`, "good", { label: "Undo", run: () => this.undo(entry) });
    }
    this.send(states, before, () => this.setHistory(this.history.filter((other) => other !== entry)));
  }

  undo(entry = this.history.at(-1)) {
    if (!this.columns) return;
    if (!this.history.includes(entry)) return toast("Nothing to undo.");
    this.setHistory(this.history.filter((other) => other !== entry));
    const { before, states } = entry,
      ids = Object.keys(before).filter((id) => this.byId.get(Number(id))?.curation === states[id]),
      others = Object.keys(before).length - ids.length;
    if (others) this.staying(others);
    if (!ids.length) return;
    this.following = Number(ids[0]);
    const only = (values) => Object.fromEntries(ids.map((id) => [id, values[id]]));
    this.send(only(before), only(states), () => this.setHistory([...this.history, entry]), { expected: only(states) });
  }

  staying(count) {
    toast(`${plural(count, "image")} decided anew since: ${count === 1 ? "it stays" : "they stay"}.`);
  }

  /** Show new states at once and store them; where that fails, show what was before. */
  send(states, before, giveUp, options = {}) {
    this.put(states);
    return act(null, async () => {
      try {
        await curate(states, { origin: this, ...options });
      } catch (error) {
        giveUp();
        this.put(before);
        throw error;
      }
    });
  }

  /** A decision was stored elsewhere: in the close look or a comparison, which the key for undo takes back, too. */
  decided({ states, before, kept, isUndo, origin }) {
    const others = Object.keys(kept ?? {}).length; // somebody else has decided on these, and this page had not heard of it
    if (others) this.staying(others);
    if (origin === this && others) this.put(kept);
    if (origin === this || !Object.keys(states).some((id) => this.byId.has(Number(id)))) return;
    if (!isUndo) this.setHistory([...this.history, { before, states }]);
    else {
      const ids = Object.keys(states),
        taken = this.history.findLast((entry) => Object.keys(entry.before).length === ids.length && ids.every((id) => entry.before[id] === states[id]));
      this.setHistory(this.history.filter((entry) => entry !== taken));
    }
    this.put(states);
  }

  setStates(states) {
    for (const [id, curation] of Object.entries(states)) {
      const item = this.byId.get(Number(id));
      if (item) item.curation = curation;
    }
  }

  put(states) {
    this.setStates(states);
    for (const since of this.loads) Object.assign(since, states);
    if (this.following && this.byId.has(this.following)) this.current = this.following;
    this.following = null;
    this.apply();
    this.select(this.places.has(this.current) ? this.current : (this.shown[0]?.id ?? null));
    this.reveal();
  }

  /** Set the mark, or take it off where all of them have it. */
  mark(kind) {
    const ids = this.subjects(),
      name = kind === "flag" ? "flaggedByMe" : "favourite";
    if (!ids.length) return;
    return act(null, () => setMark(ids, kind, !ids.every((id) => this.byId.get(id)?.[name])));
  }
  marked({ ids, kind, isSet }) {
    if (!this.columns) return;
    for (const id of ids) {
      const item = this.byId.get(id);
      if (!item) continue;
      if (kind === "favourite") item.favourite = isSet;
      // Whether somebody else has flagged it too, the server knows; until it is asked, one's own flag counts.
      else [item.flaggedByMe, item.flagged] = [isSet, isSet];
    }
    this.apply();
  }

  compare() {
    const ids = this.chosen.size > 1 ? [...this.chosen.ids] : [];
    if (!ids.length) {
      // Nothing chosen: the images of the same mask (or class), the current one first.
      const own = this.byId.get(this.current);
      const same = this.shown.filter((item) => item.label_map_blob === own?.label_map_blob && item !== own);
      if (!own || !same.length) return toast("Choose two to four images to compare: Shift or Ctrl and click.");
      ids.push(own.id, ...same.slice(0, MAX_COMPARED - 1).map((item) => item.id));
    }
    if (ids.length > MAX_COMPARED) toast(`The first ${MAX_COMPARED} of ${ids.length} are compared.`);
    return act(null, () => openCompare(ids.slice(0, MAX_COMPARED).map((id) => ({ id }))));
  }

  reveal() {
    const index = this.places.get(this.current);
    if (index !== undefined && !this.map.isOpen) this.grid.reveal(index);
  }

  // ---- keys

  key(event) {
    if (event.target.closest?.("dialog")) return false;
    const key = event.key.toLowerCase(),
      decision = DECISIONS.find(([, , letter]) => letter.toLowerCase() === key);
    if (decision) this.decide(decision[0]);
    else if (key === "z") this.undo();
    else if (key === "f") this.mark("flag");
    else if (key === "s" || key === "*") this.mark("favourite");
    else if (key === "c") this.compare();
    else if (key === "m") this.show(this.map.isOpen ? "grid" : "map");
    else if (key === "x") this.current && this.toggle(this.current);
    else if (key === "escape") this.choose([]);
    else return this.moveKey(event);
    return true;
  }

  moveKey(event) {
    if (!this.shown.length || (/Page|Home|End/.test(event.key) && event.target.closest?.(".sx-side-column"))) return false;
    const columns = this.map.isOpen ? 1 : (this.grid.columns ?? 1),
      page = columns * (this.map.isOpen ? 10 : this.grid.visibleRows),
      last = this.shown.length - 1,
      now = this.places.get(this.current) ?? 0;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page };
    const goal = event.key === "Home" ? 0 : event.key === "End" ? last : event.key in steps ? now + steps[event.key] : null;
    if (goal === null) return false;
    const item = this.shown[Math.max(0, Math.min(last, goal))];
    if (event.shiftKey) this.chosen.extend(this.shown, this.current, item.id);
    else this.chosen.anchor = null;
    this.select(item.id);
    this.reveal();
    return true;
  }
}
