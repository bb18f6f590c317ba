// What this browser keeps until the server has it. Each record is written twice: to localStorage, which is on disk when the
// call returns, so that a tab closed in the same moment loses nothing; and to IndexedDB, which has room for masks of any size.

const DATABASE = "saadi",
  VERSION = 1;
export const MAX_STEPS = 500;
let opening = null;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("journal");
      request.result.createObjectStore("steps");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error ?? new Error("blocked"));
  });
  opening.catch(() => (opening = null)); // private windows may refuse it; the next write asks again
  return opening;
}

/** Run `action(store)` in one transaction; resolves with the value of the request it returns, once it is committed. */
async function transact(name, mode, action) {
  const transaction = (await database()).transaction(name, mode, { durability: "strict" });
  const done = new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
  const request = action(transaction.objectStore(name));
  await done;
  return request?.result;
}
/** All keys that begin with `prefix`. */
const within = (prefix) => IDBKeyRange.bound(prefix, `${prefix}\uffff`);

// ---- the journal: one record per mask with strokes that the server does not have yet

/** Keep a record; resolves to false when neither storage took it. */
export async function keep(key, record) {
  let isKept = false;
  try {
    localStorage.setItem(key, JSON.stringify(record));
    isKept = true;
  } catch {
    localStorage.removeItem(key); // full: an older record there would only mislead
  }
  try {
    await transact("journal", "readwrite", (store) => store.put(record, key));
    return true;
  } catch {
    return isKept;
  }
}

export async function forget(key) {
  localStorage.removeItem(key);
  await transact("journal", "readwrite", (store) => store.delete(key)).catch(() => {});
}

/** [key, record] of everything kept under a prefix; where both storages have one, the later one. */
export async function kept(prefix) {
  const found = new Map();
  const take = (key, record) => {
    if (record && !(found.get(key)?.at > record.at)) found.set(key, record);
  };
  try {
    const keys = await transact("journal", "readonly", (store) => store.getAllKeys(within(prefix)));
    for (const key of keys) take(key, await transact("journal", "readonly", (store) => store.get(key)));
  } catch {
    /* what localStorage has is all there is */
  }
  for (const key of Object.keys(localStorage).filter((name) => name.startsWith(prefix)))
    try {
      take(key, JSON.parse(localStorage.getItem(key)));
    } catch {
      localStorage.removeItem(key);
    }
  return [...found];
}

// ---- undo steps: so that a reload does not take the way back

const place = (mask, index) => `${mask}|${String(index).padStart(8, "0")}`;

/** Keep step `index` of a mask and drop those behind it, which an edit after an undo makes void; with the checksums of the
 * mask before and after it, by which the step is known to fit. */
export const keepStep = (mask, index, step, [before, after]) =>
  transact("steps", "readwrite", (store) => {
    store.delete(IDBKeyRange.bound(place(mask, index), place(mask, 99999999)));
    store.put({ ...step, before, after }, place(mask, index));
    if (index >= MAX_STEPS) store.delete(place(mask, index - MAX_STEPS));
  }).catch(() => {});

/** Steps that lead to a label map with checksum `sum`: {undo, redo, first}, `first` being the number of the oldest. */
export async function stepsFor(mask, sum) {
  try {
    const [steps, keys] = await Promise.all([
      transact("steps", "readonly", (store) => store.getAll(within(`${mask}|`))),
      transact("steps", "readonly", (store) => store.getAllKeys(within(`${mask}|`))),
    ]);
    const at = steps.findLastIndex((step) => step.after === sum);
    if (at < 0 && steps[0]?.before !== sum) return { undo: [], redo: [], first: 0 };
    return {
      undo: steps.slice(0, at + 1),
      redo: steps.slice(at + 1).reverse(),
      first: Number(keys[0].slice(keys[0].lastIndexOf("|") + 1)),
    };
  } catch {
    return { undo: [], redo: [], first: 0 };
  }
}

/** A draft became a stored mask: its steps follow it. */
export const moveSteps = (from, to) =>
  transact("steps", "readwrite", (store) => {
    const request = store.openCursor(within(`${from}|`));
    request.onsuccess = () => {
      const cursor = request.result;
      if (!cursor) return;
      store.put(cursor.value, to + cursor.key.slice(from.length));
      cursor.delete();
      cursor.continue();
    };
  }).catch(() => {});

/** FNV-1a over the bytes (Fowler, Noll and Vo): 2 ms for a 1080p mask. */
export function checksum(labels) {
  let sum = 0x811c9dc5;
  for (let i = 0; i < labels.length; i++) sum = Math.imul(sum ^ labels[i], 0x01000193);
  return sum >>> 0;
}

// ---- tabs: a record belongs to the tab that writes it, until that tab is gone

const TAB = crypto.randomUUID();
const lockOf = (tab) => `saadi.tab.${tab}`;
navigator.locks?.request(lockOf(TAB), () => new Promise(() => {})); // held for as long as this page lives
export const tab = TAB;
/** True while the tab that wrote a record is open: what it has not sent yet is its own business. */
export async function isOpen(other) {
  if (!other || other === TAB || !navigator.locks) return false;
  return (await navigator.locks.query()).held.some((lock) => lock.name === lockOf(other));
}
