// Reference values with who stands behind them, and the platforms with the age of their trusted computing base.

import { get } from "./api.js";
import { age, chip, code, fill, h, table, terms, time, value } from "./dom.js";
import { levels, status } from "./decisions.js";

function state(one) {
  if (one.expired) return chip("✗ expired", "bad");
  if (!one.counts) return chip(`✗ ${one.state}`, "bad");
  return one.state === "deprecated" ? chip("deprecated", "warn") : chip("✓ counts", "good");
}

export async function references(main) {
  const [values, providers] = await Promise.all([get("/references"), get("/providers")]);
  const detail = h("div", { role: "status" });
  const open = (one) => fill(detail, h("div", { class: "card" }, h("h2", {}, one.name), terms([
    ["value", h("pre", { class: "diff" }, JSON.stringify(one.value, null, 1))], ["state", [state(one), ` ${one.state}`]], ["version", one.version], ["set", time(one.updated)],
    ["valid from", one.not_before], ["until", one.expires], ["provider", one.provider || "set by hand: no proof stands behind it"], ["kind of proof", one.kind],
    ["what was signed (SHA-256)", one.proof ? code(one.proof) : ""], ["signed by (SHA-256 of the keys)", (one.signers ?? []).map((key) => h("div", {}, code(key)))],
    ["series and issue", one.series ? `${one.series} ${one.issue}` : ""], ["issued", one.issued], ["revoked because", one.reason]])));
  fill(main, h("h1", {}, "Reference values"),
    h("p", { class: "lead" }, "What evidence is compared with, and whose word it is. What does not count is listed all the same, and never used."),
    table("Enter shows the provenance.", ["Name", "Value", "State", "Provider", "Proof", "Valid until", "Set"],
      values.map((one) => ({ key: one.name, open: () => { open(one); detail.scrollIntoView({ block: "nearest" }); },
        cells: [code(one.name), value(one.value), state(one), one.provider || h("span", { class: "dim" }, "by hand"), one.proof ? [one.kind, " ", code(one.proof, 12)] : "–",
          one.expires ? [one.expires, ends(one.expires)] : "no end", time(one.updated)] })),
      "There are none: nothing can be affirmed. adyton reference set NAME VALUE, or publish what a provider signed."),
    detail, h("h2", {}, "Providers"),
    table("Who may publish what, and under which keys.", ["Name", "Values", "Kinds", "Keys", "Threshold", "Set"],
      providers.map((one) => ({ key: one.name, cells: [one.name, one.settings.names?.join(", ") ?? "–", one.settings.kinds?.join(", ") ?? "–",
        one.key_ids.map((key) => h("div", {}, code(key, 16))), one.settings.threshold ?? 1, time(one.updated)] })),
      "There are none: every reference value was set by hand."));
}

function ends(text) {
  const days = (Date.parse(text) - Date.now()) / 86400e3;
  if (days < 0) return [" ", chip("expired", "bad")];
  return days < 14 ? [" ", chip(`in ${Math.ceil(days)} d`, "warn")] : "";
}

export async function platforms(main) {
  const seen = await get("/platforms");
  const dated = (one) => one.tcb?.tcb_date ?? one.tcb_since;
  const old = (one) => (Date.now() - Date.parse(dated(one))) / 86400e3;
  fill(main, h("h1", {}, "Platforms"),
    h("p", { class: "lead" }, "Machines that attested, with the age of their trusted computing base: since the date that their endorser gives it, or since it was first seen here."),
    table(seen.after ? `Since row ${seen.after} of the record.` : "Since the record began.",
      ["Platform", "TEE", "Root", "Last status", "TCB", "TCB age", "First seen", "Last seen", "Attestations"],
      seen.platforms.map((one) => ({ key: one.platform, cells: [code(one.platform, 20), one.tee, one.root === "custom" ? chip("no hardware", "warn") : chip("vendor", "good"),
        status(one.status), levels(one.tcb ?? {}) || "–", [chip(age(dated(one)), old(one) > 365 ? "bad" : old(one) > 180 ? "warn" : "good"), one.tcb?.tcb_date ? " by its endorser" : " seen here"],
        time(one.first_seen), time(one.last_seen), one.attestations] })),
      "No machine attested yet, or none that tells its id."));
}
