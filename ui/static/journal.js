// No stroke is lost. Each edit is written to this browser's storage in the same task, then sent; it leaves the journal
// only when the server has stored it. A resend carries the same request id, so an answer lost on the way does no harm.
import { ApiError, post, requestId } from "./lib.js";
import { encode, fromRuns, runs } from "./codec.js";

const RETRY_MS = [500, 1000, 2000, 4000];
const prefix = (project) => `saadi.journal.${project.id}.${project.created_at}.`;

/** Saves one label map. `target`: {id, rev} of a stored one, or {draft: {name, image_id, attach}} made by the first edit. */
export class Saver {
  constructor(project, { w, h, target, onState, onCreated, onConflict }) {
    Object.assign(this, { project, w, h, onState, onCreated, onConflict, latest: null, attempt: null, isClosed: false });
    this.id = target.id ?? null;
    this.rev = target.rev ?? 0;
    this.draft = target.draft ? { request_id: requestId(), ...target.draft } : null;
    this.key = prefix(project) + (this.id ?? `draft-${this.draft.request_id}`);
  }

  /** Take over an edit. Returns once it is in the journal; sending goes on behind. */
  commit(labels) {
    this.latest = labels.slice();
    this.write();
    this.onState("saving");
    this.pump();
  }

  write() {
    const entry = {
      w: this.w,
      h: this.h,
      id: this.id,
      rev: this.rev,
      draft: this.draft,
      attempt: this.attempt && { ...this.attempt, labels: runs(this.attempt.labels) },
      latest: this.latest && runs(this.latest),
      at: Date.now(),
    };
    try {
      localStorage.setItem(this.key, JSON.stringify(entry));
    } catch {
      this.onState("journal-full");
    }
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
        if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
          this.isStuck = true;
          this.refused(error);
          return;
        }
        this.onState("offline", error.message);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]));
      }
    }
    localStorage.removeItem(this.key);
    this.onState("saved");
  }

  async deliver(labels) {
    const { rev, request_id } = this.attempt;
    if (this.id) {
      const saved = await post("/api/label_maps/save", { label_map_id: this.id, rev, labels, request_id });
      if (saved.rev !== rev + 1)
        throw new ApiError(`${saved.author} saved revision ${saved.rev} in the meantime`, 409, { theirs: saved });
      Object.assign(this, { rev: saved.rev, attempt: null });
    } else {
      const made = await post("/api/label_maps", {
        project_id: this.project.id,
        labels,
        request_id,
        ...pick(this.draft, ["name", "image_id", "attach"]),
      });
      localStorage.removeItem(this.key);
      Object.assign(this, { id: made.id, rev: made.rev, attempt: null, draft: null, key: prefix(this.project) + made.id });
      this.onCreated?.(made);
    }
    this.write();
  }

  refused(error) {
    if (error.status === 409) {
      this.onState("conflict", error.message);
      this.onConflict?.(error, this.latest ?? this.attempt.labels);
    } else this.onState("refused", error.message);
  }

  /** Forget what could not be sent: it was kept elsewhere, or the user decided against it. */
  drop() {
    Object.assign(this, { latest: null, attempt: null, isStuck: false });
    localStorage.removeItem(this.key);
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
  for (const key of Object.keys(localStorage).filter((name) => name.startsWith(prefix(project)))) {
    let entry;
    try {
      entry = JSON.parse(localStorage.getItem(key));
    } catch {
      localStorage.removeItem(key);
      continue;
    }
    const unpackRuns = (text) => text && fromRuns(text, entry.w * entry.h);
    let copied = null;
    const onConflict = (error, labels) => {
      copied = keepCopy(project, { id: entry.id, draft: entry.draft, labels, name: "recovered drawing" });
    };
    const saver = new Saver(project, {
      w: entry.w,
      h: entry.h,
      target: { id: entry.id, rev: entry.rev, draft: entry.draft },
      onState,
      onConflict,
    });
    Object.assign(saver, {
      key,
      latest: unpackRuns(entry.latest),
      attempt: entry.attempt && { ...entry.attempt, labels: unpackRuns(entry.attempt.labels) },
    });
    await saver.pump();
    if (saver.isStuck) {
      try {
        await copied;
      } catch {
        continue;
      } // stays in the journal for the next visit
      if (copied) saver.drop();
    }
    if (saver.id) recovered.push({ id: saver.id, draft: entry.draft });
  }
  return recovered;
}

/** Store labels as a new free drawing of the same size. */
export async function keepCopy(project, { id, draft, labels, name }) {
  return post("/api/label_maps", {
    project_id: project.id,
    copy_of: id,
    image_id: draft?.image_id ?? null,
    name,
    labels: await encode(labels),
    request_id: requestId(),
  });
}
