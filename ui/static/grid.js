// A grid of many cards of which only the visible ones exist: 10,000 images scroll without a pause.
import { h } from "./lib.js";

const SPARE_ROWS = 2,
  FAST_SCREENS = 1.2,
  FAST_MS = 250,
  SETTLE_MS = 60;

function* inOrder(first, from, last) {
  for (let index = from; index < last; index++) yield index;
  for (let index = first; index < from; index++) yield index;
}

export class VirtualGrid {
  /**
   * `make()` builds an empty card, `update(card, item, index)` fills it, `drop(card)` takes back what it still waits for; cards
   * are reused. While somebody drags the scroll bar, `isFlying` is true and cards should not ask for pictures that nobody will
   * see; they are filled again once it rests.
   */
  constructor({ width, height, gap = 10, make, update, drop = () => {}, label }) {
    Object.assign(this, { width, height, gap, make, update, drop, items: [], cards: new Map(), free: [], isFlying: false });
    this.space = h("div", { class: "sx-grid-space", role: "listbox", "aria-label": label, "aria-multiselectable": "true" });
    this.root = h("div", { class: "sx-grid", tabindex: "0", role: "group", "aria-label": label }, this.space);
    this.root.addEventListener("scroll", () => this.onScroll(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(this.root);
  }

  set(items) {
    this.items = items;
    this.refresh();
  }
  refresh() {
    for (const [index, card] of this.cards) if (index < this.items.length) this.update(card, this.items[index], index);
    this.layout();
  }

  onScroll() {
    const now = performance.now(),
      moved = Math.abs(this.root.scrollTop - (this.lastTop ?? 0)),
      isSoon = now - (this.lastScroll ?? -1e9) < FAST_MS;
    this.lastTop = this.root.scrollTop;
    this.lastScroll = now;
    // One long jump (End, Page Down) is where somebody wants to be; a second one right after it is a flight.
    if (isSoon && moved > FAST_SCREENS * this.root.clientHeight) {
      this.isFlying = true;
      clearTimeout(this.settling);
      this.settling = setTimeout(() => {
        this.isFlying = false;
        this.refresh();
      }, SETTLE_MS);
    }
    this.layout();
  }

  layout() {
    const inner = this.root.clientWidth;
    if (!inner) return;
    this.columns = Math.max(1, Math.floor((inner + this.gap) / (this.width + this.gap)));
    const side = (inner - this.gap * (this.columns - 1)) / this.columns,
      rowHeight = this.height + side - this.width + this.gap;
    const rows = Math.ceil(this.items.length / this.columns);
    this.rowHeight = rowHeight;
    this.space.style.height = `${Math.max(0, rows * rowHeight - this.gap)}px`;
    const first = Math.max(0, Math.floor(this.root.scrollTop / rowHeight) - SPARE_ROWS) * this.columns;
    const last = Math.min(
      this.items.length,
      (Math.ceil((this.root.scrollTop + this.root.clientHeight) / rowHeight) + SPARE_ROWS) * this.columns,
    );
    for (const [index, card] of this.cards)
      if (index < first || index >= last) {
        card.remove();
        this.drop(card);
        this.cards.delete(index);
        this.free.push(card);
      }
    // Those on the screen first: their pictures are asked for before the spare ones above.
    const top = Math.floor(this.root.scrollTop / rowHeight) * this.columns;
    for (const index of inOrder(first, Math.min(Math.max(top, first), last), last)) {
      let card = this.cards.get(index);
      if (!card) {
        card = this.free.pop() ?? this.make();
        this.cards.set(index, card);
        this.update(card, this.items[index], index);
        card.setAttribute("aria-posinset", index + 1);
        this.space.append(card);
      }
      card.setAttribute("aria-setsize", this.items.length);
      card.style.cssText = `position:absolute;width:${side}px;height:${rowHeight - this.gap}px;left:${(index % this.columns) * (side + this.gap)}px;top:${Math.floor(index / this.columns) * rowHeight}px`;
    }
  }

  /** Number of whole rows on the screen. */
  get visibleRows() {
    return Math.max(1, Math.floor(this.root.clientHeight / (this.rowHeight || 1)));
  }

  reveal(index) {
    if (!this.columns) return;
    const top = Math.floor(index / this.columns) * this.rowHeight;
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    else if (top + this.rowHeight > this.root.scrollTop + this.root.clientHeight)
      this.root.scrollTop = top + this.rowHeight - this.root.clientHeight;
    this.layout();
  }
}
