// The tree of versions, drawn like a history: newest on top, one lane per branch, the generator without alignment at the root.
import { h, isNegative, percent, picture, replace, state, svg, urls, when } from "./lib.js";
import { TIED } from "./withdrawals.js";

const LANE = 18,
  ROW = 64,
  MIDDLE = ROW / 2;
export const STATES = { candidate: "waits for you", accepted: "in use", rejected: "turned down", retired: "earlier" };
const STATE_MARKS = { candidate: "?", accepted: "\u2713", rejected: "\u2715", retired: "\u25cb" };

/**
 * Lanes for a tree given newest first, as version histories draw them.
 *
 * Each item has `id` and `parent` (an id that comes later, or null = none). Returns per item: `lane`, `passing` (lanes that run
 * through), `from` (lanes of children that end here), and `down` (it has a parent below). Few lanes however many versions.
 */
export function lanes(items) {
  const waiting = []; // lane -> id of the parent that it leads to
  return items.map(({ id, parent }) => {
    const from = waiting.flatMap((wanted, lane) => (wanted === id ? [lane] : []));
    let lane = from[0] ?? waiting.indexOf(null);
    if (lane < 0) lane = waiting.length;
    for (const other of from) waiting[other] = null;
    const passing = waiting.flatMap((wanted, other) => (wanted === null || other === lane ? [] : [other]));
    waiting[lane] = parent ?? null;
    return { lane, from, passing, down: parent !== null && parent !== undefined };
  });
}

function graph(row, width) {
  const x = (lane) => LANE / 2 + lane * LANE,
    line = (d) => svg("path", { d, class: "sx-tree-line" });
  return svg(
    "svg",
    { class: "sx-tree", width, height: ROW, viewBox: `0 0 ${width} ${ROW}`, "aria-hidden": "true" },
    row.passing.map((lane) => line(`M${x(lane)},0V${ROW}`)),
    row.from.map((lane) => line(`M${x(lane)},0C${x(lane)},${MIDDLE} ${x(row.lane)},8 ${x(row.lane)},${MIDDLE}`)),
    row.down && line(`M${x(row.lane)},${MIDDLE}V${ROW}`),
    svg("circle", { cx: x(row.lane), cy: MIDDLE, r: 6, class: "sx-tree-dot" }),
  );
}

export class Versions {
  /** Args: look: (item) => show its card; choose: (adapter id or null) => ask, then put it into use. */
  constructor({ look, choose }) {
    Object.assign(this, { look, choose });
    this.list = h("ol", { class: "sx-versions", "aria-label": "Versions, newest first" });
    this.old = h("details", { class: "sx-details", hidden: true });
    this.root = h("section", { class: "sx-card" }, h("h2", {}, "Versions"), this.list, this.old);
  }

  show(answer, opened) {
    this.root.hidden = answer.engine_id === null; // nothing could be in use
    const names = new Map(answer.items.map((item) => [item.id, item.name])),
      present = answer.items.filter((item) => item.model_id === answer.engine_id),
      earlier = answer.items.filter((item) => item.model_id !== answer.engine_id),
      inUse = present.find((item) => item.state === "accepted");
    replace(this.list, this.rows(present, answer.base, { names, opened, inUse, isUsable: true }));
    this.old.hidden = !earlier.length;
    if (!earlier.length) return;
    const isOpen = this.old.open;
    replace(
      this.old,
      h("summary", {}, `${earlier.length} made for an earlier generator`),
      h("p", { class: "sx-note" }, "They fit the weights they were learned on, and no others: the generator has been fitted anew since."),
      answer.generators
        .filter((generator) => generator.id !== answer.engine_id)
        .reverse()
        .map((generator) => {
          const items = earlier.filter((item) => item.model_id === generator.id);
          const base = { title: `base of ${when(generator.created_at)}` };
          return items.length ? h("ol", { class: "sx-versions" }, this.rows(items, base, { names, opened, inUse: null, isUsable: false })) : null;
        }),
    );
    this.old.open = isOpen;
  }

  rows(items, base, context) {
    const found = lanes([
      ...items.map((item) => ({ id: item.id, parent: item.parent_id ?? "base" })),
      { id: "base", parent: null },
    ]);
    const width = LANE * (1 + Math.max(...found.flatMap((row) => [row.lane, ...row.passing])));
    return [
      ...items.map((item, index) => this.row(item, graph(found[index], width), context)),
      this.baseRow(base, graph(found.at(-1), width), context),
    ];
  }

  row(item, drawn, { names, opened, inUse, isUsable }) {
    const metrics = item.metrics,
      decision = item.decision;
    const pair = metrics.strip_before?.length
      ? [picture(urls.thumb(metrics.strip_before[0], 96), "before"), picture(urls.thumb(metrics.strip_after[0], 96), "after")]
      : null;
    const wins = [
      metrics.win_rate !== undefined && `wins ${percent(metrics.win_rate)}`,
      item.trial && item.trial.rate !== null && `people ${percent(item.trial.rate)}`,
    ];
    const facts = [...wins, `from ${names.get(item.parent_id) ?? "base"}`, when(item.created_at)].filter(Boolean).join(" \u00b7 ");
    const said = decision && `${decision.what} by ${decision.who}${decision.why ? `: ${decision.why}` : ""}`;
    return h(
      "li",
      {
        class: "sx-version",
        dataset: { id: item.id, state: item.state, usable: isUsable },
        "aria-current": String(item.state === "accepted"),
      },
      drawn,
      h("span", { class: "sx-version-pair" }, pair),
      h(
        "span",
        { class: "sx-version-facts" },
        h("b", {}, item.name),
        h("span", { class: "sx-chip", dataset: { state: isNegative(item) ? "retired" : item.state } }, isNegative(item) ? "\u2212 negative" : `${STATE_MARKS[item.state]} ${STATES[item.state]}`),
        state.overview?.withdrawn.adapters.includes(item.id) && h("small", { class: "sx-tied" }, TIED),
        h("small", { class: "sx-cut", title: facts }, facts),
        said && h("small", { class: "sx-cut", title: said }, said),
      ),
      h(
        "span",
        { class: "sx-version-actions" },
        h(
          "button",
          {
            type: "button",
            class: "sx-button sx-small",
            "aria-pressed": String(item.id === opened),
            "aria-label": `Look at ${item.name}`,
            onclick: () => this.look(item),
          },
          "Look",
        ),
        isUsable && !isNegative(item) && item.state !== "accepted" && item.state !== "candidate" && this.use(item.id, item.name, inUse),
      ),
    );
  }

  /** Roll back where it is what the version in use came from, else use it again. */
  use(id, name, inUse) {
    const isBack = inUse && (id === null || inUse.parent_id === id);
    return h(
      "button",
      {
        type: "button",
        class: "sx-button sx-small",
        dataset: { use: id ?? "base" },
        ...(id === null ? { id: "roll-back" } : {}),
        "aria-label": isBack ? `Roll back to ${name}` : `Use ${name} again`,
        onclick: (event) => this.choose(id, name, event.currentTarget),
      },
      isBack ? "Roll back" : "Use again",
    );
  }

  baseRow(base, drawn, { inUse, isUsable }) {
    const said = base?.what && inUse === undefined ? `rolled back by ${base.who}${base.why ? `: ${base.why}` : ""}` : null;
    return h(
      "li",
      { class: "sx-version", dataset: { id: "base", usable: isUsable }, "aria-current": String(isUsable && !inUse) },
      drawn,
      h("span", { class: "sx-version-pair" }),
      h(
        "span",
        { class: "sx-version-facts" },
        h("b", {}, base?.title ?? "base"),
        isUsable && !inUse && h("span", { class: "sx-chip", dataset: { state: "accepted" } }, "\u2713 in use"),
        h("small", {}, "the generator without alignment"),
        said && h("small", { class: "sx-cut", title: said }, said),
      ),
      h("span", { class: "sx-version-actions" }, isUsable && inUse ? this.use(null, "base", inUse) : null),
    );
  }
}
