// Decisions as they are made, and any of them explained.

import { get, part } from "./api.js";
import { chip, code, fill, h, svg, table, tableRow, terms, time, value } from "./dom.js";
import { proveRow } from "./audit.js";

const POLL = 2000;
const SHOWN = 300;

export function word(decision) {
  return decision === "allowed" ? chip("✓ allowed", "good") : chip("✗ refused", "bad");
}

export function status(text) {
  const kind = { affirming: "good", warning: "warn", contraindicated: "bad", none: "warn" }[text];
  return text ? chip(text, kind ?? "") : "–";
}

function cells({ sequence, time: at, row }) {
  return [sequence, time(at), row.action, word(row.decision), row.tee || "–", status(row.status),
    row.resource ? code(row.resource, 60) : "–", row.actor || code(row.measurement ?? "", 16),
    row.reasons?.length ? `${row.reasons[0].split(":")[0]}${row.reasons.length > 1 ? ` +${row.reasons.length - 1}` : ""}` : "–"];
}

const HEADS = ["No.", "When", "What", "Decision", "TEE", "Status", "Resource", "By whom", "Reason"];

export async function list(main, go, alive) {
  let entries = (await get("/audit?limit=200")).reverse();
  let last = entries[0]?.sequence ?? 0;
  let live = true;
  const filter = h("input", { type: "search", placeholder: "Filter: text in any column", "aria-label": "Filter decisions", id: "filter" });
  const refused = h("input", { type: "checkbox", id: "only-refused" });
  const pause = h("button", { type: "button", "aria-pressed": "false" }, "Pause");
  const holder = h("div");
  const picture = h("div", { class: "card" });
  const news = h("p", { class: "dim", role: "status" }, "Live: new decisions appear by themselves.");

  const fits = (entry) => {
    if (refused.checked && entry.row.decision !== "refused") return false;
    return !filter.value || JSON.stringify(entry).toLowerCase().includes(filter.value.toLowerCase());
  };
  const row = (entry, fresh = false) => ({ cells: cells(entry), open: () => go(`decisions/${entry.id || entry.sequence}`), key: entry.sequence, fresh });
  const draw = () => {
    fill(holder, table("The newest decisions first. Enter opens one.", HEADS, entries.filter(fits).map((entry) => row(entry)),
      entries.length ? "No decision fits the filter." : "Nothing was decided yet. The first attestation appears here."));
    fill(picture, bars(entries));
  };
  filter.addEventListener("input", draw);
  refused.addEventListener("change", draw);
  pause.addEventListener("click", () => {
    live = !live;
    pause.setAttribute("aria-pressed", String(!live));
    pause.textContent = live ? "Pause" : "Go on";
  });
  fill(main, h("h1", {}, "Decisions"),
    h("p", { class: "lead" }, "Who attested, what was asked for, what was decided and why. Each row is in the append-only record."),
    picture,
    h("div", { class: "bar" }, filter, h("label", {}, refused, "refused only"), pause, news), holder);
  draw();

  const poll = async () => {
    if (!alive()) return;
    if (live && !document.hidden) {
      try {
        const added = await get(`/audit?after=${last}&limit=500`);
        if (added.length && alive()) {
          last = added.at(-1).sequence;
          entries = [...added].reverse().concat(entries).slice(0, SHOWN);
          const body = holder.querySelector("tbody");
          if (body) for (const entry of added.filter(fits)) body.prepend(tableRow(row(entry, true)));
          else draw();
          while (body && body.rows.length > SHOWN) body.lastElementChild.remove();
          fill(picture, bars(entries));
          news.textContent = `${added.length} new, ${added.filter((one) => one.row.decision === "refused").length} of them refused.`;
        }
      } catch (error) { news.textContent = `Not live at the moment: ${error.message}.`; }
    }
    if (alive()) setTimeout(poll, POLL);
  };
  setTimeout(poll, POLL);
}

/** Allowed and refused over the time that the entries span, as bars. */
function bars(entries) {
  if (entries.length < 2) return h("p", { class: "dim" }, "A picture of the last decisions appears here once there are some.");
  const times = entries.map((entry) => Date.parse(entry.time));
  const [from, to] = [Math.min(...times), Math.max(...times)];
  const slots = 60, width = Math.max(1, (to - from) / slots);
  const counts = Array.from({ length: slots }, () => [0, 0]);
  entries.forEach((entry, at) => {
    counts[Math.min(slots - 1, Math.floor((times[at] - from) / width))][entry.row.decision === "allowed" ? 0 : 1] += 1;
  });
  const most = Math.max(...counts.map(([yes, no]) => yes + no));
  const drawn = counts.map(([yes, no], at) => {
    const good = (58 * yes) / most, bad = (58 * no) / most;
    return [svg("rect", { class: "ok", x: at * 10 + 1, width: 8, y: 62 - good, height: good }),
      svg("rect", { class: "no", x: at * 10 + 1, width: 8, y: 62 - good - bad, height: bad })];
  });
  const allowed = entries.filter((entry) => entry.row.decision === "allowed").length;
  const text = `${allowed} allowed and ${entries.length - allowed} refused in the last ${Math.max(1, Math.round((to - from) / 60000))} min`;
  return [svg("svg", { class: "bars", viewBox: "0 0 600 64", preserveAspectRatio: "none", role: "img", "aria-label": text }, ...drawn), h("p", { class: "dim" }, text)];
}

const ELEMENTS = ["instance identity", "configuration", "executables", "file system", "hardware", "runtime opaque", "storage opaque", "sourced data"];

export async function one(main, go, _alive, id) {
  const told = await get(`/audit/decisions/${part(id)}`);
  const { decision } = told, { row } = decision;
  const out = h("div", { class: "card", role: "status" });
  const prove = h("button", { type: "button", class: "first", onclick: async () => { prove.disabled = true; await proveRow(out, decision.sequence); prove.disabled = false; } },
    "Prove that it is in the record");
  fill(main,
    h("p", {}, h("a", { href: "#decisions" }, "← all decisions")),
    h("h1", {}, word(row.decision), " ", row.action, row.resource ? [" ", code(row.resource)] : ""),
    h("p", { class: "lead" }, `Decision ${decision.sequence} of tenant ${decision.tenant}, `, time(decision.time), ". Strangers know it as ", code(decision.id), "."),
    h("h2", {}, "Why"), tree(told),
    row.vector?.length ? [h("h2", {}, "Trustworthiness vector (AR4SI)"), vector(row)] : null,
    h("h2", {}, "Facts"),
    h("div", { class: "card" }, terms([
      ["TEE", row.tee], ["status", row.status ? status(row.status) : ""], ["measurement", row.measurement ? code(row.measurement) : ""],
      ["host data", row.host_data ? code(row.host_data) : ""], ["platform", row.platform ? code(row.platform, 40) : ""],
      ["TCB", row.tcb && Object.keys(row.tcb).length ? levels(row.tcb) : ""],
      ["root", row.root === "custom" ? chip("no hardware: development root", "warn") : row.root],
      ["root key", row.root_fingerprint ? code(row.root_fingerprint) : ""], ["by", row.actor], ["from", row.peer],
      ["policy", row.policy_digest ? [code(row.policy_digest, 16), told.policy_changed ? " (changed since)" : ""] : ""],
      ["reference values", row.reference_generation === undefined || row.reference_generation === null ? "" : `generation ${row.reference_generation}${told.references_changed ? " (changed since)" : ""}`],
      ["version", row.version], ["claims", row.claims ? code(row.claims) : ""],
    ])),
    told.others.length ? [h("h2", {}, "Of the same session"), h("ul", {}, told.others.map((other) =>
      h("li", {}, h("a", { href: `#decisions/${other.id}` }, `No. ${other.sequence} ${other.row.action}`), " ", word(other.row.decision), " ", other.row.resource ?? "")))] : null,
    h("h2", {}, "Proof"), h("p", {}, prove), out);
}

function tree(told) {
  const { row } = told.decision;
  if (!told.findings.length) {
    const why = row.reasons?.length ? row.reasons.join(", ") : "every check passed, and nothing differs";
    return h("div", { class: "card" }, h("span", { class: "mark good" }, "✓"), why);
  }
  const groups = new Map();
  for (const item of told.findings) {
    const name = item.finding.element ? item.finding.element.replaceAll("-", " ") : item.finding.reference ? "reference values" : "decision";
    groups.set(name, [...(groups.get(name) ?? []), item]);
  }
  return h("div", { class: "card" }, h("ul", { class: "tree top" }, [...groups].map(([name, items]) => h("li", {},
    h("details", { open: true }, h("summary", {}, h("span", { class: "mark bad" }, "✗"), h("b", {}, name), ` (${items.length})`),
      h("ul", { class: "tree" }, items.map(finding)))))));
}

function finding(item) {
  const { finding: it } = item;
  const now = item.holds_now === true ? chip("✓ would be accepted today", "good") : item.holds_now === false ? chip("✗ still so today", "bad") : null;
  return h("li", {}, h("span", { class: "mark bad" }, "✗"), code(it.code), it.claim ? [" ", h("b", {}, it.claim)] : "", it.text ? ` ${it.text}` : "", " ", now,
    terms([["expected", it.expected === undefined || it.expected === null ? "" : value(it.expected)],
      ["got", it.got === undefined || it.got === null ? "" : value(it.got)], ["reference", it.reference], ["says", item.provider], ["who can act", item.actor]]),
    item.cure || it.hint ? h("p", { class: "cure" }, h("b", {}, "Cure: "), item.cure || it.hint) : null);
}

export function levels(tcb) {
  return Object.entries(tcb).map(([name, level]) => `${name} ${typeof level === "object" ? JSON.stringify(level) : level}`).join(", ");
}

function vector(row) {
  const tier = (number) => (number < 2 ? ["not said", ""] : number < 32 ? ["affirming", "good"] : number < 96 ? ["warning", "warn"] : ["contraindicated", "bad"]);
  return h("div", { class: "cards" }, row.vector.map((number, at) => {
    const [text, kind] = tier(number);
    return h("div", { class: "card" }, h("b", {}, ELEMENTS[at] ?? at), " ", chip(`${number} ${text}`, kind));
  }));
}
