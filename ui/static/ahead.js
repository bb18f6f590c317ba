// The close look at an image, asked for before somebody moves on to it: a step to the next one then costs no waiting.
import { get, on, urls } from "./lib.js";

const MAX_KEPT = 60;
const kept = new Map(); // id -> promise of the server's answer

on("samples", (change) => (change?.states ? Object.keys(change.states).forEach((id) => kept.delete(Number(id))) : kept.clear()));
on("job:end", () => kept.clear());
on("votes", () => kept.clear());
on("project", () => kept.clear());

/** What the server knows of an image. */
export function detailOf(id) {
  let answer = kept.get(id);
  if (!answer) {
    answer = get(`/api/samples/${id}`);
    kept.set(id, answer);
    answer.catch(() => kept.delete(id));
    if (kept.size > MAX_KEPT) kept.delete(kept.keys().next().value);
  }
  return answer;
}

/** Ask for images that may come next, and for their pixels. */
export function lookAhead(ids) {
  for (const id of ids)
    detailOf(id).then(
      (sample) => {
        new Image().src = urls.image(sample.blob);
      },
      () => {},
    );
}

/** Ask anew the next time. */
export const forget = (id) => kept.delete(id);
