// The end of a block: what one's own votes came to. Asked for only when they are stored.
import { get, h, isClassification, openTab, percent, plural, replace, state } from "./lib.js";

export class EndCard {
  constructor(onAgain) {
    this.onAgain = onAgain;
    this.root = h("section", { class: "sx-vote-end", hidden: true, "aria-label": "End of this block" });
  }

  /** `stored`: a promise that ends when all votes are stored. */
  async show(block, stored) {
    const title = h("h2", { tabindex: "-1" }, "Your votes are being stored\u2026");
    const facts = h("ul");
    const again = h("button", { type: "button", class: "sx-button sx-primary", onclick: () => this.onAgain() }, "Another 5 minutes");
    const learned = h("button", { type: "button", class: "sx-button", onclick: () => openTab("align") }, "See what was learned");
    const told = h("div", { "aria-live": "polite" }, title, facts);
    replace(this.root, h("div", { class: "sx-card" }, told, h("div", { class: "sx-row" }, again, learned)));
    this.root.hidden = false;
    title.focus(); // not a button: whoever was pressing Space to skip would close the card unread
    await stored;
    try {
      const result = await get(`/api/projects/${state.project.id}/blocks/${block}`);
      title.textContent = `Thank you: ${plural(result.votes, "vote")} in this block`;
      replace(facts, sentences(result).map((text) => h("li", {}, text)));
      this.root.dataset.ready = block;
    } catch (error) {
      title.textContent = "Your votes are stored";
      replace(facts, h("li", {}, `What they changed cannot be shown now: ${error.message}`));
    }
  }

  hide() {
    this.root.hidden = true;
    delete this.root.dataset.ready;
  }
}

/** What the server counted, in words. */
export function sentences({ repeats, agreement, changed_pairs, weak }) {
  return [
    repeats.total
      ? `You agreed with yourself on ${repeats.hits} of ${plural(repeats.total, "repeat")}.`
      : "No pair was shown to you twice in this block.",
    agreement.total
      ? `You agreed with the others on ${agreement.hits} of ${plural(agreement.total, "pair")} that they have judged, too.`
      : "Nobody else has judged these pairs yet.",
    `Your votes changed ${plural(changed_pairs, "training pair")}.`,
    ...weak.map(
      ({ class: name, votes, dice }) =>
        isClassification()
          ? `${plural(votes, "pair")} of ${name}, on which the classifier is weak (F1 ${percent(dice)} on real images): there your eye counts most.`
          : `On ${plural(votes, "pair")} the images differ most in ${name}, where the segmenter is weak (${percent(dice)} on real images): there your eye counts most.`,
    ),
  ];
}
