// Where an image comes from, as a chain: image, source, mask revision, seed and settings, version, weights.
import { badge, emit, h, isClassification, openTab, picture, state, urls, when } from "./lib.js";

/** `sample.lineage` as a list; its steps lead back to Draw. */
export function lineageList(sample) {
  return h(
    "section",
    { class: "sx-lineage", "aria-label": "Where it comes from" },
    h("h3", {}, "Where it comes from"),
    h("ol", {}, sample.lineage.map(step)),
  );
}

function step(item) {
  const source = item.label_map_blob ? urls.mask(item.label_map_blob, 96) : item.blob && urls.thumb(item.blob, 96);
  const shown = item.kind === "source" && item.badge ? badge(item.badge) : null;
  return h(
    "li",
    { dataset: { kind: item.kind } },
    source ? picture(source, "", { width: 40, height: 40 }) : h("span", { class: "sx-lineage-dot", "aria-hidden": "true", style: { background: colorOf(item) } }),
    h(
      "div",
      {},
      h("b", {}, item.title),
      shown,
      h("small", {}, [item.text, item.created_at && when(item.created_at)].filter(Boolean).join(" \u00b7 ")),
    ),
    action(item),
  );
}

const colorOf = (item) => (item.kind === "class" ? state.project.classes[item.class]?.color : null);

function action(item) {
  if (isClassification()) return null; // there is no mask to open, and no strip that takes settings
  const go = (name, data) => (event) => {
    event.currentTarget.closest("dialog")?.close();
    openTab("draw");
    setTimeout(() => emit(name, data), 60); // the canvas has a size only once its tab is shown
  };
  const button = (text, title, onclick) => h("button", { type: "button", class: "sx-mini", title, onclick }, text);
  if (item.kind === "mask")
    return button("Open in Draw", "Opens this revision as a new mask; the old one stays as it is", go("draw:revision", item));
  if (item.kind === "settings")
    return button("Use these settings", "Your present settings are kept; one click brings them back", go("draw:settings", item.use));
  return null;
}
