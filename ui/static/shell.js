// Header (project, counts, theme) and the strip at the bottom that follows the running job on every tab.
import { act, ago, duration, emit, get, h, on, percent, plural, post, PERSON_KEY, refreshOverview, remember, replace, state, toast } from "./lib.js";
import { welcome } from "./welcome.js";

const FAST_MS = 1000,
  IDLE_MS = 15000;
const chooser = h("select", { "aria-label": "Project", id: "project-chooser" });
const facts = h("span", { class: "sx-facts" });
const who = h("button", { type: "button", class: "sx-who", title: "Who is here? Masks and votes carry this name." });
const notice = h("div", { class: "sx-notice", role: "status", hidden: true });
const job = {
  title: h("strong"),
  text: h("span"),
  bar: h("div", { class: "sx-bar-fill" }),
  stop: h("button", { type: "button", class: "sx-link" }, "Stop"),
};
const strip = h("footer", { class: "sx-strip", "aria-label": "Work in progress" });
let timer = 0,
  seen = new Map(),
  isPrimed = false,
  startNotice = "",
  lastEnd = null;

export function mount(element) {
  restoreTheme();
  element.append(
    h(
      "header",
      { class: "sx-header" },
      h("h1", { class: "sx-brand" }, logo(), h("b", {}, "SAADi Studio")),
      h(
        "div",
        { class: "sx-header-right" },
        facts,
        h("label", { class: "sx-project" }, h("span", {}, "Project"), chooser),
        who,
        h(
          "button",
          { type: "button", class: "sx-icon", title: "What is this?", "aria-label": "What is this?", onclick: () => welcome() },
          "?",
        ),
        h(
          "button",
          {
            type: "button",
            class: "sx-icon",
            title: "Dark or light",
            "aria-label": "Switch between dark and light",
            onclick: switchTheme,
          },
          "\u25d0",
        ),
      ),
    ),
    notice,
    strip,
  );
  who.addEventListener("click", choosePerson);
  chooser.addEventListener("change", () => choose(Number(chooser.value)));
  on("poll", poll);
  on("projects", (id) => start(id));
  on("overview", showFacts);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) poll();
  });
  replace(
    strip,
    job.title,
    h("div", { class: "sx-bar", role: "progressbar", "aria-label": "Progress" }, job.bar),
    job.text,
    job.stop,
    h("span", { class: "sx-disclaimer" }, "Research use only; not a medical device"),
  );
  start(Number(localStorage.getItem("saadi.project")) || null);
  welcome({ isFirst: true });
}

function logo() {
  return h("span", { class: "sx-logo", "aria-hidden": "true" });
}

async function start(wanted) {
  try {
    const answer = await get("/api/start");
    Object.assign(state, { projects: answer.projects, user: answer.user, people: answer.people });
    replace(who, h("span", { class: "sx-initial", "aria-hidden": "true" }, answer.user.slice(0, 1).toUpperCase()), answer.user);
    who.setAttribute("aria-label", `You are ${answer.user}; change`);
    const wasPreparing = startNotice && !answer.notice;
    startNotice = answer.notice ?? "";
    showNotice();
    if (answer.notice) setTimeout(() => start(state.project?.id ?? wanted), 1000);
    replace(
      chooser,
      state.projects.map((project) => h("option", { value: project.id }, project.name)),
    );
    const chosen = state.projects.find((project) => project.id === wanted) ?? state.projects[0];
    if (chosen && chosen.id !== state.project?.id) choose(chosen.id);
    else if (state.project) chooser.value = state.project.id;
    if (wasPreparing) {
      emit("library");
      refreshOverview().catch(() => {});
    }
  } catch {
    setTimeout(() => start(wanted), 2000);
  }
}

async function choose(id) {
  state.project = state.projects.find((project) => project.id === id) ?? null;
  if (!state.project) return;
  chooser.value = id;
  remember("saadi.project", id);
  state.overview = null; // the numbers of another project are none of this one
  isPrimed = false; // what ended earlier in another project is no news
  document.documentElement.dataset.project = id;
  document.documentElement.dataset.task = state.project.task;
  emit("project", state.project);
  refreshOverview().catch(() => {});
  poll();
}

/** Reviewers who share this computer take turns: everything they do carries the name chosen here. */
function choosePerson() {
  const name = h("input", { type: "text", maxlength: 60, required: true, "aria-label": "Your name", placeholder: "Your name" });
  const dialog = h("dialog", { class: "sx-dialog sx-people", "aria-labelledby": "people-title" });
  const take = (chosen) => {
    remember(PERSON_KEY, chosen);
    location.reload(); // every tab asks anew, under the new name
  };
  dialog.append(
    h("button", { type: "button", class: "sx-close", "aria-label": "Close", onclick: () => dialog.close() }, "\u00d7"),
    h("h2", { id: "people-title" }, "Who is here?"),
    h("p", {}, "Your masks and votes carry your name. Nobody sees another person's votes before having voted."),
    h(
      "div",
      { class: "sx-people-list" },
      state.people.map((person) =>
        h(
          "button",
          { type: "button", class: "sx-button", "aria-pressed": String(person === state.user), onclick: () => take(person) },
          person,
        ),
      ),
    ),
    h(
      "form",
      {
        class: "sx-row",
        onsubmit: (event) => {
          event.preventDefault();
          if (name.value.trim()) take(name.value.trim());
        },
      },
      name,
      h("button", { type: "submit", class: "sx-button sx-primary" }, "That's me"),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

// What the start has to say, else what the generator in use has to say about itself, until somebody closes it.
function showNotice() {
  const engine = state.overview?.adapter ? null : state.overview?.models.engine,
    key = `saadi.read-note.${state.project?.created_at}.${engine?.id}`,
    note = engine?.metrics.note && !localStorage.getItem(key) ? engine.metrics.note : "";
  const close = () => {
    remember(key, "1");
    showNotice();
  };
  const text = startNotice || note;
  if (notice.dataset.text === text) return; // said already; a reader need not hear it again
  notice.dataset.text = text;
  notice.hidden = !text;
  replace(notice, text, note && !startNotice ? h("button", { type: "button", class: "sx-link", onclick: close }, "Got it") : null);
  document.documentElement.style.setProperty("--sx-note", `${notice.offsetHeight}px`);
}

function showFacts(overview) {
  showNotice();
  facts.textContent = `${plural(overview.images, "real image")} \u00b7 ${overview.samples} synthetic \u00b7 ${plural(overview.votes, "vote")} \u00b7 generator ${overview.adapter ? overview.adapter.name : "base"}`;
}

// ---- jobs: one look a second while something runs, else one in fifteen

async function poll() {
  clearTimeout(timer);
  let wait = IDLE_MS;
  try {
    const answer = await get(`/api/jobs?limit=20${state.project ? `&project_id=${state.project.id}` : ""}`);
    Object.assign(state, { active: answer.active, recent: answer.recent });
    announceEnds(answer.recent);
    showJob();
    emit("jobs", answer);
    if (answer.active.length) wait = FAST_MS;
  } catch {
    job.title.textContent = "The program does not answer";
    job.text.textContent = "It may have been stopped. Strokes and votes are kept in this browser and sent when it is back.";
    strip.dataset.state = "offline";
    wait = 2000;
  }
  timer = setTimeout(() => (document.hidden ? (timer = setTimeout(poll, IDLE_MS)) : poll()), wait);
}

// Some ends show themselves where they were asked for; in Align a message would lie on the buttons that decide.
function isShown(item) {
  if (item.kind === "predict" || item.purpose === "draw") return true;
  return item.kind === "align" && !!document.querySelector("[data-panel=align]")?.offsetParent;
}

function announceEnds(recent) {
  const first = !isPrimed;
  isPrimed = true;
  for (const item of [...recent].reverse()) {
    const before = seen.get(item.id);
    seen.set(item.id, item.state);
    if (first || before === item.state || !["done", "failed", "cancelled"].includes(item.state)) continue;
    lastEnd = { item, at: Date.now() };
    if (item.state === "failed") toast(`${item.title}: ${item.error ?? "failed"}`, "bad");
    else if (item.state === "done" && !isShown(item)) toast(`${item.title}: ${item.message}`, "good");
    emit("job:end", item);
    refreshOverview().catch(() => {});
  }
}

function showJob() {
  const running = state.active.find((item) => item.state === "running") ?? state.active[0];
  strip.dataset.state = running ? "busy" : "idle";
  job.stop.hidden = !running;
  if (!running) {
    const end = lastEnd?.item;
    job.title.textContent = end ? end.title : "Ready";
    job.text.title = job.text.textContent = end
      ? `${end.state === "failed" ? end.error : end.message} (${ago(lastEnd.at)})`
      : "Nothing is running.";
    return;
  }
  const share = running.total ? running.step / running.total : 0;
  const others = state.active.length - 1;
  job.title.textContent = running.title;
  job.bar.style.width = `${100 * share}%`;
  job.bar.parentElement.setAttribute("aria-valuenow", Math.round(100 * share));
  job.text.textContent = [
    running.cancelling ? "stopping" : running.message,
    running.total ? percent(share) : "",
    running.eta_s ? `${duration(running.eta_s)} left` : "",
    others ? `${others} more waiting` : "",
  ]
    .filter(Boolean)
    .join(" \u00b7 ");
  job.stop.onclick = () =>
    act(job.stop, async () => {
      await post(`/api/jobs/${running.id}/cancel`, {});
      await poll();
    });
}

// ---- dark and light

function restoreTheme() {
  const kept = localStorage.getItem("saadi.theme");
  if (kept && !new URLSearchParams(location.search).has("__theme")) document.body.classList.toggle("dark", kept === "dark");
}
function switchTheme() {
  remember("saadi.theme", document.body.classList.toggle("dark") ? "dark" : "light");
}
