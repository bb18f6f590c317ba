// The first visit: three cards say what this is for, and each leads straight to its place.
import { h, openTab, remember, svg } from "./lib.js";

const KEY = "saadi.welcomed";
// tab, title, sentence, path of the drawing on a field of 48 x 48
const CARDS = [
  [
    "Draw",
    "Paint or correct a mask, and see new images for it seconds later. Every stroke is kept.",
    "M8 40c7 0 10-3 10-8s6-6 9-2 2 9-5 10-14 0-14 0zM25 28 40 8l4 4-17 20",
  ],
  [
    "Vote",
    "Choose the better of two synthetic images. One key, one vote; five minutes help.",
    "M5 10h16v28H5zM27 10h16v28H27zM31 24l3 4 6-8",
  ],
  [
    "Align",
    "The generator learns what you prefer. You decide whether the new version is kept.",
    "M6 38 18 26l8 6 16-20M32 12h10v10",
  ],
];

/** Show the cards; `isFirst` only where nobody has closed them before. */
export function welcome({ isFirst = false } = {}) {
  if (isFirst && localStorage.getItem(KEY)) return;
  const dialog = h("dialog", { class: "sx-dialog sx-welcome", "aria-labelledby": "welcome-title" });
  const open = (tab) => {
    dialog.close();
    if (tab) openTab(tab.toLowerCase());
  };
  dialog.append(
    h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => open(null) }, "\u00d7"),
    h("h2", { id: "welcome-title" }, "Better training images, in three steps"),
    h(
      "div",
      { class: "sx-welcome-cards" },
      CARDS.map(([tab, sentence, path], index) =>
        h(
          "button",
          { type: "button", class: "sx-welcome-card", dataset: { tab }, onclick: () => open(tab) },
          picture(path),
          h("b", {}, `${index + 1}  ${tab}`),
          h("span", {}, sentence),
        ),
      ),
    ),
    h(
      "p",
      { class: "sx-note" },
      "The demo project holds rendered images, no patients. All data stay on this computer. Research use only; not a medical device.",
    ),
  );
  dialog.addEventListener("close", () => {
    remember(KEY, "1");
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("[data-tab=Vote]").focus();
}

function picture(path) {
  const drawing = svg("svg", { viewBox: "0 0 48 48", "aria-hidden": "true" });
  drawing.append(svg("path", { d: path }));
  return drawing;
}
