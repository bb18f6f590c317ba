// Flags and favourites: what a person notes about images without deciding on them.
import { emit, post, state } from "./lib.js";

/** Put one's own mark on images or take it off; sent as what shall be, so that a resend does no harm. */
export async function setMark(ids, kind, isSet, note = null) {
  await post("/api/samples/mark", { project_id: state.project.id, sample_ids: ids, kind, is_set: isSet, note });
  emit("marks", { ids, kind, isSet });
}
