// What every tab shares: elements without HTML strings, calls to the server, one bus, one state.

const SVG_NS = "http://www.w3.org/2000/svg";

/** Build an element. Text is always put in as text, never parsed: names come from files and people. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG_NS, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, part]) => node.style.setProperty(key, part ?? ""));
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function replace(node, ...children) {
  node.replaceChildren(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
}

// ---- calls

export class ApiError extends Error {
  constructor(message, status, data) {
    super(message);
    this.status = status;
    this.data = data;
  }
}

/** Who sits here, when it is not the user of the computer's account; several reviewers may share one page. */
export const PERSON_KEY = "saadi.person";
function signed(headers, name = localStorage.getItem(PERSON_KEY)) {
  return name ? { ...headers, "X-Saadi-Person": encodeURIComponent(name) } : headers;
}

async function call(path, options, person) {
  const silence = () => new ApiError("The program does not answer; it may have been stopped.", 0, null);
  let answer,
    data = null,
    isWhole = true;
  try {
    answer = await fetch(path, { ...options, headers: signed(options.headers, person) });
  } catch {
    throw silence();
  }
  try {
    data = await answer.json();
  } catch {
    isWhole = false; // killed in the middle of its answer
  }
  if (!answer.ok) throw new ApiError(data?.error ?? `The program answered ${answer.status}.`, answer.status, data);
  if (!isWhole) throw silence();
  return data;
}
export const get = (path) => call(path, { headers: { Accept: "application/json" } });
/** `person` signs what somebody else did here before (null: the user of the account); left out, it is who sits here now. */
export const post = (path, body, person) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }, person);
export const requestId = () => crypto.randomUUID();

/** Run an action of the user; an error becomes a toast with the server's sentence. */
export async function act(button, action) {
  if (button) button.disabled = true;
  try {
    return await action();
  } catch (error) {
    toast(error.message, "bad");
    if (!(error instanceof ApiError)) throw error;
  } finally {
    if (button) button.disabled = false;
  }
}

// ---- state and bus: "project", "jobs", "job:end", "overview", "samples", "adapters", "votes"

const listeners = new Map();
export const on = (name, listener) => {
  (listeners.get(name) ?? listeners.set(name, new Set()).get(name)).add(listener);
};
export const emit = (name, data) => {
  for (const listener of listeners.get(name) ?? []) listener(data);
};
export const state = { project: null, projects: [], user: "", people: [], overview: null, active: [], recent: [] };

/** The images of this project have a class each, in place of a mask. */
export const isClassification = () => state.project?.task === "classification";
/** A version that has learnt what is not wanted: guidance leads away from it, and it never makes images by itself. */
export const isNegative = (version) => version.config?.negative != null;
/** Words that stand in the page for good: those of the project's task are seen (classes.css). */
export const byTask = (masks, classes) => [h("span", { class: "sx-mask-only" }, masks), h("span", { class: "sx-class-only" }, classes)];
/** A class as people see it: its colour and its name. */
export function classTag(index) {
  const label = state.project.classes[index];
  return h("span", { class: "sx-class-tag" }, h("i", { style: { background: label?.color ?? "#888888" } }), label?.name ?? `class ${index}`);
}

/** Call back now when a project is chosen, and whenever another one is. */
export function withProject(listener) {
  on("project", () => state.project && listener(state.project));
  if (state.project) listener(state.project);
}

/** Call back each time the element comes into view (its tab is opened). */
export function onShow(node, listener) {
  let shown = false;
  new IntersectionObserver((entries) => {
    const visible = entries.some((entry) => entry.isIntersecting);
    if (visible && !shown) listener();
    shown = visible;
  }).observe(node);
}

export async function refreshOverview() {
  const { project } = state;
  if (!project) return;
  const found = await get(`/api/projects/${project.id}/overview`);
  if (state.project !== project) return;
  state.overview = found;
  emit("overview", state.overview);
}

/** Place an order and let the job strip follow it. */
export async function order(kind, values) {
  const answer = await post(`/api/orders/${kind}`, { project_id: state.project.id, request_id: requestId(), values });
  emit("poll");
  return answer;
}

/** Follow a job to its end; `onProgress` sees it now and then, and ends the watch by returning false. */
export async function finished(job, onProgress = () => {}) {
  while (["queued", "running"].includes(job.state)) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    job = await get(`/api/jobs/${job.id}`);
    if (onProgress(job) === false) break;
  }
  return job;
}

export const openTab = (name) => document.querySelector(`#tab-${name}-button, [role=tab][aria-controls="tab-${name}"]`)?.click();

// ---- pictures

/** Patterns beside class colours, where the user asked for them (Draw). */
export const patterns = { isOn: false };
const hatch = () => (patterns.isOn ? "&hatch=1" : "");
export const urls = {
  image: (blob) => `/image/${blob}.png`,
  thumb: (blob, size = 256) => `/image/${blob}.png?size=${size}`,
  mask: (blob, size = 256) => `/mask/${state.project.id}/${blob}.webp?size=${size}${hatch()}`,
  outline: (blob, like, size = 768) => `/outline/${state.project.id}/${blob}.png?size=${size}&like=${like}`,
  overlay: (image, map, size = 256) => `/overlay/${state.project.id}/${image}/${map}.webp?size=${size}${hatch()}`,
  disagreement: (asked, predicted, size = 512) => `/disagreement/${state.project.id}/${asked}/${predicted}.webp?size=${size}`,
};
export const picture = (source, alternative, attributes = {}) =>
  h("img", { src: source, alt: alternative, loading: "lazy", decoding: "async", draggable: "false", ...attributes });
/** An image element that is being loaded: before the filmstrip, which asks for dozens; or ("low") after everything else. */
export const loading = (source, priority = "high") => Object.assign(new Image(), { fetchPriority: priority, src: source });
export const badge = (kind) => h("span", { class: `sx-badge sx-badge-${kind}` }, kind.toUpperCase());
export const kbd = (key) => h("kbd", {}, key);

/** Remember a convenience in this browser; where its storage is full or closed, it is forgotten and nothing else happens. */
export function remember(key, text) {
  try {
    localStorage.setItem(key, text);
  } catch {
    /* only a convenience */
  }
}

// ---- words and numbers

export const percent = (value) => (value === null || value === undefined ? "-" : `${Math.round(100 * value)}\u00a0%`);
export const fixed = (value, digits = 2) =>
  value === null || value === undefined || Number.isNaN(+value) ? "-" : (+value).toFixed(digits);
export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
export function ago(milliseconds) {
  const seconds = Math.round((Date.now() - milliseconds) / 1000);
  return seconds < 2 ? "just now" : `${duration(seconds)} ago`;
}
export const when = (text) =>
  new Date(text).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

// ---- feedback

export function toast(message, kind = "info", action = null) {
  let box = document.querySelector(".sx-toasts");
  if (!box) document.body.append((box = h("div", { class: "sx-toasts", role: "status", "aria-live": "polite" })));
  const note = h(
    "div",
    { class: `sx-toast sx-toast-${kind}` },
    h("span", {}, message),
    action &&
      h(
        "button",
        {
          type: "button",
          class: "sx-link",
          onclick: () => {
            note.remove();
            action.run();
          },
        },
        action.label,
      ),
    h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => note.remove() }, "\u00d7"),
  );
  box.append(note);
  setTimeout(() => note.remove(), kind === "bad" ? 9000 : 5000);
}

/** True when a key belongs to somebody else: a text field, a dialog, a modifier. */
export function keyIsTaken(event) {
  if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return true;
  const target = event.composedPath()[0];
  if (
    target.closest?.(
      "input:not([type=range]):not([type=checkbox]):not([type=radio]),textarea,select,[contenteditable],[role=textbox],[role=listbox]",
    )
  )
    return true;
  return document.querySelector("dialog[open]") !== null; // keys in a dialog are the dialog's
}

/** Listen for keys while the element is on the open tab; gone with the element. */
export function onKeys(node, listener) {
  function onKey(event) {
    if (!node.isConnected) return document.removeEventListener("keydown", onKey);
    if (node.offsetParent === null || keyIsTaken(event)) return;
    if (listener(event)) event.preventDefault();
  }
  document.addEventListener("keydown", onKey);
}

/** A labelled number field; `field.number()` gives null when it is empty. */
export function numberField(label, value, attributes = {}) {
  const input = h("input", { type: "number", value, "aria-label": label, ...attributes });
  const field = h("label", { class: "sx-field" }, h("span", {}, label), input);
  field.input = input;
  field.number = () => (input.value === "" ? null : Number(input.value));
  return field;
}

export function selectField(label, options, value, onchange = null) {
  const input = h(
    "select",
    { "aria-label": label, onchange: onchange && (() => onchange(input.value)) },
    options.map(([key, text]) => h("option", { value: key }, text)),
  );
  if (value !== undefined) input.value = value;
  const field = h("label", { class: "sx-field" }, h("span", {}, label), input);
  field.input = input;
  return field;
}

/** Two or more exclusive choices as one control. */
export function segmented(label, options, value, onchange) {
  const box = h("div", { class: "sx-segmented", role: "group", "aria-label": label });
  box.set = (chosen) => {
    box.value = chosen;
    [...box.children].forEach((button) => button.setAttribute("aria-pressed", button.dataset.value === chosen));
  };
  box.append(
    ...options.map(([key, text]) =>
      h(
        "button",
        {
          type: "button",
          dataset: { value: key },
          onclick: () => {
            if (box.value !== key) {
              box.set(key);
              onchange(key);
            }
          },
        },
        text,
      ),
    ),
  );
  box.set(value);
  return box;
}
