// No stroke is lost. Each edit is written to this browser's storage in the same task, then sent; it leaves the journal
// only when the server has stored it. A resend carries the same request id, so an answer lost on the way does no harm.
import { ApiError, post, requestId } from "./lib.js";
import { encode, fromRuns, runs } from "./codec.js";
import { forget, isOpen, keep, kept, moveSteps, tab } from "./keep.js";

const RETRY_MS = [500, 1000, 2000, 4000];
/** Answers that pass: signed out, timed out, too many at once. */
const PASSING = [401, 403, 408, 429];
const prefix = (project) => `saadi.journal.${project.id}.${project.created_at}.`;
const stepsPrefix = (project) => `${project.id}.${project.created_at}.`;

/** Saves one label map. `target`: {id, rev} of a stored one, or {draft: {name, image_id, attach}} made by the first edit.
 * `labels` are those of that revision, from which a conflict is told apart. */
export class Saver {
  constructor(project, { w, h, target, labels, onState, onCreated, onConflict }) {
    Object.assign(this, { project, w, h, onState, onCreated, onConflict, latest: null, attempt: null });
    this.id = target.id ?? null;
    this.rev = target.rev ?? 0;
    this.base = labels?.slice() ?? null;
    this.draft = target.draft ? { request_id: requestId(), ...target.draft } : null;
    this.key = this.ownKey();
  }

  get name() {
    return this.id ?? `draft-${this.draft.request_id}`;
  }
  /** Under which undo steps are kept. */
  get stepsKey() {
    return stepsPrefix(this.project) + this.name;
  }
  /** Two tabs may have the same mask open: each keeps a journal of its own. */
  ownKey() {
    return `${prefix(this.project)}${this.name}.${tab}`;
  }

  /** Take over an edit. Returns once it is in the journal; sending goes on behind. */
  commit(labels) {
    const isPending = this.attempt || this.latest || !this.id;
    if (!isPending && this.base && labels.every((value, i) => value === this.base[i])) return this.onState("saved");
    this.latest = labels.slice();
    this.write();
    this.onState("saving");
    this.pump();
  }

  async write() {
    const record = {
      w: this.w,
      h: this.h,
      id: this.id,
      rev: this.rev,
      draft: this.draft,
      attempt: this.attempt && { ...this.attempt, labels: runs(this.attempt.labels) },
      latest: this.latest && runs(this.latest),
      at: Date.now(),
      tab,
    };
    if (!(await keep(this.key, record))) this.onState("journal-full");
  }

  /** Send until nothing is left; one request at a time, so that revisions follow each other. */
  pump() {
    this.running ??= this.send().finally(() => {
      this.running = null;
      if (this.latest && !this.isStuck) this.pump();
    });
    return this.running;
  }

  async send() {
    for (let failures = 0; this.latest || this.attempt;) {
      if (!this.attempt) {
        this.attempt = { labels: this.latest, rev: this.rev, request_id: this.id ? requestId() : this.draft.request_id };
        this.latest = null;
        this.write();
      }
      try {
        await this.deliver(await encode(this.attempt.labels));
        failures = 0;
      } catch (error) {
        const isFinal = error instanceof ApiError && error.status >= 400 && error.status < 500;
        if (isFinal && !PASSING.includes(error.status)) {
          this.isStuck = true;
          this.refused(error);
          return;
        }
        this.onState(isFinal && error.status < 404 ? "signed-out" : "offline", error.message);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]));
      }
    }
    forget(this.key);
    this.onState("saved");
  }

  async deliver(packed) {
    const { rev, request_id, labels } = this.attempt;
    if (this.id) {
      const saved = await post("/api/label_maps/save", { label_map_id: this.id, rev, labels: packed, request_id });
      if (saved.rev !== rev + 1)
        throw new ApiError(`${saved.author} saved revision ${saved.rev} in the meantime`, 409, { theirs: saved });
      Object.assign(this, { rev: saved.rev, attempt: null });
    } else {
      const made = await post("/api/label_maps", {
        project_id: this.project.id,
        labels: packed,
        request_id,
        ...pick(this.draft, ["name", "image_id", "attach"]),
      });
      const before = { key: this.key, steps: this.stepsKey };
      Object.assign(this, { id: made.id, rev: made.rev, attempt: null, draft: null });
      this.key = this.ownKey();
      await this.write(); // under its new name first, so that there is no moment without a record
      await Promise.all([forget(before.key), moveSteps(before.steps, this.stepsKey)]);
      this.onCreated?.(made);
    }
    this.base = labels;
    if (this.latest) this.write();
  }

  refused(error) {
    if (error.status === 409) {
      this.onState("conflict", error.message);
      this.onConflict?.(error, this.latest ?? this.attempt.labels);
    } else this.onState("refused", error.message);
  }

  /** Go on from another revision: what comes next is meant to lie on top of it. */
  rebase({ rev, labels }) {
    Object.assign(this, { latest: null, attempt: null, isStuck: false, rev, base: labels.slice() });
  }

  /** Forget what could not be sent: it was kept elsewhere, or the user decided against it. */
  drop() {
    Object.assign(this, { latest: null, attempt: null, isStuck: false });
    return forget(this.key);
  }

  async flush() {
    while (this.running) await this.running;
    if (this.isStuck) throw new ApiError("The last strokes are not saved yet; see the note above the canvas.", 409, null);
  }
}

const pick = (source, names) =>
  Object.fromEntries(names.filter((name) => source[name] !== undefined).map((name) => [name, source[name]]));

/** Send what an earlier visit left behind. Returns the label maps that were completed; a conflict becomes a copy. */
export async function recover(project, onState = () => {}) {
  const recovered = [];
  for (const [key, record] of await kept(prefix(project))) {
    if (record.tab === tab || (await isOpen(record.tab))) continue; // its own saver is at work
    const unpackRuns = (text) => text && fromRuns(text, record.w * record.h);
    let copied = null;
    const onConflict = (error, labels) => {
      copied = keepCopy(project, { id: record.id, image_id: record.draft?.image_id, labels, name: "recovered drawing" });
    };
    const saver = new Saver(project, {
      w: record.w,
      h: record.h,
      target: { id: record.id, rev: record.rev, draft: record.draft },
      onState,
      onConflict,
    });
    Object.assign(saver, {
      latest: unpackRuns(record.latest),
      attempt: record.attempt && { ...record.attempt, labels: unpackRuns(record.attempt.labels) },
    });
    await saver.write(); // from now on it is this tab's
    await forget(key);
    await saver.pump();
    if (saver.isStuck) {
      try {
        await copied;
      } catch {
        continue;
      } // stays in the journal for the next visit
      if (copied) await saver.drop();
    }
    if (saver.id) recovered.push({ id: saver.id, draft: record.draft });
  }
  return recovered;
}

/** Store labels as a new free drawing of the same size. */
export async function keepCopy(project, { id, image_id, labels, name }) {
  return post("/api/label_maps", {
    project_id: project.id,
    copy_of: id,
    image_id: image_id ?? null,
    name,
    labels: await encode(labels),
    request_id: requestId(),
  });
}
