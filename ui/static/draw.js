// Draw: filmstrip, canvas, and four synthetic images beside it.
import { askFor, classButtons } from "./class_choice.js";
import { DrawResults } from "./draw_results.js";
import { DrawTools, showKeys } from "./draw_tools.js";
import { MaskCanvas } from "./canvas.js";
import { decode } from "./codec.js";
import { decide } from "./conflict.js";
import { keepCopy, recover, Saver } from "./journal.js";
import { checksum, keepStep, stepsFor } from "./keep.js";
import { Suggestions } from "./suggest.js";
import {
  act,
  ago,
  ApiError,
  badge,
  finished,
  get,
  h,
  isClassification,
  loading,
  on,
  onKeys,
  onShow,
  openTab,
  order,
  picture,
  post,
  remember,
  replace,
  requestId,
  segmented,
  state,
  toast,
  urls,
  withProject,
} from "./lib.js";

const LOOK_AHEAD_MS = 300;
const RECOVERY_MS = 4000;

export function mount(element) {
  new DrawTab(element);
}

class DrawTab {
  constructor(element) {
    this.canvas = new MaskCanvas({ onCommit: (labels, step) => this.commit(labels, step), onChange: () => this.tools.show() });
    this.tools = new DrawTools(this.canvas, { onModel: () => this.loadModel() });
    this.results = new DrawResults(
      () => this.generate(),
      (revision) => this.openRevision(revision),
    );
    this.doc = null;
    this.images = [];
    this.drawings = [];
    this.savedAt = 0;
    this.saveState = "saved";
    this.build(element);
    this.listen();
    withProject((project) => this.openProject(project));
    element.dataset.ready = "1";
  }

  // ---- layout

  build(element) {
    this.root = element;
    element.classList.add("sx-draw");
    this.film = h("div", { class: "sx-film-list", role: "group", "aria-label": "Filmstrip" });
    this.filmKind = segmented(
      "Filmstrip",
      [
        ["real", "Real"],
        ["mine", "Mine"],
      ],
      "real",
      () => this.showFilm(),
    );
    this.status = h("span", { class: "sx-save", role: "status", "aria-live": "polite" });
    this.title = h("span", { class: "sx-doc" });
    this.mode = segmented(
      "What strokes change",
      [
        ["variant", "New variant"],
        ["correct", "Correct the real mask"],
      ],
      "variant",
      (mode) => this.switchMode(mode),
    );
    element.append(
      h(
        "aside",
        { class: "sx-film", "aria-label": "Images" },
        this.filmKind,
        h("button", { type: "button", class: "sx-button sx-small", onclick: () => this.openEmpty() }, "New mask"),
        h("button", { type: "button", class: "sx-button sx-small", id: "draw-suggest", title: "Twelve new masks like the real ones", onclick: () => this.suggest() }, "Suggest \u2026"),
        this.film,
      ),
      h(
        "section",
        { class: "sx-stage-column" },
        h("div", { class: "sx-stage-head" }, this.title, this.mode, this.status),
        this.tools.bar,
        this.tools.palette,
        h(
          "div",
          { class: "sx-view-frame" },
          this.canvas.view,
          (this.badges = h("div", { class: "sx-badges" })),
        ),
        this.tools.hint,
      ),
      this.results.root,
      this.buildNoMasks(),
    );
  }

  /** What a classification project shows here: no canvas, but the way to new images of a class. */
  buildNoMasks() {
    this.classes = h("div", { class: "sx-class-choice", role: "group", "aria-label": "Classes" });
    return h(
      "section",
      { class: "sx-no-masks", "aria-label": "Classes" },
      h(
        "div",
        { class: "sx-card sx-stack" },
        h("h2", {}, "Nothing to draw in this project"),
        h("p", {}, "Each image here shows one class as a whole, so there are no masks to paint. Choose a class to make new images of it:"),
        this.classes,
        (this.classesNote = h("p", { class: "sx-note" })),
      ),
    );
  }

  showNoMasks() {
    if (!isClassification() || !state.overview) return;
    const key = JSON.stringify([state.project.id, state.overview.shown]);
    if (this.classes.dataset.shown === key) return;
    this.classes.dataset.shown = key;
    const make = (index) => {
      openTab("generate");
      askFor([index]);
    };
    replace(this.classes, classButtons({ onclick: make }));
    this.classesNote.textContent = Object.keys(state.overview.shown).length
      ? "Then sort the images out in Curate and choose the better ones in Vote."
      : "There are no real images with a class yet. Import some in Data: a folder per class, or a table.";
  }

  listen() {
    on("overview", () => this.showNoMasks());
    onKeys(this.root, (event) => {
      if (isClassification()) return false;
      if (event.key === "Escape" && !this.canvas.isBusy() && this.results.escape(event)) return true;
      if (event.key.toLowerCase() === "c") {
        this.results.holdBefore(true);
        return true;
      }
      if (event.key === "?") {
        showKeys();
        return true;
      }
      return this.canvas.key(event);
    });
    document.addEventListener("keydown", (event) => {
      // undo and redo carry Ctrl, which onKeys leaves to the browser
      if (isClassification()) return;
      if (
        (event.ctrlKey || event.metaKey) &&
        this.root.offsetParent &&
        !event.composedPath()[0].closest?.("input[type=number],input[type=text],textarea,select,dialog") &&
        this.canvas.key(event)
      )
        event.preventDefault();
    });
    document.addEventListener("keydown", (event) => {
      // from the fields of the strip, too
      const isMine = (event.ctrlKey || event.metaKey) && event.key === "Enter" && !event.repeat;
      if (!isMine || isClassification() || !this.root.offsetParent || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.results.start();
    });
    document.addEventListener("keyup", (event) => {
      this.canvas.keyUp(event);
      if (event.key.toLowerCase() === "c") this.results.holdBefore(false);
    });
    addEventListener("blur", () => {
      this.canvas.isSpace = false;
      this.canvas.setHidden(false);
      this.results.holdBefore(false);
    });
    setInterval(() => this.showSaved(), 1000);
    addEventListener("pagehide", () => this.keepView());
    document.addEventListener("visibilitychange", () => (document.hidden ? this.keepView() : this.lookForNewer()));
    onShow(this.root, () => {
      if (isClassification()) return;
      if (this.canvas.isFitted) this.canvas.fit();
      if (state.project) this.loadFilm();
      this.lookForNewer();
    });
    on("draw:open", ({ image, label_map_id }) => this.openById(image, label_map_id));
    on("draw:revision", (revision) => act(null, () => this.openRevision(revision)));
    on("library", async () => {
      // the demo project is complete, or images were imported
      if (isClassification()) return;
      this.loadAreas(state.project);
      await this.loadFilm();
      if (this.images.length && (!this.doc || (this.doc.mode === "empty" && !this.doc.isTouched)))
        await this.openImage(this.images[0]);
    });
  }

  // ---- filmstrip

  async openProject(project) {
    this.turn = null; // what was being opened in another project is not shown here
    if (isClassification()) {
      clearTimeout(this.lookingAhead);
      this.canvas.finish();
      this.doc = null; // what was drawn in another project is in the journal or on the server
      this.root.dataset.loaded = "";
      this.showNoMasks();
      return;
    }
    this.tools.showClasses(project.classes);
    this.tools.show();
    this.loadAreas(project);
    this.root.dataset.loaded = "";
    // Where the program refuses for long, drawing does not wait: what is left stays in the journal and is sent when it can be.
    const recovered = recover(project, (name, message) => this.setSaveState(name, message));
    await Promise.race([recovered, new Promise((resolve) => setTimeout(resolve, RECOVERY_MS))]);
    recovered.then((found) => found.length && state.project === project && this.loadFilm().catch(() => {}));
    if (state.project !== project) return;
    await this.loadFilm();
    const last = JSON.parse(localStorage.getItem(`saadi.draw.last.${project.id}.${project.created_at}`) ?? "null");
    const image = this.images.find((item) => item.id === last?.image_id) ?? null;
    const drawing = this.drawings.find((item) => item.id === last?.label_map_id);
    if (drawing) await this.openDrawing(drawing, this.underlayOf(drawing));
    else if (image || this.images.length) await this.openImage(image ?? this.images[0]);
    else await this.openEmpty();
  }

  async loadAreas(project) {
    this.tools.areas = null;
    const areas = await get(`/api/projects/${project.id}/class_areas`).catch(() => null);
    if (state.project === project) this.tools.areas = areas;
    this.tools.measure();
  }

  async loadFilm() {
    const project = state.project;
    const [images, drawings] = await Promise.all([
      get(`/api/projects/${project.id}/images?limit=400`),
      get(`/api/projects/${project.id}/drawings`),
    ]);
    if (state.project !== project) return;
    this.images = images.items;
    this.drawings = drawings.items;
    this.showFilm();
  }

  showFilm() {
    const mine = this.filmKind.value === "mine",
      items = mine ? this.drawings : this.images;
    replace(
      this.film,
      items.map((item) => {
        const source = mine
          ? urls.mask(item.blob, 128)
          : item.label_map_blob
            ? urls.overlay(item.blob, item.label_map_blob, 128)
            : urls.thumb(item.blob, 128);
        return h(
          "button",
          {
            type: "button",
            class: "sx-frame",
            title: item.name,
            dataset: { id: item.id },
            onclick: () => act(null, () => (mine ? this.openDrawing(item, this.underlayOf(item)) : this.openImage(item))),
          },
          picture(source, item.name, { width: 96, height: 96 }),
          mine ? h("span", { class: "sx-badge sx-badge-edited" }, "MASK") : badge("real"),
        );
      }),
      items.length
        ? null
        : h(
            "p",
            { class: "sx-empty" },
            mine ? "Masks that you draw appear here." : "No images yet. Import a folder in Data, or draw an empty mask.",
          ),
    );
    this.markFilm();
  }

  markFilm() {
    const mine = this.filmKind.value === "mine",
      id = mine ? this.doc?.saver.id : this.doc?.image?.id;
    for (const node of this.film.children) node.setAttribute("aria-current", String(+node.dataset.id === id));
  }

  underlayOf(drawing) {
    return this.images.find((image) => image.id === drawing.underlay_id) ?? null;
  }

  // ---- documents

  async openById(image, id) {
    if (!this.images.length) await this.loadFilm();
    if (image) return this.openImage(image);
    const record = await get(`/api/label_maps/${id}`);
    const real = this.images.find((item) => item.id === record.image_id);
    return real ? this.openImage(real) : this.openDrawing(record, this.underlayOf(record));
  }

  /** An earlier revision as a new mask of one's own; the one it comes from stays as it is. */
  async openRevision({ label_map_id, rev }) {
    const made = await post("/api/label_maps/from_revision", { label_map_id, rev, request_id: requestId() });
    await this.loadFilm();
    await this.openDrawing(made, this.underlayOf(made));
  }

  async openImage(image) {
    const turn = (this.turn = {});
    const picture = this.ahead?.get(image.blob) ?? loading(urls.image(image.blob));
    const stored = image.label_map_id ? await get(`/api/label_maps/${image.label_map_id}`) : null;
    const size = stored ?? { w: image.width, h: image.height };
    const labels = stored ? await decode(stored.labels) : new Uint8Array(size.w * size.h);
    if (this.turn !== turn) return false; // another was opened meanwhile
    this.show({ image, picture, stored, labels, ...pickSize(size), name: image.name, mode: stored ? "variant" : "annotate" });
    this.lookAhead();
    return true;
  }

  /** The pixels of the images beside this one in the filmstrip, once the browser has nothing else to do. */
  lookAhead() {
    clearTimeout(this.lookingAhead);
    this.lookingAhead = setTimeout(() => {
      const at = this.images.findIndex((image) => image.id === this.doc.image?.id);
      const beside = at < 0 ? [] : [this.images[at + 1], this.images[at - 1]].filter(Boolean);
      this.ahead = new Map(beside.map(({ blob }) => [blob, this.ahead?.get(blob) ?? loading(urls.image(blob), "low")]));
      // One that could not be read (the program was away) is asked for anew when it is opened.
      for (const [blob, picture] of this.ahead) picture.decode().catch(() => this.ahead.get(blob) === picture && this.ahead.delete(blob));
    }, LOOK_AHEAD_MS);
  }

  async openDrawing(record, image) {
    const turn = (this.turn = {});
    const picture = image && loading(urls.image(image.blob));
    const stored = await get(`/api/label_maps/${record.id}`);
    const labels = await decode(stored.labels);
    if (this.turn !== turn) return;
    this.show({ image, picture, stored, labels, ...pickSize(stored), name: stored.name, mode: "drawing" });
  }

  async openEmpty() {
    this.turn = {};
    const side = state.project.resolution;
    this.show({
      image: null,
      stored: null,
      labels: new Uint8Array(side * side),
      w: side,
      h: side,
      name: "empty mask",
      mode: "empty",
    });
  }

  show(doc) {
    this.canvas.finish(); // a stroke that is still held belongs to the mask it began on
    this.doc = doc;
    this.attachSaver();
    this.canvas.load({
      w: doc.w,
      h: doc.h,
      labels: doc.labels,
      picture: doc.picture ?? null,
      classes: state.project.classes,
    });
    this.mode.hidden = !(doc.image && doc.mode === "variant");
    this.mode.set("variant");
    this.setSaveState(doc.stored ? "unchanged" : "empty");
    this.describe();
    this.remember();
    this.results.showFor(doc);
    this.restoreView();
    this.restoreSteps();
    this.root.dataset.loaded = `${doc.image?.id ?? 0}-${doc.stored?.id ?? 0}`;
  }

  /** The way back survives a reload. */
  restoreSteps() {
    const { saver, labels } = this.doc;
    if (saver.id) this.canvas.restoreSteps(stepsFor(saver.stepsKey, checksum(labels)));
  }

  /** The same part of the picture as when it was left. */
  restoreView() {
    const { view, at } = JSON.parse(localStorage.getItem(this.viewKey()) ?? "{}");
    if (view && at === this.viewOf()) this.canvas.show(view);
  }
  keepView() {
    const { canvas, doc } = this;
    if (!doc) return;
    const view = canvas.isFitted ? null : canvas.centre();
    remember(this.viewKey(), JSON.stringify({ view, at: this.viewOf() }));
  }
  viewKey() {
    return `saadi.draw.view.${state.project.id}.${state.project.created_at}`;
  }
  viewOf() {
    return `${this.doc.image?.blob ?? ""}-${this.doc.image ? "" : this.doc.stored?.id}`;
  }

  attachSaver() {
    const { doc } = this,
      keepsReal = doc.mode === "variant" || doc.mode === "empty" || doc.mode === "annotate";
    const target = keepsReal
      ? {
          draft: {
            name:
              doc.mode === "variant"
                ? `${doc.name} variant`
                : doc.mode === "annotate"
                  ? doc.name
                  : `drawing ${new Date().toLocaleString()}`,
            image_id: doc.image?.id,
            attach: doc.mode === "annotate" || undefined,
          },
        }
      : { id: doc.stored.id, rev: doc.stored.rev };
    const saver = (doc.saver = new Saver(state.project, {
      w: doc.w,
      h: doc.h,
      target,
      labels: doc.labels,
      onState: (name, message) => doc === this.doc && this.setSaveState(name, message),
      onCreated: (made) => doc.saver === saver && this.created(doc, made),
      onConflict: (error, labels) => this.conflict(doc, error, labels),
    }));
  }

  switchMode(mode) {
    const { doc } = this,
      before = doc.saver;
    if (before.running || before.isStuck) {
      this.mode.set(doc.mode);
      return toast("The last stroke is still being saved; then switch.");
    }
    if (before.id && before.id === doc.stored?.id) doc.stored.rev = before.rev;
    doc.mode = mode;
    this.attachSaver();
    this.restoreSteps();
    this.describe();
  }

  created(doc, made) {
    doc.name = made.name;
    if (doc.mode !== "annotate") doc.mode = "drawing";
    if (doc === this.doc) {
      this.mode.hidden = true;
      this.describe();
      this.remember();
      this.loadFilm().catch(() => {});
    }
  }

  /** Somebody may have saved this mask meanwhile; with no strokes of ours behind, theirs is simply shown. */
  async lookForNewer() {
    const { doc } = this;
    if (!doc?.saver.id || doc.saver.running || doc.saver.isStuck || this.canvas.stroke) return;
    const stored = await get(`/api/label_maps/${doc.saver.id}`).catch(() => null);
    if (!stored || doc !== this.doc || stored.rev <= doc.saver.rev || doc.saver.running || this.canvas.stroke) return;
    toast(`${stored.author} changed this mask; here is the newest version.`);
    if (doc.mode === "drawing") return this.openDrawing(stored, doc.image);
    await this.loadFilm();
    const image = this.images.find((item) => item.id === doc.image?.id);
    if (!image) return;
    const isShown = await this.openImage(image);
    if (isShown && doc.mode === "correct") {
      this.mode.set("correct");
      this.switchMode("correct");
    }
  }

  describe() {
    const { doc } = this,
      isChanged = doc.mode === "drawing" || doc.mode === "correct";
    replace(
      this.title,
      h("b", {}, doc.name),
      h(
        "small",
        {},
        {
          variant: "strokes make a new mask; the real one stays",
          correct: "strokes change the real image's mask",
          annotate: "no mask yet; draw one",
          drawing: "your mask",
          empty: "draw on an empty field",
        }[doc.mode],
      ),
    );
    replace(
      this.badges,
      doc.image && badge("real"),
      (isChanged || doc.stored?.origin === "edited") &&
        h("span", { class: "sx-badge sx-badge-edited" }, doc.mode === "drawing" ? "EDITED MASK" : "EDITED"),
    );
    this.markFilm();
  }

  remember() {
    remember(
      `saadi.draw.last.${state.project.id}.${state.project.created_at}`,
      JSON.stringify({
        image_id: this.doc.image?.id ?? null,
        label_map_id: this.doc.mode === "drawing" ? this.doc.saver.id : null,
      }),
    );
  }

  // ---- saving

  commit(labels, step) {
    const { saver } = this.doc;
    this.doc.isTouched = true;
    saver.commit(labels);
    if (step) keepStep(saver.stepsKey, step.index, step.entry, [checksum(step.before), checksum(labels)]);
  }

  setSaveState(name, message = "") {
    this.saveState = name;
    if (name === "saved") this.savedAt = Date.now();
    this.saveMessage = message;
    this.showSaved();
  }

  showSaved() {
    const words = {
      saving: "saving\u2026",
      saved: `saved ${ago(this.savedAt)}`,
      unchanged: "unchanged",
      empty: "nothing drawn yet",
      offline: "kept in this browser; the program does not answer, trying again",
      "signed-out": "kept in this browser; you are signed out, sign in again in another tab",
      conflict: "not saved: two versions",
      refused: `not saved: ${this.saveMessage}`,
      "journal-full": "saving (too large for this browser's journal)",
    };
    const text = words[this.saveState] ?? this.saveState;
    if (this.status.textContent !== text) this.status.textContent = text;
    this.status.dataset.state = this.saveState;
  }

  /** Somebody else saved first: both versions are shown, and one decision ends it. */
  async conflict(doc, error, labels) {
    if (doc.isDeciding) return;
    doc.isDeciding = true;
    try {
      const theirs = error.data?.theirs?.labels ? error.data.theirs : await get(`/api/label_maps/${doc.saver.id}`);
      const theirLabels = await decode(theirs.labels);
      const { choice, labels: chosen } = await decide({
        base: doc.saver.base ?? new Uint8Array(labels.length),
        mine: labels,
        theirs: theirLabels,
        w: doc.w,
        h: doc.h,
        classes: state.project.classes,
        author: theirs.author,
        at: theirs.updated_at,
        background: doc === this.doc && this.canvas.hasPicture ? this.canvas.imageLayer : null,
      });
      await act(null, () => this.settle(doc, { choice, chosen, theirs, theirLabels }));
    } finally {
      doc.isDeciding = false;
    }
  }

  async settle(doc, { choice, chosen, theirs, theirLabels }) {
    if (choice === "copy") {
      const source = { id: doc.saver.id, image_id: doc.image?.id, labels: chosen, name: `${doc.name} (mine)` };
      const copy = await keepCopy(state.project, source);
      await doc.saver.drop();
      return this.openDrawing(copy, doc.image);
    }
    doc.saver.rebase({ rev: theirs.rev, labels: theirLabels });
    await doc.saver.drop();
    if (doc === this.doc) this.canvas.replaceAll(chosen); // one step back leads to what was on the canvas before
    doc.saver.commit(chosen);
  }

  // ---- what the segmenter sees

  async loadModel() {
    const { doc } = this;
    if (!doc.image) {
      toast("The segmenter looks at real images; this mask has none under it.");
      return false;
    }
    return act(null, async () => {
      const { job } = await order("predict", { image_id: doc.image.id });
      if (job.before) toast(`The segmenter looks as soon as ${job.before === 1 ? "the running job" : "the queue"} is done.`);
      const ended = await finished(job);
      if (ended.state !== "done") throw new ApiError(ended.error ?? "Stopped.", 0, null);
      const { labels } = await get(`/api/labels/${ended.result.label_map_blob}?w=${doc.w}&h=${doc.h}`);
      if (doc !== this.doc) return false;
      this.canvas.model = await decode(labels);
      return true;
    });
  }

  // ---- suggestions

  /** New masks, or variations of this one: what is on the canvas is stored first. */
  suggest() {
    return act(null, async () => {
      if (this.doc.isTouched) await this.doc.saver.flush();
      this.suggestions ??= new Suggestions({
        current: () => {
          const { doc } = this;
          return { id: doc.saver.id ?? doc.stored?.id ?? null, w: doc.w, h: doc.h, image_id: doc.image?.id ?? null };
        },
        onUse: async (made) => {
          await this.loadFilm();
          await this.openDrawing(made, this.underlayOf(made));
        },
      });
      await this.suggestions.open();
    });
  }

  // ---- generation

  async generate() {
    const { doc } = this;
    await this.canvas.smart.use(); // a mask that is still only shown is meant as well
    await doc.saver.flush();
    const mapId = doc.saver.id ?? doc.stored?.id;
    if (!mapId) throw new ApiError("Draw something first; an empty mask has nothing to show.", 0, null);
    return { mapId, answer: await order("draw", { label_map_ids: [mapId], ...this.results.settings() }) };
  }
}

const pickSize = ({ w, h: height }) => ({ w, h: height });
