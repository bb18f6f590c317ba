// Patients who withdraw: chosen from a list, with what their data are in before anything is done, and the way back.
import { act, get, h, plural, post, replace, state, toast, when } from "./lib.js";

const MIN_REASON = 8;
export const TIED = "may have learnt from a patient who has withdrawn";

/** The block of the Data tab; `changed` after somebody was taken out or back in. */
export class Withdrawals {
  constructor(changed) {
    this.changed = changed;
    this.list = h("div", { class: "sx-stack" });
    this.summary = h("summary", {}, "Patients who withdraw");
    this.root = h(
      "details",
      { class: "sx-details", id: "withdrawals" },
      this.summary,
      h(
        "div",
        { class: "sx-stack" },
        h("p", { class: "sx-note" }, "Takes all images of a patient out of later fits, trainings, alignments, masks, audits and exports, and names what may hold their data already."),
        h("button", { type: "button", class: "sx-button sx-small", id: "withdraw-open", onclick: (event) => act(event.currentTarget, () => this.choose()) }, "A patient withdraws\u2026"),
        this.list,
      ),
    );
  }

  async load() {
    const project = state.project,
      { items } = await get(`/api/projects/${project.id}/withdrawals`);
    if (state.project !== project) return;
    const standing = items.filter((item) => !item.revoked_at).length;
    this.summary.textContent = standing ? `Patients who withdraw (${standing})` : "Patients who withdraw";
    replace(this.list, items.map((item) => this.row(item)));
  }

  row(item) {
    const reason = reasonField("why it is taken back"),
      undo = h("button", { type: "button", class: "sx-button sx-small", disabled: true }, "Take it back");
    reason.input.addEventListener("input", () => (undo.disabled = reason.input.value.trim().length < MIN_REASON));
    undo.addEventListener("click", () =>
      act(undo, async () => {
        await post(`/api/withdrawals/${item.id}/revoke`, { reason: reason.input.value });
        toast(`${item.patient}: the images are where they were.`);
        await this.settle();
      }),
    );
    return h(
      "article",
      { class: "sx-withdrawal", dataset: { patient: item.patient, revoked: String(Boolean(item.revoked_at)) } },
      h("b", {}, item.patient),
      h("small", {}, `${when(item.created_at)}, written down by ${item.person}: ${item.reason}`),
      item.revoked_at
        ? h("small", {}, `taken back by ${item.revoked_by}, ${when(item.revoked_at)}: ${item.revoked_reason}`)
        : [
            h("button", { type: "button", class: "sx-button sx-small", onclick: (event) => act(event.currentTarget, () => this.tell(item.patient)) }, "What holds their data"),
            h("details", {}, h("summary", {}, "Take it back"), reason, undo),
          ],
    );
  }

  async settle() {
    await this.load();
    await this.changed();
  }

  async choose() {
    const { patients } = await get(`/api/projects/${state.project.id}/withdrawals`);
    const open = patients.filter((one) => !one.withdrawn);
    const words = (one) => `${one.group.startsWith("own-") ? "patient not given" : one.group} (${one.patient}, ${plural(one.images, "image")})`;
    const who = h(
      "select",
      { id: "withdraw-who", "aria-label": "Patient, video or operation" },
      h("option", { value: "" }, "choose\u2026"),
      open.map((one) => h("option", { value: one.patient }, words(one))),
    );
    const told = h("div", { role: "status", id: "withdraw-trace" }),
      reason = reasonField("why, without naming the patient"),
      sign = h("button", { type: "button", class: "sx-button sx-primary", id: "withdraw-sign", disabled: true }, "Take them out");
    reason.input.id = "withdraw-reason";
    const check = () => (sign.disabled = !who.value || reason.input.value.trim().length < MIN_REASON);
    who.addEventListener("change", async () => {
      check();
      const wanted = who.value;
      replace(told);
      if (!wanted) return;
      const found = await get(trace(wanted)).catch((error) => toast(error.message, "bad"));
      if (found && who.value === wanted) replace(told, sentences(found));
    });
    reason.input.addEventListener("input", check);
    const dialog = opened("A patient withdraws", [
      h("label", { class: "sx-field" }, h("span", {}, "Patient, video or operation"), who),
      told,
      reason,
      h("div", { class: "sx-row" }, sign),
    ]);
    sign.addEventListener("click", () =>
      act(sign, async () => {
        const found = await post(`/api/projects/${state.project.id}/withdrawals`, { patient: who.value, reason: reason.input.value });
        dialog.close();
        toast(`${found.patient}: out of everything from now on; the audit trail keeps it.`);
        await this.settle();
        await this.tell(found.patient);
      }),
    );
  }

  async tell(patient) {
    opened(`What holds data of ${patient}`, sentences(await get(trace(patient))));
  }
}

const trace = (patient) => `/api/projects/${state.project.id}/withdrawals/trace?patient=${encodeURIComponent(patient)}`;
const sentences = (found) => h("ul", { class: "sx-trace" }, found.sentences.map((words) => h("li", {}, words)));

export function reasonField(placeholder, label = "Reason, kept in the audit trail") {
  const input = h("input", { type: "text", maxlength: 500, placeholder, "aria-label": label }),
    field = h("label", { class: "sx-field" }, h("span", {}, label), input);
  field.input = input;
  return field;
}

function opened(title, content) {
  const dialog = h("dialog", { class: "sx-dialog sx-audit", "aria-label": title });
  replace(
    dialog,
    h("header", {}, h("h2", {}, title), h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => dialog.close() }, "\u00d7")),
    h("div", { class: "sx-stack" }, content),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
