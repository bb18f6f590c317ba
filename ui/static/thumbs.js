// Thumb up or down for one image, for use wherever an image is looked at alone. What others said is shown after one's own word.
import { act, emit, get, h, post, requestId, state, svg } from "./lib.js";

const SHAPE = "M2 11h4v10H2z M8 20V11l5-9c1.5 0 2.5 1.3 2.2 2.8L14.5 9H20a2 2 0 0 1 2 2.4l-1.6 7A2 2 0 0 1 18.4 20z";
export const thumbIcon = (value) =>
  svg("svg", { viewBox: "0 0 24 24", class: `sx-thumb sx-thumb-${value}`, "aria-hidden": "true" }, svg("path", { d: SHAPE }));

/** Two buttons for a sample (`{id}`); pressing the chosen one again takes it back. */
export function thumbs(sample) {
  const counts = h("span", { class: "sx-note", role: "status" });
  const buttons = [
    ["up", "Good image"],
    ["down", "Bad image"],
  ].map(([value, text]) =>
    h(
      "button",
      { type: "button", class: "sx-icon", title: text, "aria-label": text, "aria-pressed": "false", dataset: { value } },
      thumbIcon(value),
    ),
  );
  const show = ({ mine, up, down }) => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.value === mine)));
    counts.textContent = mine === "none" ? "" : `${up} good, ${down} bad`;
  };
  for (const button of buttons)
    button.addEventListener("click", () =>
      act(button, async () => {
        const value = button.getAttribute("aria-pressed") === "true" ? "none" : button.dataset.value;
        const body = { project_id: state.project.id, sample_id: sample.id, value, request_id: requestId() };
        show(await post("/api/thumbs", body));
        emit("thumbs", sample.id);
      }),
    );
  get(`/api/samples/${sample.id}/thumbs`).then(show, () => {});
  return h("div", { class: "sx-thumbs", role: "group", "aria-label": "Is this image good?" }, buttons, counts);
}
