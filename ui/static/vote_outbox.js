// What a reviewer has decided waits in this browser's storage until the server has it: sent in order, each with an id that
// makes a resend harmless, and under the name of who decided.
import { ApiError, PERSON_KEY, post, toast } from "./lib.js";

const RETRY_MS = [500, 1000, 2000, 4000],
  MAX_IDS = 60; // more than can be undone

export class Outbox {
  /** `onSaved()` after each delivery, `onOffline()` when the server does not answer. */
  constructor({ onSaved, onOffline }) {
    Object.assign(this, { onSaved, onOffline, key: null, sending: null, isOffline: false });
  }

  open(key) {
    this.key = key;
    if (this.sending) this.sending.then(() => this.flush()); // what another project left is given up first
    else this.flush();
  }

  waiting() {
    return read(this.key, []);
  }

  /** `item.of`: request id of the vote that an undo takes back. */
  add(item) {
    write(this.key, [...this.waiting(), { ...item, person: localStorage.getItem(PERSON_KEY) }]);
    this.flush();
  }

  /** Ends when everything is stored. */
  flush() {
    this.sending ??= this.deliver().finally(() => {
      this.sending = null;
    });
    return this.sending;
  }

  async deliver() {
    const key = this.key;
    for (let failures = 0, items; (items = read(key, [])).length && key === this.key; ) {
      const { path, body, of, person = null } = items[0];
      const ids = read(`${key}.ids`, {});
      // By its id, not by its place: another window of this browser may have sent it meanwhile.
      const done = () => write(key, read(key, []).filter((item) => item.body.request_id !== body.request_id));
      if (of && !ids[of]) {
        done(); // its vote was refused: nothing to take back
        continue;
      }
      try {
        const answer = await post(path, of ? { ...body, vote_id: ids[of] } : body, person);
        if (!of && answer.vote_id)
          write(`${key}.ids`, Object.fromEntries([...Object.entries(ids), [body.request_id, answer.vote_id]].slice(-MAX_IDS)));
        done();
        [failures, this.isOffline] = [0, false];
        this.onSaved();
      } catch (error) {
        if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
          toast(error.message, "bad");
          done();
          continue;
        }
        this.isOffline = true;
        this.onOffline();
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]));
      }
    }
  }
}

export function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}
export function write(key, value) {
  localStorage.setItem(key, JSON.stringify(value));
}
