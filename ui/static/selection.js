// Which images are chosen, and what the next key or click does to that. Knows nothing of the page.

export class Selection {
  constructor() {
    this.ids = new Set();
    this.anchor = null; // where a range began
    this.base = new Set(); // what was chosen besides that range
  }
  get size() {
    return this.ids.size;
  }
  has(id) {
    return this.ids.has(id);
  }
  clear() {
    this.set([]);
  }
  set(ids) {
    this.ids = new Set(ids);
    this.base = new Set(ids);
    this.anchor = null;
  }
  add(ids) {
    for (const id of ids) this.ids.add(id);
    this.base = new Set(this.ids);
  }
  toggle(id) {
    if (!this.ids.delete(id)) this.ids.add(id);
    this.base = new Set(this.ids);
    this.anchor = id;
  }
  /** From the anchor (where the first Shift began) to `to`, in the order shown; a shorter range gives back what it leaves. */
  extend(shown, from, to) {
    const start = shown.findIndex((item) => item.id === (this.anchor ?? from)),
      end = shown.findIndex((item) => item.id === to);
    if (end < 0) return;
    if (this.anchor === null || start < 0) this.anchor = start < 0 ? to : from;
    this.ids = new Set(this.base);
    const first = start < 0 ? end : start;
    for (let i = Math.min(first, end); i <= Math.max(first, end); i++) this.ids.add(shown[i].id);
  }
  /** Only what still exists stays chosen. */
  keep(exists) {
    this.ids = new Set([...this.ids].filter((id) => exists.has(id)));
    this.base = new Set([...this.base].filter((id) => exists.has(id)));
  }
}
