// Policies: their text and versions, and a bench on which a new text is tried before it decides.

import { get, part, post, put } from "./api.js";
import { ask, chip, code, fill, h, say, table, terms, time, value } from "./dom.js";
import { word } from "./decisions.js";

const KINDS = { attestation: "what evidence is worth", resource: "whether a release is allowed", requirements: "what SEV-SNP evidence must satisfy first" };

export async function list(main, go) {
  const policies = await get("/policies");
  fill(main, h("h1", {}, "Policies"),
    h("p", { class: "lead" }, "Rego texts that appraise evidence and allow releases. Where none is set the built-in one decides."),
    table("Enter opens one on the bench.", ["Kind", "Id", "Version", "Digest", "Set", "For"],
      policies.map((one) => ({ key: `${one.kind}/${one.id}`, open: () => go(`policies/${one.kind}/${encodeURIComponent(one.id)}`),
        cells: [one.kind, code(one.id), one.version, code(one.digest, 12), time(one.updated), KINDS[one.kind] ?? ""] })),
      "None is set: the built-in policies decide. Open one below to begin from."),
    h("h2", {}, "New"), fresh(go));
}

function fresh(go) {
  const kind = h("select", { "aria-label": "Kind" }, Object.keys(KINDS).map((name) => h("option", { value: name }, name)));
  const id = h("input", { type: "text", "aria-label": "Id", placeholder: "default_cpu, resource-policy, …" });
  const open = () => (id.value.trim() ? go(`policies/${kind.value}/${encodeURIComponent(id.value.trim())}`) : id.focus());
  id.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
  return h("div", { class: "bar" }, kind, id, h("button", { type: "button", onclick: open }, "Open on the bench"));
}

const START = {
  attestation: "package policy\n\nimport rego.v1\n\ndefault executables := 33\n\nexecutables := 3 if {\n\tinput.snp.measurement in query_reference_value(\"snp_launch_measurement\")\n}\n",
  resource: "package policy\n\nimport rego.v1\n\ndefault allow := false\n\nallow if {\n\tinput.submods.cpu0[\"ear.status\"] == \"affirming\"\n}\n",
  requirements: "{\n \"vmpl\": [0],\n \"report_version\": [3, 5]\n}\n",
};

export async function one(main, go, _alive, kind, id) {
  const path = `/policies/${part(kind)}/${part(id)}`;
  const set = await get(path).catch((error) => { if (error.status === 404) return null; throw error; });
  const versions = await get(`${path}/versions`).catch((error) => { if ([400, 404, 405].includes(error.status)) return null; throw error; });
  const text = h("textarea", { spellcheck: "false", "aria-label": "Text of the policy", id: "text" });
  text.value = set?.text || START[kind] || "";
  const original = text.value;
  const out = h("div", { role: "status" });
  const difference = h("details", {}, h("summary", {}, "What differs from the version that decides"));
  difference.addEventListener("toggle", () => { if (difference.open) fill(difference, difference.firstElementChild, diff(original, text.value)); });
  text.addEventListener("input", () => { difference.open = false; });
  const attempt = async (button, work) => {
    button.disabled = true;
    try { await work(); } catch (error) { fill(out, problem(error)); }
    button.disabled = false;
  };
  const test = h("button", { type: "button", class: "first" }, "Try against recorded evidence");
  test.addEventListener("click", () => attempt(test, async () => fill(out, trial(await post(`${path}/test`, { text: text.value })))));
  const keep = h("button", { type: "button" }, "Keep as a candidate");
  keep.addEventListener("click", () => attempt(keep, async () => {
    const kept = await put(path, { text: text.value, activate: false });
    say(`Version ${kept.version} is kept; it decides nothing until it is activated.`);
    go(location.hash.slice(1), true);
  }));
  const activate = h("button", { type: "button", class: "danger" }, "Set, so that it decides");
  activate.addEventListener("click", () => attempt(activate, async () => {
    if (!(await ask("Set this policy?", `From then on it decides for ${kind === "attestation" ? "every attestation that it is for" : "every release"}; sessions attested before end.`, "Set it", true))) return;
    const kept = await put(path, { text: text.value });
    say(kept.needed ? `It waits for approval: ${kept.agreed} of ${kept.needed} agree.` : `Version ${kept.version} decides now.`);
    go(location.hash.slice(1), true);
  }));
  fill(main, h("p", {}, h("a", { href: "#policies" }, "← all policies")),
    h("h1", {}, code(id), " ", chip(kind), " ", set ? chip(`version ${set.version} decides`, "good") : chip("not set: the built-in one decides, if there is one", "warn")),
    set ? h("p", { class: "lead" }, "SHA-256 ", code(set.digest), ", set ", time(set.updated), ".") : null,
    text, difference, h("div", { class: "bar" }, test, keep, activate), out,
    versions ? [h("h2", {}, "Versions"), history(path, versions.versions ?? versions, go, attempt)] : null);
}

function history(path, versions, go, attempt) {
  return table("Every text that was ever set.", ["Version", "State", "Digest", "Who", "When", "Note", ""],
    versions.map((one) => {
      const use = h("button", { type: "button" }, "Activate");
      use.addEventListener("click", () => attempt(use, async () => {
        if (!(await ask("Activate this version?", `Version ${one.version} decides from then on.`, "Activate", true))) return;
        const done = await post(`${path}/activate`, { version: one.version });
        say(done?.needed ? `It waits for approval: ${done.agreed} of ${done.needed} agree.` : `Version ${one.version} decides now.`);
        go(location.hash.slice(1), true);
      }));
      const state = one.state ?? (one.active ? "active" : "");
      return { key: one.version, cells: [one.version, state === "active" ? chip("✓ decides", "good") : state || "–", code(one.digest, 12), one.who || one.actor || "–", time(one.created ?? one.updated), one.note || "", state === "active" ? "" : use] };
    }), "None.");
}

function problem(error) {
  const facts = error.facts ?? {};
  return h("div", { class: "card error" }, h("p", {}, h("b", {}, error.message)),
    terms([["code", facts.code], ["where", facts.field], ["expected", facts.expected === undefined ? "" : value(facts.expected)], ["got", facts.got === undefined ? "" : value(facts.got)], ["hint", facts.hint]]));
}

function trial(result) {
  const cases = result.cases ?? result.results ?? [];
  const changed = cases.filter((one) => one.changed);
  return h("div", { class: "card" },
    h("p", { class: "big" }, changed.length ? `${changed.length} of ${cases.length} recorded decisions would change` : cases.length ? `None of ${cases.length} recorded decisions would change` : "Nothing was recorded to try it against"),
    cases.length ? table("Those that would change come first.", ["Decision", "When", "Now", "Then", "Because of"],
      [...changed, ...cases.filter((one) => !one.changed)].slice(0, 200).map((one) => ({ key: one.id, cells: [
        one.id ? h("a", { href: `#decisions/${one.id}` }, one.sequence ?? one.id) : one.name, one.time ? time(one.time) : "–", said(one.now ?? one.before), said(one.then ?? one.after),
        (one.because ?? one.differs ?? []).map((what) => h("div", {}, typeof what === "string" ? what : code(JSON.stringify(what), 160)))] })), "") :
      h("p", { class: "dim" }, "Recording evidence is off until the tenant asks for it: adyton policy record."));
}

function said(what) {
  if (what === "allowed" || what === "refused") return word(what);
  return typeof what === "string" ? what : value(what);
}

/** Lines that were added and taken away; the longest common subsequence of lines. */
function diff(before, after) {
  const [a, b] = [before.split("\n"), after.split("\n")];
  if (a.length * b.length > 4e6) return h("p", {}, "Too long to compare here: adyton policy diff.");
  const length = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) for (let j = b.length - 1; j >= 0; j -= 1) length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
  const lines = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { lines.push(h("div", {}, `  ${a[i]}`)); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && length[i + 1][j] >= length[i][j + 1])) { lines.push(h("div", { class: "del" }, `- ${a[i]}`)); i += 1; }
    else { lines.push(h("div", { class: "add" }, `+ ${b[j]}`)); j += 1; }
  }
  return h("div", { class: "diff card" }, before === after ? "Nothing." : lines);
}
