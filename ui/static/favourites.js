// Favourites: a star on every synthetic image. Each person has their own; it decides nothing about the image.
import { act, emit, get, h, on, state, svg, withProject } from "./lib.js";
import { setMark } from "./marks.js";

let mine = new Map(); // sample id -> when it was marked, oldest first

withProject(() => load().catch(() => {}));

async function load() {
  const project = state.project,
    { items, me } = await get(`/api/projects/${project.id}/marks`);
  if (state.project !== project) return;
  mine = new Map(
    items.filter((mark) => mark.kind === "favourite" && mark.person === me).map((mark) => [mark.sample_id, mark.created_at]),
  );
  emit("favourites");
}

export const isFavourite = (id) => mine.has(id);
/** Ids of my favourites, the last marked first. */
export const favourites = () => [...mine.keys()].reverse();

export const toggleFavourite = (id) => setMark([id], "favourite", !mine.has(id));
on("marks", ({ ids, kind, isSet }) => {
  if (kind !== "favourite") return;
  for (const id of ids)
    if (isSet) mine.set(id, new Date().toISOString());
    else mine.delete(id);
  emit("favourites");
});

/** The star of one image; follows the state wherever it is changed. */
export function star(id) {
  const picture = svg("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" });
  picture.append(svg("path", { d: "M10 2.500 12.300 7.400 17.600 8.100 13.700 11.800 14.700 17.100 10 14.500 5.300 17.100 6.300 11.800 2.400 8.100 7.700 7.400z" }));
  const button = h(
    "button",
    {
      type: "button",
      class: "sx-star",
      dataset: { star: id },
      onclick: (event) => {
        event.stopPropagation();
        act(null, () => toggleFavourite(id));
      },
    },
    picture,
  );
  show(button);
  return button;
}

function show(button) {
  const isOn = isFavourite(Number(button.dataset.star));
  button.setAttribute("aria-pressed", String(isOn));
  button.setAttribute("aria-label", isOn ? "Favourite; press to take the star away" : "Make it a favourite");
  button.title = isOn ? "Favourite (S in the close view)" : "Make it a favourite (S in the close view)";
}
on("favourites", () => document.querySelectorAll("[data-star]").forEach(show));
