// Export: the accepted images as a data set, re-read and verified before it is offered.
import { act, byTask, get, h, isClassification, on, onShow, order, picture, plural, replace, selectField, state, toast, urls, when, withProject } from "./lib.js";
import { releaseLine } from "./release.js";
import { openTexts } from "./texts.js";
import { TIED, reasonField } from "./withdrawals.js";

const FORMATS = [
  ["imagefolder", "Hugging Face imagefolder", 'load_dataset("imagefolder")', 'load_dataset("imagefolder"), and torchvision\'s ImageFolder'],
  ["nnunet", "nnU-Net v2", "images, labels and folds by patient, ready to preprocess"],
  ["coco", "COCO", "an object for each part; pycocotools"],
  ["yolo", "YOLO", "outlines, and the masks for semantic training"],
  ["voc", "Pascal VOC", "masks with a palette, lists of the splits"],
  ["folders", "Plain folders", "images, masks and tables, for any program", "images and a table of their classes, for any program"],
  ["preferences", "Preference pairs", "chosen and rejected under one mask, for Diffusion-DPO", "chosen and rejected of one class, for Diffusion-DPO"],
];

export function mount(element) {
  new ExportTab(element);
}

class ExportTab {
  constructor(element) {
    this.root = element;
    this.choices = FORMATS.map(([name, title, words, classWords], index) =>
      h(
        "label",
        { class: classWords ? "sx-format" : "sx-format sx-mask-only" }, // the others hold masks
        h("input", { type: "radio", name: "export-format", value: name, checked: index === 0 }),
        h("span", {}, h("b", {}, title), h("small", {}, byTask(words, classWords ?? ""))),
      ),
    );
    this.instances = selectField(
      "An object for each",
      [
        ["component", "connected part"],
        ["class", "class in an image"],
      ],
      "component",
    );
    this.outlines = selectField(
      "Outlines",
      [
        ["rle", "run-length codes"],
        ["polygons", "polygons (fill holes)"],
        ["both", "both, a file each"],
      ],
      "rle",
    );
    this.coco = h("div", { class: "sx-row sx-mask-only", id: "export-coco", hidden: true }, this.instances, this.outlines);
    this.choices.forEach((choice) => choice.addEventListener("change", () => this.showOptions()));
    this.real = h("input", { type: "checkbox", checked: true });
    this.refused = h("input", { type: "checkbox", id: "export-refused" });
    this.refusedWords = h("span", {});
    this.gate = h("label", { class: "sx-check", title: "Curate, Filters, Quality check refuses: shows which", hidden: true }, this.refused, this.refusedWords);
    this.unreadable = h("input", { type: "checkbox", id: "export-unreadable" });
    this.lost = h("label", { class: "sx-check", hidden: true }, this.unreadable, "Leave out the images that cannot be read; the manifest counts them");
    this.refined = h("input", { type: "checkbox", id: "export-refined" });
    this.refinedWords = h("span", {});
    this.measure = h("button", { type: "button", class: "sx-button sx-small", id: "export-measure", onclick: () => this.measureOutlines() }, "Measure the outlines");
    this.examples = h("div", { class: "sx-refined-examples" });
    this.refinement = h(
      "div",
      { class: "sx-stack sx-mask-only", id: "export-refinement" },
      h("div", { class: "sx-row" }, h("label", { class: "sx-check" }, this.refined, this.refinedWords), this.measure),
      this.examples,
    );
    this.textWords = h("span", { class: "sx-note", id: "export-texts" });
    this.textLook = h("button", { type: "button", class: "sx-button sx-small", id: "export-text-check", onclick: () => this.lookForText() }, "Look for text in images");
    this.textOpen = h("button", { type: "button", class: "sx-button sx-small", id: "export-text-open", hidden: true, onclick: (event) => act(event.currentTarget, () => openTexts(state.project, () => this.load())) }, "See them");
    this.despite = reasonField("why they may go in", "");
    this.despite.input.id = "export-despite-withdrawn";
    this.despite.hidden = true;
    this.tied = { accepted: 0, all: 0 };
    this.counts = h("p", { class: "sx-promise" });
    this.button = h(
      "button",
      { type: "button", class: "sx-button sx-primary sx-big", id: "export-now", onclick: () => this.start() },
      "Export",
    );
    this.outcome = h("p", { class: "sx-outcome", role: "status" });
    this.list = h("div", { class: "sx-export-list" });
    element.classList.add("sx-export");
    element.append(
      h(
        "div",
        { class: "sx-two-columns" },
        h(
          "section",
          { class: "sx-card sx-stack" },
          h("h2", {}, "Export the accepted images"),
          this.counts,
          h("div", { class: "sx-formats", role: "radiogroup", "aria-label": "Format" }, this.choices),
          this.coco,
          h("label", { class: "sx-check" }, this.real, "Include the real training images"),
          this.gate,
          this.despite,
          this.refinement,
          h("div", { class: "sx-row" }, this.textWords, this.textOpen, this.textLook),
          this.lost,
          this.button,
          this.outcome,
          h(
            "p",
            { class: "sx-note" },
            "Synthetic images carry the IPTC mark for synthetic media and say in the manifest from which ",
            byTask("mask", "class"),
            ", seed and version they came. Split by patient or video.",
          ),
        ),
        h("section", { class: "sx-card" }, h("h2", {}, "Exports"), this.list),
      ),
    );
    onShow(element, () => state.project && this.load());
    on("jobs", ({ recent }) => this.showJob(recent.find((job) => job.kind === "export")));
    on("job:end", (job) => ["export", "refine", "audit", "text_check"].includes(job.kind) && this.load());
    on("overview", () => this.count());
    withProject((project) => {
      if (this.project !== project.id) {
        // What was said of one project is not said of the next.
        this.project = project.id;
        this.tied = { accepted: 0, all: 0 };
        this.despite.input.value = "";
        this.refused.checked = this.unreadable.checked = false;
      }
      if (isClassification()) this.choices[0].querySelector("input").checked = true;
      this.showOptions();
      this.load();
    });
    element.dataset.ready = "1";
  }

  count() {
    const { curation, splits } = state.overview;
    replace(
      this.counts,
      h("b", {}, plural(curation.accepted, "accepted image")),
      ` \u00b7 ${curation.pending} open, ${curation.rejected} rejected, ${curation.quarantined} in quarantine \u00b7 ${splits.train ?? 0} real training images`,
    );
    const asPairs = this.format === "preferences"; // of all images that were compared, accepted or not
    this.button.disabled = !asPairs && !curation.accepted;
    this.button.textContent = asPairs
      ? "Export the pairs"
      : curation.accepted
        ? `Export ${plural(curation.accepted, "image")}`
        : "Accept images in Curate first";
  }

  /** How the newest export stands; a refusal stays readable. */
  showJob(job) {
    const isOpen = job && ["queued", "running"].includes(job.state);
    this.outcome.textContent =
      !job || job.state === "done" ? "" : isOpen ? `${job.message}\u2026` : (job.error ?? "Stopped; nothing was written.");
    this.outcome.dataset.state = job?.state ?? "";
    // Offered once an export has named what the data folder has lost; ticked for one export at a time.
    this.lost.hidden = !job?.error?.includes("--without-unreadable");
    if (this.lost.hidden) this.unreadable.checked = false;
  }

  get format() {
    return this.root.querySelector("input[name=export-format]:checked").value;
  }

  /** What a format wants to know beside the rest. */
  showOptions() {
    this.coco.hidden = this.format !== "coco";
    this.refinement.hidden = this.format === "preferences"; // both are judged by the mask that was asked for
    this.showTied();
    if (state.overview) this.count();
  }

  /** Why images of versions that may have learnt from somebody who withdrew may go in; pairs are of all images, not of accepted ones. */
  showTied() {
    const asPairs = this.format === "preferences",
      count = asPairs ? this.tied.all : this.tied.accepted;
    this.despite.hidden = !count;
    this.despite.firstElementChild.textContent = `${plural(count, asPairs ? "image" : "accepted image")} by a version that ${TIED}: left out, unless you say why they may go in`;
  }

  start() {
    return act(this.button, async () => {
      const ofObjects = { instances: this.instances.input.value, outlines: this.outlines.input.value };
      await order("export", {
        format: this.format,
        ...(this.format === "coco" ? ofObjects : {}),
        include_real: this.real.checked,
        include_refused: this.refused.checked && !this.gate.hidden,
        without_unreadable: this.unreadable.checked && !this.lost.hidden,
        refined: this.refined.checked && !this.refinement.hidden,
        ...(!this.despite.hidden && this.despite.input.value.trim() && { despite_withdrawn: this.despite.input.value.trim() }),
      });
      this.despite.input.value = ""; // a reason is for one export
      toast("Writing and checking the files\u2026");
    });
  }

  async load() {
    if (state.overview) this.count();
    this.showJob(state.recent.find((job) => job.kind === "export"));
    const project = state.project,
      { items, num_refused, refinement, texts, num_tied, num_tied_pairs } = await get(`/api/projects/${project.id}/exports`);
    if (state.project !== project) return;
    this.gate.hidden = !num_refused;
    this.refusedWords.textContent = `Include ${plural(num_refused, "accepted image")} that the quality check refuses: unlike real images, or very near to one`;
    this.tied = { accepted: num_tied, all: num_tied_pairs };
    this.showTied();
    this.textOpen.hidden = !texts.shown;
    this.textWords.textContent = texts.shown
      ? `${plural(texts.shown, "image")} ${texts.shown === 1 ? "shows" : "show"} text; ${texts.held} of them stay out of exports until somebody calls their text harmless`
      : "Names and dates may be burnt into pictures.";
    this.showRefinement(refinement);
    this.root.dataset.loaded = String(items.length);
    replace(
      this.list,
      items.length ? items.map((item) => this.row(item, project)) : h("p", { class: "sx-empty" }, "No export yet."),
    );
  }

  /** By how much masks of synthetic images may be smaller, with before and after where they change most. */
  showRefinement(found) {
    const radii = Object.entries(found?.radii ?? {});
    this.refined.disabled = !radii.length;
    if (!radii.length) this.refined.checked = false;
    this.measure.textContent = found ? "Measure again" : "Measure the outlines";
    const gain = (name, radius) => (100 * found.classes[name].gains[radius][0]).toFixed(1);
    this.refinedWords.textContent = radii.length
      ? `Masks of synthetic images without their soft rim: ${radii.map(([name, radius]) => `${name} ${radius} px (+${gain(name, radius)} % Dice)`).join(", ")}`
      : found
        ? `Masks of synthetic images fit as they are: none is found better when smaller (${plural(found.num_images, "validation image")})`
        : "Masks of synthetic images without their soft rim";
    const look = (example, blob, words) =>
      h("figure", {}, picture(urls.overlay(example.blob, blob, 256), words, { loading: "eager" }), h("figcaption", {}, words));
    replace(
      this.examples,
      (found?.examples ?? []).slice(0, 2).flatMap((example) => [look(example, example.before, "before"), look(example, example.after, "after")]),
    );
  }

  measureOutlines() {
    return act(this.measure, async () => {
      const { job, is_new } = await order("refine", {});
      if (!is_new && job.state === "done") toast("Measured already, with the same models and validation images.");
      else toast(job.before ? `In the queue: ${job.turn}.` : "Started; it takes a minute or two.");
    });
  }

  lookForText() {
    return act(this.textLook, async () => {
      const { job } = await order("text_check", {});
      toast(job.before ? `In the queue: ${job.turn}.` : "Looking at each image that nobody has looked at yet.");
    });
  }

  row(item, project) {
    const title = FORMATS.find(([name]) => name === item.format)?.[1] ?? item.format;
    return h(
      "article",
      { class: "sx-export-row", dataset: { id: item.id } },
      h(
        "div",
        {},
        h("b", {}, `${item.id}: ${title}, ${plural(item.num_items, "item")}`),
        h("small", {}, when(item.created_at)),
        h("p", { class: "sx-verified" }, item.message ?? "Written and verified."),
        h("code", { class: "sx-path" }, item.path),
        h("small", {}, `manifest ${item.manifest_sha256.slice(0, 16)}`),
        item.withdrawn.length ? h("p", { class: "sx-tied" }, `Holds data of a patient who has withdrawn, or may: ${item.withdrawn.join(", ")}.`) : null,
        releaseLine(item, () => this.load()),
      ),
      h(
        "div",
        { class: "sx-stack" },
        item.is_there
          ? h(
              "a",
              { class: "sx-button", href: `/api/projects/${project.id}/exports/${item.id}.zip`, download: "" },
              "Download zip",
            )
          : h("span", { class: "sx-note" }, "folder was removed"),
        item.is_there && h("a", { class: "sx-button sx-small", href: `/api/exports/${item.id}/card.html`, target: "_blank", rel: "noopener" }, "Dataset card"),
        h(
          "button",
          {
            type: "button",
            class: "sx-button sx-small",
            onclick: () => navigator.clipboard.writeText(item.path).then(() => toast("Path copied.")),
          },
          "Copy path",
        ),
      ),
    );
  }
}
