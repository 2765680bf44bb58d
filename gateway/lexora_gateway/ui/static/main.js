// The page: which view is shown, and the state that all of them show.

import { byId } from "./dom.js";
import { age, count } from "./format.js";
import { showCalls, showModels } from "./lists.js";
import { redraw, showOverview } from "./overview.js";
import { choose, offer } from "./playground.js";
import { askToSignIn, asked, onSignedIn, showCaller, signedIn } from "./sign_in.js";

const POLL = 2000; // milliseconds
const VIEWS = ["overview", "calls", "models", "playground"];
const MOODS = { healthy: "good", degraded: "fair", unhealthy: "bad" };
const THEMES = ["system", "light", "dark"];

let state = null;
let view = "overview";

function open() {
  const named = location.hash.slice(1);
  view = VIEWS.includes(named) ? named : "overview";
  for (const name of VIEWS) byId(name).hidden = name !== view || asked();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · Lexora`;
  show();
}

function show() {
  if (state === null) return;
  const { health, stats } = state;
  byId("state").textContent = health.status;
  byId("state").className = `pill ${MOODS[health.status] ?? ""}`;
  byId("about").textContent = `version ${health.version} · up ${age(health.uptime_seconds)} · ${count(stats.total_requests)} calls`;
  offer(state.models);
  showCaller(state.caller);
  if (view === "overview") showOverview(state);
  if (view === "calls") showCalls(state);
  if (view === "models") showModels(state, tryIt);
}

function tryIt(model) {
  location.hash = "playground";
  open();
  choose(model);
}

async function poll() {
  if (document.hidden) return;
  try {
    const response = await fetch("state", { signal: AbortSignal.timeout(8000) });
    if (response.status === 401 || response.status === 403) {
      if (!asked()) signIn();
      return;
    }
    if (!response.ok) throw new Error(`the gateway answered ${response.status}`);
    const fresh = await response.json();
    // What a user is about to press or read must not be replaced under the finger.
    state = fresh;
    byId("trouble").hidden = true;
    if (asked()) {
      signedIn();
      open();
    }
    if (!document.activeElement?.closest("table")) show();
  } catch (error) {
    byId("trouble").textContent = `No answer from the gateway (${error.message}); trying again. What you see is old.`;
    byId("trouble").hidden = false;
    byId("state").textContent = "no answer";
    byId("state").className = "pill bad";
  }
}

// To a browser that is not signed in, or no more, the page shows nothing that it had.
function signIn() {
  state = null;
  askToSignIn();
  byId("trouble").hidden = true;
  byId("state").textContent = "signed out";
  byId("state").className = "pill";
  byId("about").textContent = "";
  for (const id of ["tiles", "backends", "calls-table", "models-table", "conversation", "cost"]) byId(id).replaceChildren();
  open();
}

async function run() {
  await poll();
  setTimeout(run, POLL);
}

function theme(name) {
  if (name === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", name);
  byId("theme").textContent = `Theme: ${name}`;
  redraw();
}

let chosen = THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system";
theme(chosen);
byId("theme").addEventListener("click", () => {
  chosen = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
  localStorage.setItem("theme", chosen);
  theme(chosen);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
addEventListener("hashchange", open);
document.addEventListener("visibilitychange", poll);
onSignedIn(poll);
open();
run();
