// The page's frame: sign in, go from section to section by the address, keyboard, light and dark.

import { belongsTo, get, signedIn, signIn, signOut, tenant } from "./api.js";
import { fill, h, say } from "./dom.js";
import * as audit from "./audit.js";
import * as decisions from "./decisions.js";
import * as people from "./people.js";
import * as policies from "./policies.js";
import * as resources from "./resources.js";
import * as values from "./values.js";

const SECTIONS = [
  ["decisions", "Decisions", "d", decisions.list, decisions.one],
  ["resources", "Resources", "r", resources.list, resources.one],
  ["policies", "Policies", "p", policies.list, policies.one],
  ["references", "Reference values", "v", values.references],
  ["platforms", "Platforms", "m", values.platforms],
  ["audit", "Audit", "a", audit.page],
  ["approvals", "Approvals", "o", people.approvals],
  ["tenants", "Tenants", "t", people.tenants],
];
// What each role may read; the broker refuses the rest whatever is shown here.
const OF_ROLE = {
  auditor: ["decisions", "policies", "references", "platforms", "audit", "approvals", "tenants"],
  operator: ["tenants"],
};
let mine = SECTIONS.map(([name]) => name);
const main = document.getElementById("main");
const nav = document.getElementById("nav");
let turn = 0;

function go(where, again = false) {
  if (again || location.hash === `#${where}`) show();
  else location.hash = where;
}

async function show() {
  const own = (turn += 1);
  const alive = () => own === turn;
  if (!signedIn()) { login(); return; }
  const [name, ...rest] = location.hash.slice(1).split("/");
  const [section, title, , list, one] = SECTIONS.find(([known]) => known === name) ?? SECTIONS.find(([known]) => known === mine[0]);
  for (const link of nav.children) link.toggleAttribute("aria-current", link.dataset.section === section);
  for (const link of nav.children) if (link.dataset.section === section) link.setAttribute("aria-current", "page");
  document.title = `${title} · ${tenant} · Adyton`;
  const fresh = h("div", {}, h("p", { class: "dim" }, "Asking the broker…"));
  fill(main, fresh);
  try {
    await (rest.length && one ? one(fresh, go, alive, ...rest.map(decodeURIComponent)) : list(fresh, go, alive));
    if (alive()) main.focus({ preventScroll: true });
  } catch (error) {
    if (!alive()) return;
    if (error.status === 401) { refuse(error); return; }
    fill(fresh, h("div", { class: "card error", role: "alert" }, h("h1", {}, "That did not work"), h("p", {}, error.message),
      error.facts?.hint ? h("p", {}, error.facts.hint) : null, h("button", { type: "button", onclick: () => show() }, "Try again")));
  }
}

function refuse(error) {
  signOut();
  login(error.message);
}

function login(why = "") {
  turn += 1;
  nav.hidden = true;
  document.getElementById("leave").hidden = true;
  document.getElementById("where").textContent = tenant ? `tenant ${tenant}` : location.host;
  document.title = "Sign in · Adyton";
  const token = h("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true, size: 40, "aria-describedby": "told" });
  const keep = h("input", { type: "checkbox", id: "keep" });
  const told = h("p", { id: "told", role: "alert", class: "bad" }, why);
  const enter = async () => {
    if (!/^[!-~]+$/.test(token.value.trim())) { told.textContent = "A token is one word of letters, digits and signs."; token.select(); return; }
    signIn(token.value, keep.checked);
    try { await begin(); } catch (error) { signOut(); told.textContent = error.status === 401 ? "The broker does not take this token." : error.message; token.select(); }
  };
  token.addEventListener("keydown", (event) => { if (event.key === "Enter") enter(); });
  fill(main, h("div", { class: "card login" }, h("h1", {}, "Sign in"),
    h("p", { class: "dim" }, "With a token of this broker: the admin's (adyton broker serve says where its file is), or your own."),
    h("label", { for: "token" }, h("span", {}, "Token"), token),
    h("label", {}, keep, " keep it until this tab is closed"),
    h("p", {}, h("button", { type: "button", class: "first", onclick: enter }, "Sign in")), told));
  token.focus();
}

async function begin() {
  const [about, me] = await Promise.all([get("/about"), get("/whoami")]);
  belongsTo(about.tenant);
  mine = OF_ROLE[me.role] ?? SECTIONS.map(([name]) => name);
  for (const link of nav.children) link.hidden = !mine.includes(link.dataset.section);
  document.getElementById("where").textContent = `tenant ${about.tenant} · ${about.environment} · ${me.name}, ${me.role} · ${location.host}`;
  const banner = document.getElementById("protection");
  banner.hidden = about.development_roots.length === 0;
  banner.textContent = "A development root is trusted here: NO HARDWARE PROTECTION stands behind its evidence.";
  nav.hidden = false;
  document.getElementById("leave").hidden = false;
  await show();
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("adyton theme", root.dataset.theme);
}

function shortcuts() {
  const dialog = document.getElementById("dialog");
  const rows = [...SECTIONS.map(([, title, key]) => [`g ${key}`, title]), ["/", "filter"], ["j k ↑ ↓", "next and previous row"], ["Enter", "open a row"], ["Esc", "close"], ["?", "this list"]];
  fill(dialog, h("h2", { id: "dialog-title" }, "Keyboard"), h("dl", {}, rows.map(([keys, what]) => [h("dt", {}, keys.split(" ").map((key) => [h("kbd", {}, key), " "])), h("dd", {}, what)])),
    h("p", {}, h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Close")));
  dialog.showModal();
}

let waiting = 0; // the timer of a "g" that waits for its second key
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.getElementById("dialog").open) return;
  if (waiting) {
    clearTimeout(waiting); // or it would end the next one's wait
    waiting = 0;
    const section = SECTIONS.find(([, , key]) => key === event.key);
    if (section && signedIn() && mine.includes(section[0])) { go(section[0]); event.preventDefault(); }
  } else if (event.key === "g") {
    waiting = setTimeout(() => { waiting = 0; }, 1500);
  } else if (event.key === "?") shortcuts();
  else if (event.key === "/") {
    const filter = document.getElementById("filter");
    if (filter) { filter.focus(); event.preventDefault(); }
  }
});

fill(nav, SECTIONS.map(([name, title, key]) => h("a", { href: `#${name}`, "data-section": name, "aria-keyshortcuts": `g ${key}` }, title)));
document.getElementById("theme").addEventListener("click", theme);
document.getElementById("help").addEventListener("click", shortcuts);
document.getElementById("leave").addEventListener("click", () => {
  signOut();
  history.replaceState(null, "", location.pathname); // the next person begins at their own beginning
  login();
  say("Signed out.");
});
const kept = localStorage.getItem("adyton theme");
if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
addEventListener("hashchange", show);
if (signedIn()) begin().catch((error) => refuse(error)); else login();
