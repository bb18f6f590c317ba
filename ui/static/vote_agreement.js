// How far reviewers agree: the group's numbers and one's own; behind a disclosure, for the lead, everybody's and the pairs that
// wait for a ruling. Nobody is ranked: the table is in order of names.
import { act, fixed, get, h, isClassification, percent, picture, plural, post, replace, requestId, state, toast, urls } from "./lib.js";

const WORDS = {
  good: "Good: reviewers mostly see the same.",
  fair: "Fair: enough to learn from, with disputes.",
  poor: "Poor: look at the contested pairs.",
};
const SAID = { left: "left is better", right: "right is better", both_good: "both good", both_bad: "both bad" };
const named = (reason) => (reason === "mask_fit" && isClassification() ? "class fits" : reason.replace("_", " "));
const RULINGS = [
  ["left", "Left is better"],
  ["both_bad", "Both bad"],
  ["right", "Right is better"],
];

export class AgreementView {
  constructor() {
    this.facts = h("div", { class: "sx-agreement-facts", "aria-live": "polite" });
    this.lead = h("div", { class: "sx-lead" });
    this.disclosure = h(
      "details",
      { class: "sx-card", ontoggle: () => this.disclosure.open && this.showLead() },
      h("summary", {}, "For the lead: every reviewer and the contested pairs"),
      this.lead,
    );
    this.root = h("div", { class: "sx-agreement", hidden: true }, this.facts, this.disclosure);
  }

  reset() {
    this.disclosure.open = false;
    replace(this.facts);
    replace(this.lead);
  }

  show() {
    return act(null, async () => {
      const told = await get(`/api/projects/${state.project.id}/agreement`);
      replace(this.facts, group(told), own(told.me));
      if (this.disclosure.open) await this.showLead();
    });
  }

  showLead() {
    return act(null, async () => {
      const told = await get(`/api/projects/${state.project.id}/agreement/lead`);
      const shown = told.contests.length;
      replace(
        this.lead,
        table(told.reviewers),
        h("h3", {}, told.num_contests ? plural(told.num_contests, "contested pair") : "No contested pairs"),
        h(
          "p",
          { class: "sx-note" },
          told.num_contests
            ? `Reviewers contradict each other here, or one alone contradicts a clear score. Your ruling is the last word on a pair.${shown < told.num_contests ? ` The first ${shown} are shown.` : ""}`
            : "Where reviewers contradict each other, or one alone contradicts a clear score, the pair waits here for your ruling.",
        ),
        told.contests.map((contest) => this.contest(contest)),
      );
      this.lead.dataset.contests = told.num_contests;
    });
  }

  contest(contest) {
    const { left, right, label_map_blob: mask, votes } = contest;
    const side = (name, item) =>
      h(
        "figure",
        { class: "sx-contest-side" },
        h(
          "div",
          { class: "sx-contest-picture" },
          picture(urls.thumb(item.blob, 512), `${name} image`),
          picture(urls.outline(mask, item.blob, 512), "", { class: "sx-vote-outline" }),
          h("span", { class: "sx-badge sx-badge-synthetic" }, "SYNTHETIC"),
        ),
        h("figcaption", {}, `${name}: score ${percent(item.dice)}`),
      );
    const rule = (answer) =>
      h(
        "button",
        { type: "button", class: "sx-button", dataset: { ruling: answer[0] }, onclick: (event) => this.rule(event.currentTarget, contest, answer[0]) },
        answer[1],
      );
    return h(
      "article",
      { class: "sx-contest", dataset: { pair: `${left.id}-${right.id}` } },
      side("Left", left),
      side("Right", right),
      h(
        "div",
        { class: "sx-contest-said" },
        h(
          "ul",
          {},
          votes.map(({ voter, answer, reasons }) =>
            h("li", {}, h("b", {}, voter), `: ${SAID[answer]}`, reasons.length ? ` (${reasons.map(named).join(", ")})` : ""),
          ),
        ),
        h("div", { class: "sx-contest-rule", role: "group", "aria-label": "Your ruling" }, RULINGS.map(rule)),
      ),
    );
  }

  rule(button, { left, right }, answer) {
    return act(button, async () => {
      const vote = { project_id: state.project.id, left_id: left.id, right_id: right.id, answer, kind: "ruling", request_id: requestId() };
      const { vote_id } = await post("/api/votes", vote);
      toast("The pair is settled.", "good", {
        label: "Undo",
        run: () =>
          act(null, async () => {
            await post("/api/votes/undo", { vote_id, request_id: requestId() });
            await this.showLead();
          }),
      });
      await this.showLead();
    });
  }
}

const ofTotal = ({ hits, total }) => (total ? `${hits} of ${total}` : "none yet");
const range = ({ low, high }) => `${percent(low)} to ${percent(high)}`;

function group({ alpha, enough_pairs, raw, consistency }) {
  const few = alpha.verdict === "low data";
  const missing = Math.max(0, enough_pairs - alpha.num_pairs);
  const words = !few
    ? WORDS[alpha.verdict]
    : missing
      ? `Low data: ${plural(alpha.num_pairs, "pair")} judged by two people or more, ${missing} more needed.`
      : "Low data: everybody gave one and the same answer.";
  return h(
    "section",
    { class: "sx-card", dataset: { verdict: alpha.verdict } },
    h("h2", {}, "All reviewers"),
    h("p", { class: "sx-verdict" }, words),
    list([
      [
        "Agreement beyond chance (Krippendorff\u2019s alpha)",
        few ? "too early to say" : `${fixed(alpha.value)} (95 %: ${fixed(alpha.low)} to ${fixed(alpha.high)})`,
      ],
      ["Shared pairs", `${alpha.num_pairs}, ${plural(alpha.num_reviewers, "reviewer")}`],
      ["Same answer, two people on one pair", raw.total ? `${ofTotal(raw)} (${range(raw)})` : "none yet"],
      ["Same answer on repeats", consistency.total ? `${ofTotal(consistency)} (${range(consistency)})` : "none yet"],
    ]),
  );
}

function own(me) {
  return h(
    "section",
    { class: "sx-card" },
    h("h2", {}, "You"),
    me
      ? list([
          ["Votes", me.num_votes],
          ["Same answer on your repeats", me.consistency.total ? `${ofTotal(me.consistency)} (${range(me.consistency)})` : "none yet"],
          ["With most of the others", me.agreement.total ? `${ofTotal(me.agreement)} (${range(me.agreement)})` : "none yet"],
          ["Left chosen", `${ofTotal(me.left)}: ${leaning(me)}`],
          ["Time for an answer", seconds(me.median_ms)],
        ])
      : h("p", {}, "You have not voted yet."),
    h("p", { class: "sx-note" }, "Only you see these numbers here; the lead sees them to weigh votes, not to rank people."),
  );
}

const seconds = (ms) => (ms === null ? "-" : `${fixed(ms / 1000, 1)} s`);
export function leaning({ left, left_p }) {
  if (!left.total) return "no answers yet";
  if (left_p >= 0.05) return "no side is preferred";
  return 2 * left.hits > left.total ? "the left side more often than chance" : "the right side more often than chance";
}

function list(rows) {
  return h("dl", { class: "sx-agreement-list" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
}

function table(reviewers) {
  const columns = ["Reviewer", "Votes", "Same on repeats", "With most others", "Left chosen", "Median time", "Weight"];
  return h(
    "div",
    { class: "sx-lead-table" },
    h(
      "table",
      {},
      h("caption", {}, "In order of names. The weight of a vote falls from 1 towards 0.2 with contradictions, once there are enough of them."),
      h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
      h(
        "tbody",
        {},
        reviewers.map((person) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, person.voter),
            [
              person.num_votes,
              ofTotal(person.consistency),
              ofTotal(person.agreement),
              `${ofTotal(person.left)}${person.left_p < 0.05 ? ", leaning" : ""}`,
              seconds(person.median_ms),
              fixed(person.weight),
            ].map((value) => h("td", {}, String(value))),
          ),
        ),
      ),
    ),
  );
}
