// Policies: their text and versions, and a bench on which a new text is tried before it decides.

import { del, get, part, post, put } from "./api.js";
import { ask, chip, code, fill, h, say, table, terms, time, value } from "./dom.js";

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
  const [versions, activations, running] = await Promise.all(["versions", "activations", "dry-run"].map((what) =>
    get(`${path}/${what}`).catch((error) => { if (error.status === 404) return []; throw error; })));
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
  test.addEventListener("click", () => attempt(test, async () => fill(out, trial(await post("/policy-tests", { kind, id, text: text.value })))));
  const keep = h("button", { type: "button" }, "Keep as a candidate");
  keep.addEventListener("click", () => attempt(keep, async () => {
    const kept = await put(path, { text: text.value, activate: false });
    say(kept.needed ? waits(kept) : `Version ${kept.version} is kept; it decides nothing until it is activated.`);
    go(location.hash.slice(1), true);
  }));
  const activate = h("button", { type: "button", class: "danger" }, "Set, so that it decides");
  activate.addEventListener("click", () => attempt(activate, async () => {
    if (!(await ask("Set this policy?", `From then on it decides for ${kind === "attestation" ? "every attestation that it is for" : "every release"}; sessions attested before end.`, "Set it", true))) return;
    const kept = await put(path, { text: text.value });
    say(kept.needed ? waits(kept) : `Version ${kept.version} decides now.`);
    go(location.hash.slice(1), true);
  }));
  fill(main, h("p", {}, h("a", { href: "#policies" }, "← all policies")),
    h("h1", {}, code(id), " ", chip(kind), " ", set ? chip(`version ${set.version} decides`, "good") : chip("not set: the built-in one decides, if there is one", "warn")),
    set ? h("p", { class: "lead" }, "SHA-256 ", code(set.digest), ", set ", time(set.updated), ".") : null,
    text, difference, h("div", { class: "bar" }, test, keep, activate), out,
    running.length ? [h("h2", {}, "On trial"), dryRuns(path, running, go, attempt)] : null,
    versions.length ? [h("h2", {}, "Versions"), history(path, versions, go, attempt)] : null,
    activations.length ? [h("h2", {}, "What decided when"), table("The latest first.", ["No.", "Version", "What", "Who", "When"],
      activations.map((it) => ({ key: it.number, cells: [it.number, it.version || "none", it.action, it.actor, time(it.time)] })), "")] : null);
}

function button(label, question, work, go, attempt, kind = "") {
  const made = h("button", { type: "button", class: kind || null }, label);
  made.addEventListener("click", () => attempt(made, async () => {
    if (question && !(await ask(`${label}?`, question, label, true))) return;
    const done = await work();
    say(done?.needed ? `It waits for approval: ${done.agreed} of ${done.needed} agree.` : "Done.");
    go(location.hash.slice(1), true);
  }));
  return made;
}

function dryRuns(path, running, go, attempt) {
  return table("Evaluated beside the version that decides, without deciding.", ["Version", "Since", "By", "Same", "Would differ", "Failed", "Skipped", ""],
    running.map((it) => ({ key: it.version, cells: [it.version, time(it.since), it.actor, it.same,
      chip(it.differ, it.differ ? "warn" : "good"), chip(it.failed, it.failed ? "bad" : "good"), it.skipped,
      button("End the trial", "", () => del(`${path}/dry-run`), go, attempt)] })), "");
}

function history(path, versions, go, attempt) {
  return table("Every text that was set. A candidate decides nothing.", ["Version", "State", "Digest", "Who", "When", "Note", ""],
    versions.map((it) => ({ key: it.version, cells: [it.version,
      it.state === "active" ? chip("✓ decides", "good") : it.state === "dry-run" ? chip("on trial", "warn") : it.pinned ? "named by a binding" : "–",
      code(it.digest, 12), it.actor || "–", time(it.created), it.note || "",
      it.state === "active" ? button("Roll back", "The version that decided before decides again.", () => post(`${path}/rollback`), go, attempt)
        : h("span", { class: "bar" }, button("Activate", `Version ${it.version} decides from then on.`, () => post(`${path}/activate`, { version: it.version }), go, attempt),
          it.state === "dry-run" ? null : button("Try beside", "", () => post(`${path}/dry-run`, { version: it.version }), go, attempt))] })), "None.");
}

function waits(proposal) {
  return `It waits for approval: ${proposal.agreed} of ${proposal.needed} agree.`;
}

function problem(error) {
  const facts = error.facts ?? {};
  return h("div", { class: "card error" }, h("p", {}, h("b", {}, error.message)),
    terms([["code", facts.code], ["where", facts.field], ["expected", facts.expected === undefined ? "" : value(facts.expected)], ["got", facts.got === undefined ? "" : value(facts.got)], ["hint", facts.hint]]));
}

function trial(report) {
  const differ = report.tried - report.same;
  return h("div", { class: "card" },
    h("p", { class: "big" }, report.tried ? `${differ} of ${report.tried} recorded decisions would change` : "Nothing is recorded to try it against"),
    report.tried ? [h("p", {}, `${report.same} stay the same, ${report.better} would be judged better, ${report.worse} worse, ${report.failed} could not be judged.`),
      table("Those that would change come first.", ["Decision", "When", "Of whom", "Now", "Then", "Because of"],
        report.trials.slice(0, 200).map((one) => ({ key: one.number, cells: [
          one.sequence ? h("a", { href: `#decisions/${one.sequence}` }, `No. ${one.sequence}`) : one.number, time(one.time), code(one.subject, 30), judged(one.now), judged(one.candidate),
          one.error ? chip(one.error, "bad") : (one.causes ?? []).map((cause) => h("div", {}, code(cause.path), " ", value(cause.got)))] })), "")]
      : h("p", { class: "dim" }, "Recording is off until the tenant asks for it: adyton policy record --keep 1000"));
}

function judged(text) {
  const kind = { affirming: "good", allowed: "good", allow: "good", warning: "warn", none: "warn", contraindicated: "bad", refused: "bad", deny: "bad" }[text];
  return chip(text, kind ?? "");
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
