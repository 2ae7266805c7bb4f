// Talking to the broker. The token stays in this module's memory; with "keep it" also in this tab's session storage.

const BASE = location.pathname.replace(/\/ui\/?$/, "");
const KEPT = `adyton ${BASE}`;
let token = sessionStorage.getItem(KEPT) ?? "";

// Whose page this is: by its path, or by the name of the host, which only the broker knows.
export let tenant = BASE.startsWith("/t/") ? BASE.split("/")[2] : "";

/** What the broker says whose page this is. */
export function belongsTo(name) {
  tenant = name;
}

export class Refused extends Error {
  constructor(status, facts, text) {
    super(facts?.message ?? text);
    this.status = status;
    this.facts = facts ?? {};
  }
}

export function signedIn() {
  return token !== "";
}

export function signIn(given, keep) {
  token = given.trim();
  if (keep) sessionStorage.setItem(KEPT, token);
}

export function signOut() {
  token = "";
  sessionStorage.removeItem(KEPT);
}

// The address of a page may come from anybody: it must not lead a request elsewhere than where it seems to go.
const STEPS = /(^|[/\\])(\.|%2e){1,2}([/\\?#]|$)/i;

async function send(method, path, body) {
  if (STEPS.test(path)) throw new Refused(0, { code: "address", message: "this address names nothing here" });
  let reply;
  try {
    reply = await fetch(`${BASE}/api/v0${path}`, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: { Authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
    });
  } catch {
    throw new Refused(0, { code: "unreachable", message: "the broker does not answer", hint: "is it running, and can this machine reach it?" });
  }
  if (reply.ok) return reply;
  const text = await reply.text();
  let facts = null;
  try {
    const answer = JSON.parse(text);
    facts = answer.error ?? { message: answer.detail };
  } catch { /* not ours: a proxy's, perhaps */ }
  throw new Refused(reply.status, facts, `the broker answered ${reply.status}`);
}

export async function get(path) {
  return (await send("GET", path)).json();
}

export async function text(path) {
  return (await send("GET", path)).text();
}

export async function put(path, body) {
  const reply = await send("PUT", path, body);
  return reply.status === 204 ? null : reply.json();
}

export async function post(path, body) {
  const reply = await send("POST", path, body ?? {});
  return reply.status === 204 ? null : reply.json();
}

export async function del(path) {
  const reply = await send("DELETE", path);
  return reply.status === 204 ? null : reply.json();
}

export const part = encodeURIComponent;
