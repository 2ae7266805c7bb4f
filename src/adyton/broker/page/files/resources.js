// Secrets: who may have them, and who did. Their values never come here.

import { get, part } from "./api.js";
import { chip, code, fill, h, table, terms, time } from "./dom.js";
import { word } from "./decisions.js";

export function bound(binding) {
  const parts = [
    ...(binding.workloads ?? []).map((one) => ["workload ", code(one, 24)]),
    ...(binding.images ?? []).map((one) => ["image ", code(one, 24)]),
    ...(binding.signers ?? []).map((one) => ["signer ", code(one, 24)]),
    ...(binding.policy ? [["a policy of its own"]] : []),
    ...(binding.any_workload_i_accept ? [[chip("any accepted workload", "warn")]] : []),
    ...Object.entries(binding).filter(([name, what]) => !["workloads", "images", "signers", "policy", "any_workload_i_accept"].includes(name) && what && (what.length ?? 1))
      .map(([name, what]) => [`${name.replaceAll("_", " ")} `, code(typeof what === "string" ? what : JSON.stringify(what), 40)]),
  ];
  return parts.length ? parts.map((one) => h("div", {}, one)) : chip("nobody", "warn");
}

export async function list(main, go) {
  const [resources, seen] = await Promise.all([get("/resources"), get("/receivers")]);
  const counts = new Map();
  for (const one of seen.receivers) {
    const sum = counts.get(one.resource) ?? { released: 0, refused: 0, last: "" };
    counts.set(one.resource, { released: sum.released + one.released, refused: sum.refused + one.refused, last: sum.last > one.last ? sum.last : one.last });
  }
  const rows = resources.map((one) => {
    const sum = counts.get(one.uri);
    return { key: one.uri, open: () => go(`resources/${encodeURIComponent(one.uri)}`),
      cells: [code(one.uri), one.size, one.version, time(one.updated), bound(one.binding), sum?.released ?? 0, sum?.refused ?? 0, sum ? time(sum.last) : "–"] };
  });
  fill(main, h("h1", {}, "Resources"),
    h("p", { class: "lead" }, "Secrets by their URI. Values never leave the broker but to an attested workload; not even this page gets them."),
    table("Enter shows who received one.", ["URI", "Bytes", "Version", "Set", "Released to", "Released", "Refused", "Last asked"], rows,
      "There are no secrets yet: adyton resource set kbs:///repository/type/tag --file F --workload DIGEST"));
}

export async function one(main, _go, _alive, uri) {
  const path = uri.replace("kbs:///", "").split("/").map(part).join("/");
  const [resource, seen] = await Promise.all([
    get(`/resources/${path}`).catch((error) => { if (error.status === 404) return null; throw error; }),
    get(`/receivers?resource=${encodeURIComponent(uri)}`)]);
  fill(main, h("p", {}, h("a", { href: "#resources" }, "← all resources")), h("h1", {}, code(uri)),
    resource ? h("div", { class: "card" }, terms([["bytes", resource.size], ["version", resource.version], ["set", time(resource.updated)], ["released to", bound(resource.binding)]]),
      resource.binding.policy ? h("details", {}, h("summary", {}, "its policy"), h("pre", { class: "diff" }, resource.binding.policy)) : null)
      : h("p", { class: "card error" }, "There is no such resource now; below is who asked for it."),
    h("h2", {}, "Who asked for it"),
    table(seen.after ? `Since row ${seen.after} of the record.` : "Since the record began.",
      ["TEE", "Measurement", "Host data", "Root", "Released", "Refused", "Last", "Why"],
      seen.receivers.map((it) => ({ key: it.last_id, open: () => { location.hash = `decisions/${it.last_id}`; },
        cells: [it.tee || "–", code(it.measurement, 20), code(it.host_data, 20), it.root === "custom" ? chip("no hardware", "warn") : it.root || "–", it.released, it.refused,
          [word(it.last_decision), " ", time(it.last)], it.reasons.map((reason) => reason.split(":")[0]).join(", ")] })),
      "Nobody asked for it yet."));
}
