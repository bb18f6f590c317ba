// The two forms of the Data tab: a new project, and the import of a folder with a look at what is in it first.
import { act, byTask, classTag, emit, h, isClassification, on, plural, post, replace, requestId, selectField, state, toast } from "./lib.js";

export const text = (label, placeholder, attributes = {}) => {
  const input = h("input", { type: "text", placeholder, "aria-label": label, ...attributes });
  const field = h("label", { class: "sx-field" }, h("span", {}, label), input);
  field.input = input;
  return field;
};

export class DataForms {
  constructor(onImported) {
    this.onImported = onImported;
    this.images = text("Folder of images", "/path/to/images", { id: "import-images" });
    this.masks = text("Folder of masks", "/path/to/masks", { id: "import-masks" });
    this.pattern = text("Patient or video in the file name (pattern)", "^(case\\d+)", { id: "import-pattern" });
    this.csv = text("Table (CSV)", "/path/to/table.csv", { id: "import-csv" });
    this.labelColumn = text("Column of the class", "class");
    this.groupColumn = text("Column of the patient", "patient");
    this.splitColumn = text("Column of the split", "split");
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
            "button",
            { type: "button", class: "sx-button", id: "import-scan", onclick: (event) => this.scan(event.currentTarget) },
            "Look into the folders",
          ),
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
    if (item.kind !== "import") return;
    if (item.id === this.job) {
      const refused = item.result?.refused ?? [];
      replace(
        this.found,
        h("p", { class: item.state === "done" ? "" : "sx-bad" }, item.state === "done" ? item.message : (item.error ?? item.message)),
        refused.length ? h("ul", { class: "sx-reasons" }, refused.slice(0, 20).map((line) => h("li", {}, line))) : null,
        (item.result?.notes ?? []).map((note) => h("p", { class: "sx-note" }, note)),
      );
    }
    emit("library");
    this.onImported();
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
      ...(isClassification() && { masks_dir: null, label_column: given(this.labelColumn) }),
    };
  }

  scan(button) {
    return act(button, async () => {
      const found = await post("/api/import/scan", this.folders());
      this.mapping = found.values.map((item) => ({ value: item.value, select: this.classChooser(item) }));
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
          found.num_groups ? ` ${found.num_groups} patients or videos.` : "",
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
        isClassification() ? labelTable(found.labels) : h(
          "table",
          { class: "sx-table" },
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ["Value in the masks", "Share", "Class"].map((name) => h("th", {}, name)),
            ),
          ),
          h(
            "tbody",
            {},
            found.values.map((item, index) =>
              h(
                "tr",
                {},
                h("td", {}, item.name),
                h("td", {}, `${((100 * item.pixels) / total).toFixed(1)} %`),
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
    select.value = String(item.class);
    return select;
  }

  run(button) {
    return act(button, async () => {
      const values = Object.fromEntries(this.mapping.map(({ value, select }) => [value, Number(select.value)]));
      const { job } = await post("/api/import/run", { ...this.folders(), values, request_id: requestId() });
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
