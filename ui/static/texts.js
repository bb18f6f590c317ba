// Images in which text was found, each with its places marked, and the word of somebody who has looked that it is harmless.
import { act, get, h, picture, plural, post, replace, toast, urls } from "./lib.js";

const SHOWN = 24; // at once: whoever calls text harmless has seen it

/** Images with text, those that are held first; `changed` after somebody has said something about them. */
export function shownTexts(items, changed) {
  if (!items.length) return [];
  const held = items.filter((one) => !one.cleared_by),
    shown = items.slice(0, SHOWN),
    open = shown.filter((one) => !one.cleared_by);
  const say = (button, blobs, isHarmless) =>
    act(button, async () => {
      await post("/api/texts/harmless", { blobs, is_harmless: isHarmless });
      toast(isHarmless ? "Kept with your name: no personal data." : "Held again.");
      await changed();
    });
  const one = (item) => {
    const button = h(
      "button",
      { type: "button", class: "sx-button sx-small sx-text-harmless", onclick: (event) => say(event.currentTarget, [item.blob], !item.cleared_by) },
      item.cleared_by ? "Hold again" : "Harmless",
    );
    return h(
      "figure",
      { dataset: { held: String(!item.cleared_by) } },
      h("a", { href: urls.image(item.blob), target: "_blank", rel: "noopener", title: "Open in full size" }, marked(item)),
      h("figcaption", {}, item.name, item.cleared_by ? h("small", {}, `harmless, says ${item.cleared_by}`) : null, button),
    );
  };
  return [
    h("h3", {}, `${plural(items.length, "image")} ${items.length === 1 ? "shows" : "show"} text, ${held.length} of them held`),
    h(
      "p",
      { class: "sx-note" },
      "Names, dates and numbers of devices can name a patient; a maker's name on an instrument cannot. Held images stay out of the next export until somebody who has looked calls their text harmless.",
    ),
    h("div", { class: "sx-texts" }, shown.map(one)),
    items.length > SHOWN ? h("p", { class: "sx-note" }, `The first ${SHOWN} of ${items.length}; the others follow when these are settled.`) : null,
    open.length > 1
      ? h(
          "button",
          { type: "button", class: "sx-button sx-small", onclick: (event) => say(event.currentTarget, open.map(({ blob }) => blob), true) },
          `Call these ${open.length} harmless`,
        )
      : null,
  ];
}

/** The whole picture with its places of text. */
function marked(item) {
  const [height, width] = item.size,
    share = (value, of) => `${(100 * value) / of}%`;
  return h(
    "div",
    { class: "sx-text-picture", style: { "aspect-ratio": `${width} / ${height}` } }, // places lie right before the picture is there
    picture(urls.thumb(item.blob, 256), `${item.name} with its text marked`),
    item.boxes.map(([x, y, w, tall]) =>
      h("span", { style: { left: share(x, width), top: share(y, height), width: share(w, width), height: share(tall, height) } }),
    ),
  );
}

/** All real and accepted images of the project that show text. */
export async function openTexts(project, reload) {
  const dialog = h("dialog", { class: "sx-dialog sx-audit", "aria-label": "Text in the images" });
  const show = async () => {
    const { items } = await get(`/api/projects/${project.id}/texts`);
    replace(
      dialog,
      h(
        "header",
        {},
        h("h2", {}, "Text in the images"),
        h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => dialog.close() }, "\u00d7"),
      ),
      shownTexts(items, show),
    );
  };
  await show();
  dialog.addEventListener("close", () => {
    dialog.remove();
    reload();
  });
  document.body.append(dialog);
  dialog.showModal();
}
