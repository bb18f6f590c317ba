// Beside a synthetic image: the real training image that comes nearest, what real images score, and who has marked it.
import { openCompare } from "./compare.js";
import { act, get, h, isClassification, kbd, on, picture, replace, segmented, urls } from "./lib.js";
import { setMark } from "./marks.js";
import { thumbs } from "./thumbs.js";

const SPACES = {
  look: "Colour and layout",
  get selector() {
    return isClassification() ? "Classifier's eyes" : "Segmenter's eyes";
  },
};
let space = "look"; // stays from image to image

on("marks", ({ ids, kind, isSet }) => {
  for (const root of document.querySelectorAll(".sx-marks")) if (ids.includes(root.sample?.id)) root.show(kind, isSet);
});

/** Build the part of the close look that asks the server once more; `bars` gets a tick where real images are on average. */
export function besides(sample, bars) {
  const marks = h("div", { class: "sx-marks" }),
    near = h("div", { class: "sx-nearest" }),
    gate = h("div", {});
  const root = h("div", { class: "sx-besides" }, marks, gate, near);
  const since = new Map(); // marks set while the answer is on its way, which may not know them
  Object.assign(marks, { sample, show: (kind, isSet) => since.set(kind, isSet) });
  get(`/api/samples/${sample.id}/nearest`)
    .then((found) => {
      showMarks(marks, sample, found.marks);
      for (const [kind, isSet] of since) marks.show(kind, isSet);
      showNearest(near, sample, found.nearest);
      if (found.gate) gate.append(gateWords(found.gate));
      showAverages(bars, found.average);
      root.dataset.loaded = "1";
    })
    .catch((error) => replace(near, h("p", { class: "sx-note" }, error.message)));
  return root;
}

function showMarks(root, sample, marks) {
  const own = new Set(marks.filter((mark) => mark.is_mine).map((mark) => mark.kind));
  const flags = marks.filter((mark) => mark.kind === "flag"),
    others = flags.filter((mark) => !mark.is_mine);
  // Why the image is flagged: for who opens it next. It stays in this data folder.
  const reason = h("input", {
    type: "text",
    class: "sx-flag-note",
    placeholder: "Why? Others read it; no patient names.",
    "aria-label": "Why this image is flagged",
    maxlength: 300,
    value: flags.find((mark) => mark.is_mine)?.note ?? "",
    onchange: () => act(null, () => setMark([sample.id], "flag", true, reason.value.trim())),
    onkeydown: (event) => event.key === "Enter" && reason.blur(),
  });
  const toggle = (kind, text, key) =>
    h(
      "button",
      {
        type: "button",
        class: `sx-button sx-small sx-mark-${kind}`,
        "aria-pressed": String(own.has(kind)),
        onclick: () => act(null, () => setMark([sample.id], kind, !own.has(kind))),
      },
      text,
      kbd(key),
    );
  const opinion = thumbs(sample);
  root.show = (kind, isSet) => {
    if (own.has(kind) === isSet) return; // the note of a flag that was there
    if (isSet) own.add(kind);
    else own.delete(kind);
    draw();
    // Taken off and set again by a slip of the finger: the note comes back.
    if (kind === "flag" && isSet && reason.value.trim()) act(null, () => setMark([sample.id], "flag", true, reason.value.trim()));
  };
  const draw = () =>
    replace(
      root,
      opinion,
      toggle("flag", "\u2691 Flag", "F"),
      toggle("favourite", "\u2605 Favourite", "S"),
      own.has("flag") && reason,
      others.map(({ person, note }) => h("p", { class: "sx-note" }, `flagged by ${person}${note ? `: ${note}` : ""}`)),
    );
  draw();
}

/** What the quality check says; whoever disagrees accepts the image and includes it in the export. */
const gateWords = ({ verdict, words }) =>
  h("p", { class: verdict === "plausible" ? "sx-words sx-gate" : "sx-words sx-gate sx-warning" }, h("b", {}, "Quality check: "), `${words}.`);

function showNearest(root, sample, found) {
  const names = Object.keys(SPACES).filter((name) => found[name]);
  if (!names.length)
    return replace(
      root,
      h("p", { class: "sx-note" }, "The nearest real image is shown once the images are measured: Curate, Map, Make the map."),
    );
  const name = names.includes(space) ? space : names[0],
    { blob, label_map_blob, words, is_suspicious } = found[name];
  const real = { kind: "real", blob, label_map_blob, title: `Real: ${found[name].name}` };
  replace(
    root,
    h(
      "button",
      {
        type: "button",
        class: "sx-nearest-picture",
        title: "Compare the two",
        "aria-label": "Compare with the nearest real training image",
        onclick: () => openCompare([sample, real]),
      },
      picture(urls.thumb(blob, 256), "Nearest real training image"),
      h("span", { class: "sx-badge sx-badge-real" }, "REAL"),
    ),
    h(
      "div",
      {},
      h("b", {}, "Nearest real training image"),
      names.length > 1 &&
        segmented(
          "Nearest in",
          names.map((key) => [key, SPACES[key]]),
          name,
          (chosen) => {
            space = chosen;
            showNearest(root, sample, found);
          },
        ),
      h("p", { class: is_suspicious ? "sx-words sx-warning" : "sx-words" }, words),
      h("p", { class: "sx-note" }, names.length > 1 ? "" : `In ${SPACES[name].toLowerCase()}. `, "A hint, no privacy test."),
    ),
  );
}

function showAverages(bars, average) {
  let isAny = false;
  for (const row of bars.querySelectorAll("[data-class]")) {
    const value = average[row.dataset.class];
    if (value === undefined || value === null) continue;
    isAny = true;
    row.querySelector(".sx-meter").append(
      h("u", { style: { left: `${100 * value}%` }, title: `real validation images on average ${Math.round(100 * value)}\u00a0%` }),
    );
  }
  if (isAny) bars.querySelector(".sx-note")?.append(" Triangle: real validation images on average.");
}
