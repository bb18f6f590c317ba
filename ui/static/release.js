// What an export reveals about patients: the verdict beside it, the findings in a dialog, and the signature that lets it go.
import { shownTexts } from "./texts.js";
import { act, get, h, order, picture, plural, post, replace, toast, urls, when } from "./lib.js";

const MIN_REASON = 8;

/** The line of one export, with what can be done next; `reload` after something was signed. */
export function releaseLine(item, reload) {
  const { audit, release } = item;
  if (release && !release.signed) return h("div", { class: "sx-audit-line", dataset: { verdict: "none" } }, h("span", {}, signed(release)));
  const button = (text, onclick, attributes = {}) => h("button", { type: "button", class: "sx-button sx-small", onclick, ...attributes }, text);
  const deleted = !item.is_there && !release && button("It never left\u2026", () => neverLeft(item, reload), { class: "sx-button sx-small sx-never-left" });
  if (!audit)
    return h(
      "div",
      { class: "sx-audit-line", dataset: { verdict: "none" } },
      h("span", {}, "Not looked at yet: what does it reveal about patients?"),
      button("Audit", (event) => startAudit(event.currentTarget, item), { class: "sx-button sx-small sx-audit-start" }),
      deleted,
    );
  return h(
    "div",
    { class: "sx-audit-line", dataset: { verdict: audit.verdict } },
    h("span", {}, h("b", {}, audit.headline), audit.why ? `: ${audit.why}` : "", h("small", {}, when(audit.created_at))),
    button(release ? "Audit and release" : "Read and release\u2026", () => open(item, reload), { class: "sx-button sx-small sx-audit-open" }),
    deleted,
    release && h("small", { class: "sx-released" }, signed(release)),
  );
}

/** Who signed what: by which audit, as there may have been others since. */
function signed({ person, created_at, reason, signed: audit }) {
  return audit
    ? `Released by ${person}, ${when(created_at)}, on an audit that said "${audit.headline.toLowerCase()}": ${reason}`
    : `Never left, says ${person}, ${when(created_at)}: ${reason}`;
}

/** An export that was deleted before it went anywhere counts in no audit any more, once somebody says so. */
function neverLeft(item, reload) {
  const dialog = h("dialog", { class: "sx-dialog sx-audit", "aria-label": `Export ${item.id} never left` });
  const reason = h("input", { type: "text", id: "never-left-reason", maxlength: 500, placeholder: "why it was deleted", "aria-label": "Why it was deleted" });
  const sign = h("button", { type: "button", class: "sx-button sx-primary", disabled: true }, "It never left");
  reason.addEventListener("input", () => (sign.disabled = reason.value.trim().length < MIN_REASON));
  sign.addEventListener("click", () =>
    act(sign, async () => {
      await post(`/api/exports/${item.id}/never-left`, { reason: reason.value });
      dialog.close();
      await reload();
    }),
  );
  replace(
    dialog,
    h("h2", {}, `Export ${item.id}: deleted before it went anywhere?`),
    h("p", {}, "Its folder is gone. Until somebody says that it never left, later audits count it with what they look at."),
    h("label", { class: "sx-audit-reason" }, "Reason, kept in the ledger", reason),
    h("footer", {}, h("div", { class: "sx-row" }, sign, h("button", { type: "button", class: "sx-button", onclick: () => dialog.close() }, "Cancel"))),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function startAudit(button, item) {
  return act(button, async () => {
    const { job } = await order("audit", { export_id: item.id });
    toast(job.before ? `In the queue: ${job.turn}.` : "Looking at every image; it takes a minute or two.");
  });
}

const rows = (lines) =>
  h(
    "table",
    { class: "sx-audit-table" },
    lines.map((line) => h("tr", {}, h("th", {}, line.name), h("td", {}, line.found), h("td", {}, line.means))),
  );

async function open(item, reload) {
  const dialog = h("dialog", { class: "sx-dialog sx-audit", "aria-label": `Audit of export ${item.id}` });
  const found = await get(`/api/exports/${item.id}/audit`).catch((error) => toast(error.message, "bad"));
  if (!found) return;
  replace(
    dialog,
    h(
      "header",
      {},
      h("h2", {}, `What export ${item.id} reveals about patients`),
      h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => dialog.close() }, "\u00d7"),
    ),
    h(
      "div",
      { class: "sx-audit-verdict", dataset: { verdict: found.verdict } },
      h("b", {}, `${found.headline}.`),
      found.reasons.map((reason) => h("p", {}, `${reason}.`)),
      found.open_questions.map((question) => h("p", { class: "sx-note" }, `Open: ${question}.`)),
    ),
    rows(found.own),
    found.union.length ? [h("h3", {}, `Together with ${plural(found.num_earlier, "earlier export")} of the same patients`), rows(found.union)] : [],
    found.marks.length ? rows(found.marks) : [],
    shownTexts(found.texts, async () => {
      dialog.close();
      await reload();
      await open(item, reload);
    }),
    flaggedPairs(found),
    h("p", { class: "sx-note" }, found.caution),
    signature(item, found, dialog, reload),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** Images that come too near, each beside the training image. */
function flaggedPairs({ flagged, num_flagged }) {
  if (!flagged.length) return [];
  const look = (blob, words) => (blob ? picture(urls.thumb(blob, 128), words, { width: 96, height: 96 }) : h("span", { class: "sx-audit-gone" }, "removed"));
  const pair = (one) =>
    h("figure", {}, h("div", {}, look(one.blob, one.name), look(one.image_blob, `training image ${one.image_id}`)), h("figcaption", {}, `${one.name} \u00b7 real ${one.image_id}`));
  const words = num_flagged > flagged.length ? `The ${flagged.length} nearest of ${num_flagged} flagged images` : plural(num_flagged, "flagged image");
  return [
    h("h3", {}, `${words}, each beside the training image that it comes near to`),
    h("div", { class: "sx-audit-pairs" }, flagged.map(pair)),
    h("p", { class: "sx-note" }, "Flagged images are left out of the next export."),
  ];
}

function signature(item, found, dialog, reload) {
  const report = h("a", { class: "sx-button sx-small", href: `/api/exports/${item.id}/audit.html`, download: "" }, "Download the report");
  if (item.release) return h("footer", {}, h("p", { class: "sx-verified" }, signed(item.release)), report);
  const isClean = found.verdict === "nothing found";
  const reason = h("input", { type: "text", id: "release-reason", maxlength: 500, placeholder: "to whom, and why it may go", "aria-label": "Reason of the release" });
  const despite = h("input", { type: "checkbox", id: "release-despite" });
  const sign = h("button", { type: "button", class: "sx-button sx-primary", id: "release-sign", disabled: true }, "Sign the release");
  const check = () => (sign.disabled = reason.value.trim().length < MIN_REASON || (!isClean && !despite.checked));
  reason.addEventListener("input", check);
  despite.addEventListener("change", check);
  sign.addEventListener("click", () =>
    act(sign, async () => {
      const made = await post(`/api/exports/${item.id}/release`, { disclosure_id: found.id, reason: reason.value, despite: despite.checked });
      dialog.close();
      toast(`Export ${item.id} is released by ${made.person}; the ledger keeps it.`);
      await reload();
    }).then(check),
  );
  return h(
    "footer",
    {},
    h("label", { class: "sx-audit-reason" }, "Reason, kept in the ledger", reason),
    isClean ? null : h("label", { class: "sx-check" }, despite, "I have read what was found, and let it go despite that"),
    h("div", { class: "sx-row" }, sign, report, h("button", { type: "button", class: "sx-button sx-small", onclick: (event) => again(event.currentTarget, item, dialog) }, "Audit again")),
  );
}

function again(button, item, dialog) {
  return startAudit(button, item).then(() => dialog.close());
}
