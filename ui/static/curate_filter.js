// What Curate is to show, asked for in another tab, perhaps before Curate was ever opened.
import { emit, openTab, state } from "./lib.js";

let asked = null;

/** Open Curate with a filter: `{ use: "prize" }`. */
export function showInCurate(filter) {
  asked = { project: state.project.id, filter };
  emit("curate:filter");
  openTab("curate");
}

/** The filter that was asked for in this project, once; null = none. */
export function askedFilter() {
  const found = asked?.project === state.project?.id ? (asked?.filter ?? null) : null;
  if (found) asked = null;
  return found;
}
