// Two people saved the same mask: both versions beside each other, and nothing goes on until somebody has decided.
import { packed } from "./canvas.js";
import { h, plural, when } from "./lib.js";
import { combine } from "./merge.js";

const OPACITY = 0.55,
  DIMMED = 0.25;

/** Ask what becomes of two versions. Resolves to {choice: "combine" | "mine" | "theirs" | "copy", labels}.
 * `base`, `mine`, `theirs`: label maps of w x h bytes; `background`: canvas with the image, or null. */
export function decide({ base, mine, theirs, w, h: height, classes, author, at, background }) {
  const merged = combine(base, mine, theirs);
  const map = (title, note, labels, marks) =>
    h(
      "figure",
      {},
      paint(labels, { w, height, classes, background, marks }),
      h("figcaption", {}, h("b", {}, title), h("span", {}, note)),
    );
  const isChanged = (labels) => (i) => labels[i] !== base[i];
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "sx-dialog sx-conflict", "aria-labelledby": "conflict-title" });
    let isOver = false;
    const end = (choice, labels) => {
      isOver = true;
      dialog.close();
      dialog.remove();
      resolve({ choice, labels });
    };
    const choice = (text, name, labels, note, kind = "") =>
      h(
        "div",
        {},
        h("button", { type: "button", class: `sx-button ${kind}`, dataset: { choice: name }, onclick: () => end(name, labels) }, text),
        h("small", {}, note),
      );
    dialog.append(
      h("h2", { id: "conflict-title" }, `${author} changed this mask while you worked on it`),
      h("p", {}, "Both versions are kept. What should this mask be from now on?"),
      h(
        "div",
        { class: "sx-conflict-maps" },
        map("Theirs", `by ${author}${at ? `, ${when(at)}` : ""}; their changes are bright`, theirs, isChanged(theirs)),
        map("Mine", "your changes are bright", mine, isChanged(mine)),
        map("Both together", summary(merged), merged.labels, (i) => merged.labels[i] !== base[i]),
      ),
      h(
        "div",
        { class: "sx-conflict-choices" },
        choice("Combine both", "combine", merged.labels, merged.both ? "where both painted, mine counts" : "no pixel was painted by both", "sx-primary"),
        choice("Use mine", "mine", mine, "theirs stays in the history"),
        choice("Use theirs", "theirs", theirs, "my strokes are given up"),
        choice("Keep mine as a copy", "copy", mine, "two masks, one each"),
      ),
    );
    dialog.addEventListener("cancel", (event) => event.preventDefault()); // Escape decides nothing
    dialog.addEventListener("close", () => isOver || dialog.showModal()); // browsers let a second Escape through
    dialog.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") event.preventDefault();
    });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("[data-choice=combine]").focus();
  });
}

function summary({ mine, theirs, both }) {
  const pixels = (count) => plural(count, "pixel");
  return `${pixels(mine)} by you, ${pixels(theirs)} by them, ${both ? `${pixels(both)} by both` : "none by both"}`;
}

/** A label map over its image; pixels for which `marks(i)` is false are dimmed. */
function paint(labels, { w, height, classes, background, marks }) {
  const canvas = h("canvas", { width: w, height }),
    context = canvas.getContext("2d");
  context.fillStyle = "#15181c";
  context.fillRect(0, 0, w, height);
  if (background) context.drawImage(background, 0, 0, w, height);
  const picture = context.getImageData(0, 0, w, height),
    words = new Uint32Array(picture.data.buffer);
  const colors = new Map(classes.map((item) => [item.index, item.index ? packed(item.color) : 0xffffffff]));
  for (let i = 0; i < words.length; i++) {
    const isMarked = marks(i);
    if (!labels[i] && !isMarked) continue;
    words[i] = mixed(words[i], colors.get(labels[i]) ?? 0xff808080, isMarked ? OPACITY + 0.3 : DIMMED);
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

function mixed(under, over, share) {
  let word = 0xff000000;
  for (const shift of [0, 8, 16])
    word |= Math.round(((under >>> shift) & 255) * (1 - share) + ((over >>> shift) & 255) * share) << shift;
  return word >>> 0;
}
