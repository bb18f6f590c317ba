// Draw: filmstrip, canvas, and four synthetic images beside it.
import { DrawResults } from "./draw_results.js";
import { DrawTools, showKeys } from "./draw_tools.js";
import { MaskCanvas } from "./canvas.js";
import { decode } from "./codec.js";
import { keepCopy, recover, Saver } from "./journal.js";
import {
  act,
  ago,
  ApiError,
  badge,
  get,
  h,
  on,
  onKeys,
  onShow,
  order,
  picture,
  replace,
  segmented,
  state,
  urls,
  withProject,
} from "./lib.js";

export function mount(element) {
  new DrawTab(element);
}

class DrawTab {
  constructor(element) {
    this.canvas = new MaskCanvas({ onCommit: (labels) => this.commit(labels), onChange: () => this.tools.show() });
    this.tools = new DrawTools(this.canvas);
    this.results = new DrawResults(() => this.generate());
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
    this.banner = h("div", { class: "sx-banner", role: "alert", hidden: true });
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
        this.film,
      ),
      h(
        "section",
        { class: "sx-stage-column" },
        h("div", { class: "sx-stage-head" }, this.title, this.mode, this.status),
        this.tools.bar,
        this.tools.palette,
        this.banner,
        h(
          "div",
          { class: "sx-view-frame" },
          this.canvas.view,
          (this.badges = h("div", { class: "sx-badges" })),
        ),
        this.tools.hint,
      ),
      this.results.root,
    );
  }

  listen() {
    onKeys(this.root, (event) => {
      if (event.key === "Escape" && !this.canvas.isBusy() && this.results.job) {
        this.results.cancel();
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
      if (
        (event.ctrlKey || event.metaKey) &&
        this.root.offsetParent &&
        !event.composedPath()[0].closest?.("input[type=number],input[type=text],textarea,select,dialog") &&
        this.canvas.key(event)
      )
        event.preventDefault();
    });
    document.addEventListener("keyup", (event) => this.canvas.keyUp(event));
    addEventListener("blur", () => {
      this.canvas.isSpace = false;
      this.canvas.setHidden(false);
    });
    setInterval(() => this.showSaved(), 1000);
    onShow(this.root, () => {
      this.canvas.fit();
      if (state.project) this.loadFilm();
    });
    on("draw:open", ({ image, label_map_id }) => this.openById(image, label_map_id));
    on("library", async () => {
      // the demo project is complete, or images were imported
      await this.loadFilm();
      if (this.images.length && (!this.doc || (this.doc.mode === "empty" && !this.doc.isTouched)))
        await this.openImage(this.images[0]);
    });
  }

  // ---- filmstrip

  async openProject(project) {
    this.tools.showClasses(project.classes);
    this.tools.show();
    this.root.dataset.loaded = "";
    await recover(project, (name, message) => this.setSaveState(name, message));
    if (state.project !== project) return;
    await this.loadFilm();
    const last = JSON.parse(localStorage.getItem(`saadi.draw.last.${project.id}.${project.created_at}`) ?? "null");
    const image = this.images.find((item) => item.id === last?.image_id) ?? null;
    const drawing = this.drawings.find((item) => item.id === last?.label_map_id);
    if (drawing) await this.openDrawing(drawing, image);
    else if (image || this.images.length) await this.openImage(image ?? this.images[0]);
    else await this.openEmpty();
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
            onclick: () => act(null, () => (mine ? this.openDrawing(item, this.underlayOf(item.id)) : this.openImage(item))),
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

  underlayOf(id) {
    const kept = Number(localStorage.getItem(`saadi.underlay.${state.project.created_at}.${id}`));
    return this.images.find((image) => image.id === kept) ?? null;
  }

  // ---- documents

  async openById(image, id) {
    if (!this.images.length) await this.loadFilm();
    if (image) return this.openImage(image);
    const record = await get(`/api/label_maps/${id}`);
    const real = this.images.find((item) => item.id === record.image_id);
    return real ? this.openImage(real) : this.openDrawing(record, this.underlayOf(id));
  }

  async openImage(image) {
    const stored = image.label_map_id ? await get(`/api/label_maps/${image.label_map_id}`) : null;
    const size = stored ?? { w: image.width, h: image.height };
    const labels = stored ? await decode(stored.labels) : new Uint8Array(size.w * size.h);
    this.show({ image, stored, labels, ...pickSize(size), name: image.name, mode: stored ? "variant" : "annotate" });
  }

  async openDrawing(record, image) {
    const stored = await get(`/api/label_maps/${record.id}`);
    this.show({ image, stored, labels: await decode(stored.labels), ...pickSize(stored), name: stored.name, mode: "drawing" });
  }

  async openEmpty() {
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
    this.doc = doc;
    this.attachSaver();
    this.canvas.load({
      w: doc.w,
      h: doc.h,
      labels: doc.labels,
      image: doc.image ? urls.image(doc.image.blob) : null,
      classes: state.project.classes,
    });
    this.mode.hidden = !(doc.image && doc.mode === "variant");
    this.mode.set("variant");
    this.banner.hidden = true;
    this.setSaveState(doc.stored ? "unchanged" : "empty");
    this.describe();
    this.remember();
    this.results.showFor({ mapId: doc.stored?.id ?? null, blob: doc.stored?.blob ?? null });
    this.root.dataset.loaded = `${doc.image?.id ?? 0}-${doc.stored?.id ?? 0}`;
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
    doc.saver = new Saver(state.project, {
      w: doc.w,
      h: doc.h,
      target,
      onState: (name, message) => doc === this.doc && this.setSaveState(name, message),
      onCreated: (made) => this.created(doc, made),
      onConflict: (error, labels) => this.conflict(doc, error, labels),
    });
  }

  switchMode(mode) {
    this.doc.mode = mode;
    this.attachSaver();
    this.describe();
  }

  created(doc, made) {
    if (doc.image) localStorage.setItem(`saadi.underlay.${state.project.created_at}.${made.id}`, doc.image.id);
    doc.name = made.name;
    if (doc.mode !== "annotate") doc.mode = "drawing";
    if (doc === this.doc) {
      this.mode.hidden = true;
      this.describe();
      this.remember();
      this.loadFilm().catch(() => {});
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
    localStorage.setItem(
      `saadi.draw.last.${state.project.id}.${state.project.created_at}`,
      JSON.stringify({
        image_id: this.doc.image?.id ?? null,
        label_map_id: this.doc.mode === "drawing" ? this.doc.saver.id : null,
      }),
    );
  }

  // ---- saving

  commit(labels) {
    this.doc.isTouched = true;
    this.doc.saver.commit(labels);
    this.results.maskChanged();
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
      conflict: "not saved: two versions",
      refused: `not saved: ${this.saveMessage}`,
      "journal-full": "saving (too large for this browser's journal)",
    };
    const text = words[this.saveState] ?? this.saveState;
    if (this.status.textContent !== text) this.status.textContent = text;
    this.status.dataset.state = this.saveState;
  }

  conflict(doc, error, labels) {
    const theirs = error.data?.theirs;
    this.banner.hidden = false;
    const finish = async (action) => {
      this.banner.hidden = true;
      doc.saver.drop();
      await action();
    };
    replace(
      this.banner,
      h("span", {}, error.message),
      h(
        "span",
        { class: "sx-versions" },
        theirs?.blob && h("figure", {}, picture(urls.mask(theirs.blob, 96), "Their version"), h("figcaption", {}, "theirs")),
      ),
      h(
        "button",
        {
          type: "button",
          class: "sx-button",
          onclick: (event) =>
            act(event.currentTarget, () =>
              finish(async () =>
                this.openDrawing(
                  await keepCopy(state.project, { id: doc.saver.id, draft: doc.saver.draft, labels, name: `${doc.name} (mine)` }),
                  doc.image,
                ),
              ),
            ),
        },
        "Keep mine as a copy",
      ),
      h(
        "button",
        {
          type: "button",
          class: "sx-button",
          onclick: (event) => act(event.currentTarget, () => finish(() => this.openById(null, doc.saver.id))),
        },
        "Use theirs",
      ),
    );
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
