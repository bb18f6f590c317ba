// The two forms of the Data tab: a new project, and the import of a folder with a look at what is in it first.
import { act, byTask, classTag, emit, get, h, isClassification, on, plural, post, replace, requestId, selectField, state, toast } from "./lib.js";
import { openTexts } from "./texts.js";

export const text = (label, placeholder, attributes = {}) => {
  const input = h("input", { type: "text", placeholder, "aria-label": label, ...attributes });
  const field = h("label", { class: "sx-field" }, h("span", {}, label), input);
  field.input = input;
  return field;
};

/** The number in a field; an emptied one is as it was. */
const filled = (field, otherwise) => (field.input.value.trim() === "" ? otherwise : Number(field.input.value));

const number = (label, value, attributes) => {
  const field = text(label, "", { ...attributes, type: "number" });
  field.input.value = value;
  return field;
};

const FORMATS = [
  ["folder", "a folder of images and masks"],
  ["saadi", "an export of this program"],
  ["nnunet", "nnU-Net v2"],
  ["coco", "COCO"],
  ["yolo", "YOLO"],
  ["voc", "Pascal VOC"],
  ["imagefolder", "Hugging Face imagefolder"],
  ["video", "videos"],
  ["dicom", "DICOM files"],
];

/** What is said of text in the pictures when an import ends. */
const textWords = ({ state: ended, result }) => {
  if (ended !== "done") return "";
  if (result?.no_text_check) return `Text in the pictures: ${result.no_text_check}.`;
  return result?.text_check_id
    ? "Names, dates and other text in the pictures are looked for next; what shows any stays out of exports until somebody calls it harmless."
    : "";
};

export class DataForms {
  constructor(onImported) {
    this.onImported = onImported;
    this.images = text("Folder, zip, video or DICOM file", "/path/to/images", { id: "import-images" });
    this.masks = text("Folder of masks, where they lie apart", "/path/to/masks", { id: "import-masks" });
    this.source = selectField("Read as", [["", "what it looks like"], ...FORMATS], "");
    this.source.input.id = "import-source";
    this.every = number("Every n-th frame", 25, { min: 1, max: 100000, step: 1, id: "import-every" });
    this.sharpness = number("Sharpness, share of the median", 0.5, { min: 0, max: 1, step: 0.05 });
    this.change = number("Change to the frame before, grey levels", 2, { min: 0, max: 255, step: 0.5 });
    this.burntIn = h("input", { type: "checkbox" });
    this.withoutMasks = h("input", { type: "checkbox", id: "import-without-masks" });
    this.pattern = text("Patient or video in the file name (pattern)", "^(case\\d+)", { id: "import-pattern" });
    this.csv = text("Table (CSV)", "/path/to/table.csv", { id: "import-csv" });
    this.labelColumn = text("Column of the class", "class");
    this.groupColumn = text("Column of the patient", "patient");
    this.splitColumn = text("Column of the split", "split");
    this.looking = h("div", { class: "sx-looking" });
    this.found = h("div", { class: "sx-found" });
    on("job:end", (item) => this.ended(item));
    this.title = h("summary", {}, "Import a folder");
    this.name = text("Name", "my-hospital-2026", { id: "project-name" });
    this.task = selectField(
      "Each image has",
      [
        ["segmentation", "a mask: which pixel shows what"],
        ["classification", "one class: what the whole image shows"],
      ],
      "segmentation",
      () => this.showTask(),
    );
    this.task.input.id = "project-task";
    this.classes = text("Classes", "", { id: "project-classes" });
    this.resolution = h(
      "select",
      { "aria-label": "Resolution" },
      [64, 128, 192, 256, 512].map((side) => h("option", { value: side }, `${side} \u00d7 ${side} px`)),
    );
    this.resolution.value = "256";
    this.root = h(
      "div",
      { class: "sx-stack" },
      h(
        "details",
        { class: "sx-details" },
        this.title,
        h(
          "div",
          { class: "sx-stack" },
          this.images,
          h("div", { class: "sx-mask-only" }, this.masks),
          h(
            "p",
            { class: "sx-note sx-mask-only" },
            "Images and masks in any naming, a data set as nnU-Net, COCO, YOLO, Pascal VOC, imagefolder or an export of this program, videos, DICOM; each also as a zip.",
          ),
          h(
            "p",
            { class: "sx-note sx-class-only" },
            "A folder per class (images/clipping/001.png), or a table with the class of each file.",
          ),
          h(
            "details",
            { class: "sx-details" },
            h("summary", {}, byTask("Patients and splits (optional)", "Patients, splits and table (optional)")),
            h(
              "div",
              { class: "sx-stack" },
              this.pattern,
              this.csv,
              h("div", { class: "sx-row" }, this.groupColumn, this.splitColumn),
              h("div", { class: "sx-class-only" }, this.labelColumn),
            ),
          ),
          h(
            "details",
            { class: "sx-details" },
            h("summary", {}, "Format, videos and DICOM (optional)"),
            h(
              "div",
              { class: "sx-stack" },
              this.source,
              h("div", { class: "sx-row" }, this.every, this.sharpness, this.change),
              h("p", { class: "sx-note" }, "Blurred frames and those like the one before are left out; 0 keeps them. A video is a patient, unless a pattern or table says otherwise."),
              h("label", { class: "sx-check" }, this.burntIn, "I have looked at pictures whose DICOM header says that text is burnt in"),
            ),
          ),
          h(
            "button",
            { type: "button", class: "sx-button", id: "import-scan", onclick: (event) => this.scan(event.currentTarget) },
            "Look into it",
          ),
          this.looking,
          this.found,
        ),
      ),
      h(
        "details",
        { class: "sx-details" },
        h("summary", {}, "New project"),
        h(
          "div",
          { class: "sx-stack" },
          this.name,
          this.task,
          this.classes,
          h("label", { class: "sx-field" }, h("span", {}, "Images are made at"), this.resolution),
          h(
            "button",
            { type: "button", class: "sx-button", id: "project-create", onclick: (event) => this.create(event.currentTarget) },
            "Create project",
          ),
        ),
      ),
    );
  }

  /** The form of a new project asks for what its task needs. */
  showTask() {
    const isClass = this.task.input.value === "classification",
      words = isClass ? "Classes, two or more, separated by commas" : "Classes, without background, separated by commas";
    this.classes.firstChild.textContent = words;
    this.classes.input.setAttribute("aria-label", words);
    this.classes.input.placeholder = isClass ? "dissection, clipping, bleeding" : "liver, gallbladder, instrument";
  }

  /** The import has ended, well or not: its sentence takes the place of the table. */
  ended(item) {
    if (item.kind === "text_check") this.lookedForText(item);
    if (item.kind !== "import") return;
    if (item.id === this.job) {
      this.textCheck = item.result?.text_check_id;
      this.text = h("p", { class: "sx-note", role: "status" }, textWords(item));
      const refused = item.result?.refused ?? [];
      replace(
        this.found,
        h("p", { class: item.state === "done" ? "" : "sx-bad" }, item.state === "done" ? item.message : (item.error ?? item.message)),
        refused.length ? h("ul", { class: "sx-reasons" }, refused.slice(0, 20).map((line) => h("li", {}, line))) : null,
        (item.result?.notes ?? []).map((note) => h("p", { class: "sx-note" }, note)),
        this.text,
      );
    }
    emit("library");
    this.onImported();
  }

  /** The look for text that an import ends with; who deals with what was found need not wait for an export. */
  lookedForText(item) {
    if (!this.text || item.id !== this.textCheck) return;
    const held = item.result?.num_held;
    this.text.className = held ? "sx-odd" : "sx-note";
    replace(
      this.text,
      item.state === "done" ? `Text in the pictures: ${item.message}. ` : `Text in the pictures could not be looked for: ${item.error ?? item.message}`,
      held
        ? h("button", { type: "button", class: "sx-button sx-small", id: "import-texts", onclick: () => openTexts({ id: item.project_id }, () => {}) }, "Look at them")
        : null,
    );
  }

  showProject(project) {
    this.showTask();
    this.title.textContent = `Import a folder into ${project.name}`;
    if (project.id !== this.shownProject) replace(this.found);
    this.shownProject = project.id;
  }
  folders() {
    const given = (field) => field.input.value.trim() || null;
    return {
      project_id: state.project.id,
      images_dir: this.images.input.value,
      masks_dir: given(this.masks),
      csv: given(this.csv),
      group_pattern: given(this.pattern),
      group_column: given(this.groupColumn),
      split_column: given(this.splitColumn),
      every: filled(this.every, 25),
      sharpness: filled(this.sharpness, 0.5),
      change: filled(this.change, 2),
      source: this.source.input.value || null,
      burnt_in: this.burntIn.checked,
      ...(isClassification() && { masks_dir: null, label_column: given(this.labelColumn) }),
    };
  }

  /** A look at the files, which says how far it is and can be stopped. */
  async watched(looked) {
    const name = requestId();
    const bar = h("div", { class: "sx-bar-fill", style: { width: "0%" } }),
      words = h("p", { class: "sx-note" });
    const stop = h(
      "button",
      {
        type: "button",
        class: "sx-button sx-small",
        id: "import-stop-look",
        onclick: () => {
          stop.disabled = true;
          post(`/api/import/scan/${name}/stop`, {}).catch(() => {}); // the look itself tells what is wrong
        },
      },
      "Stop",
    );
    let over = false;
    const tell = async () => {
      try {
        const { step, total, message } = await get(`/api/import/scan/${name}`);
        if (over) return;
        if (message) {
          const said = message[0].toUpperCase() + message.slice(1);
          words.textContent = total ? `${said}, ${step} of ${total}` : said;
          bar.style.width = total ? `${(100 * step) / total}%` : "0%";
          if (!words.isConnected)
            replace(this.looking, h("div", { class: "sx-bar", role: "progressbar", "aria-label": "Looking at the files" }, bar), words, stop);
        }
      } catch {
        // the look itself tells what is wrong
      }
      if (!over) setTimeout(tell, 800);
    };
    setTimeout(tell, 800);
    try {
      return await post("/api/import/scan", { ...looked, look_id: name });
    } finally {
      over = true;
      replace(this.looking);
    }
  }

  scan(button) {
    return act(button, async () => {
      const looked = this.folders();
      const found = await this.watched(looked);
      this.looked = looked; // what is imported is what was shown, whatever is typed meanwhile
      const alone = !isClassification() && !found.has_masks;
      this.withoutMasks.checked = !found.needs_masks;
      this.mapping = found.values.map((item) => ({ values: [item.value], select: this.classChooser(item) }));
      if (found.soft) {
        const soft = { name: `${found.soft.values.length} smoothed edges`, pixels: found.soft.pixels, class: 255 };
        found.values.push(soft);
        this.mapping.push({ values: found.soft.values, select: this.classChooser(soft) });
      }
      const total = found.values.reduce((sum, item) => sum + item.pixels, 0) || 1;
      replace(
        this.found,
        h(
          "p",
          {},
          h(
            "b",
            {},
            isClassification()
              ? `${plural(found.num_pairs, "image")}, ${found.num_pairs - found.num_unlabelled} with a class.`
              : found.has_masks
                ? `${found.num_pairs} pairs of image and mask.`
                : `${found.num_pairs} images without masks.`,
          ),

          found.num_groups ? ` ${found.num_groups} ${found.num_groups === 1 ? "patient or video" : "patients or videos"}.` : "",
          ` Read as ${found.kind}.`,
          found.num_problems ? ` ${found.num_problems} files cannot be used:` : "",
        ),
        found.problems.length
          ? h(
              "ul",
              { class: "sx-reasons" },
              found.problems.map((line) => h("li", {}, line)),
            )
          : null,
        found.notes.map((note) => h("p", { class: "sx-note" }, note)),
        found.findings.map((line) => h("p", { class: "sx-odd" }, line)),
        alone && found.needs_masks
          ? h("label", { class: "sx-check" }, this.withoutMasks, "Import them without masks, to draw the masks here")
          : null,
        isClassification() ? labelTable(found.labels) : alone ? null : h(
          "table",
          { class: "sx-table" },
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ["", "Value in the masks", "Share", "Class"].map((name) => h("th", {}, name)),
            ),
          ),
          h(
            "tbody",
            {},
            found.values.map((item, index) =>
              h(
                "tr",
                {},
                h("td", {}, item.example ? h("img", { class: "sx-example", src: item.example, alt: `Where value ${item.name} is` }) : null),
                h("td", {}, swatch(item), item.name, item.called ? h("span", { class: "sx-note" }, ` ${item.called}`) : null),
                h("td", { class: "sx-share" }, `${((100 * item.pixels) / total).toFixed(1)} %`),
                h("td", {}, this.mapping[index].select),
              ),
            ),
          ),
        ),
        h(
          "button",
          {
            type: "button",
            class: "sx-button sx-primary",
            id: "import-run",
            disabled: !found.num_pairs || (isClassification() && !found.labels.some((item) => item.class !== null)),
            onclick: (event) => this.run(event.currentTarget),
          },
          `Import ${found.num_pairs} images`,
        ),
      );
    });
  }

  classChooser(item) {
    const select = h(
      "select",
      { "aria-label": `Class of value ${item.name}` },
      state.project.classes.map((entry) => h("option", { value: entry.index }, `${entry.index} ${entry.name}`)),
      h("option", { value: 255 }, "ignore"),
    );
    if (item.class === null) select.prepend(h("option", { value: "" }, "choose\u2026"));
    select.value = item.class === null ? "" : String(item.class);
    return select;
  }

  run(button) {
    return act(button, async () => {
      const open = this.mapping.find(({ select }) => select.value === "");
      if (open) {
        open.select.focus();
        toast("Say which class each value is, or 'ignore' for pixels that do not count.", "bad");
        return;
      }
      const values = Object.fromEntries(this.mapping.flatMap(({ values, select }) => values.map((value) => [value, Number(select.value)])));
      const without_masks = this.withoutMasks.checked;
      const { job } = await post("/api/import/run", { ...this.looked, values, without_masks, request_id: requestId() });
      this.job = job.id;
      toast(job.before ? `Importing: in the queue, ${plural(job.before, "job")} before it.` : "Importing: started.");
      replace(this.found, h("p", { class: "sx-note" }, "The import goes on in the background; the bar at the bottom shows how far."));
      emit("poll");
    });
  }

  create(button) {
    return act(button, async () => {
      const classes = this.classes.input.value
        .split(",")
        .map((name) => name.trim())
        .filter(Boolean);
      const made = await post("/api/projects", {
        name: this.name.input.value.trim(),
        task: this.task.input.value,
        classes,
        resolution: Number(this.resolution.value),
      });
      toast(`Project ${made.name} is ready; import a folder next.`, "good");
      this.name.input.value = this.classes.input.value = "";
      emit("projects", made.id);
    });
  }
}

/** The colour or grey level that a mask value is. */
function swatch(item) {
  if (item.value === undefined) return null;
  const found = h("span", { class: "sx-swatch" });
  found.style.background = item.name.startsWith("#") ? item.name : `rgb(${item.name},${item.name},${item.name})`;
  return found;
}

/** What the folders or the table call the classes, and which class of the project that is. */
function labelTable(labels) {
  if (!labels.length)
    return h("p", { class: "sx-bad" }, "The images have no classes: put each class into its own sub-folder, or name the table and its column of the class.");
  return h(
    "table",
    { class: "sx-table" },
    h("thead", {}, h("tr", {}, ["Found", "Images", "Class of this project"].map((name) => h("th", {}, name)))),
    h(
      "tbody",
      {},
      labels.map((item) =>
        h(
          "tr",
          {},
          h("td", {}, item.name),
          h("td", {}, String(item.images)),
          h("td", {}, item.class === null ? h("span", { class: "sx-bad" }, "none: these images will be refused") : classTag(item.class)),
        ),
      ),
    ),
  );
}
