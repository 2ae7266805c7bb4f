// The record itself: its head, its checkpoints, and proofs that are checked in this browser.

import { get, part, tenant, text } from "./api.js";
import { code, fill, h, say, table, terms, time } from "./dom.js";
import { hex, unbase64, verifyCheckpoint, verifyConsistency, verifyInclusion } from "./proof.js";

const SEEN = () => `adyton checkpoint ${location.origin} ${tenant}`;

function step(ok, what) {
  return h("li", {}, h("span", { class: `mark ${ok ? "good" : "bad"}` }, ok ? "✓" : "✗"), what);
}

/** Ask for a row's proof and check it here; the steps are shown in `out`. */
export async function proveRow(out, row) {
  const steps = h("ul", { class: "tree top" });
  fill(out, steps);
  try {
    const [proof, key] = await Promise.all([get(`/audit/inclusion/${part(row)}`), get("/audit/key")]);
    const checkpoint = await verifyCheckpoint(proof.checkpoint, key.key);
    steps.append(step(true, [`The checkpoint over ${checkpoint.size} rows bears the signature of the log's key `, code(key.key, 40), "."]));
    await verifyInclusion(proof.row, proof.sequence, checkpoint.size, proof.path.map(unbase64), checkpoint.root);
    steps.append(step(true, `Row ${proof.sequence} leads over ${proof.path.length} hashes to the root ${hex(checkpoint.root).slice(0, 16)}….`));
    const entry = JSON.parse(proof.row);
    if (entry.sequence !== proof.sequence || entry.tenant !== tenant) throw new Error("the row says that it is another one");
    steps.append(step(true, "The row says of itself that it is this one, of this tenant."));
    await remember(steps, checkpoint);
    out.append(h("p", { class: "dim" }, "Checked in this browser. For a proof that travels: ", code(`adyton audit prove ${row}`), "."));
  } catch (error) {
    steps.append(step(false, error.message));
  }
}

/** Compare with the checkpoint that this browser saw last: the log may only have grown. */
async function remember(steps, checkpoint) {
  const kept = JSON.parse(localStorage.getItem(SEEN()) ?? "null");
  if (kept && kept.origin === checkpoint.origin) {
    if (kept.size > checkpoint.size) throw new Error(`this browser has seen ${kept.size} rows before, and now there are ${checkpoint.size}: the log was cut`);
    const proof = await get(`/audit/consistency?old=${kept.size}&size=${checkpoint.size}`);
    await verifyConsistency(kept.size, unbase64(kept.root), checkpoint.size, checkpoint.root, proof.path.map(unbase64));
    steps.append(step(true, `It continues the log of ${kept.size} rows that this browser saw ${new Date(kept.seen).toLocaleString()}.`));
  } else if (kept) {
    throw new Error(`this browser saw another log here before, ${kept.origin}: if that is meant, forget this site's data and look again`);
  }
  localStorage.setItem(SEEN(), JSON.stringify({
    origin: checkpoint.origin, size: checkpoint.size, root: btoa(String.fromCharCode(...checkpoint.root)), seen: new Date().toISOString(),
  }));
}

export async function page(main) {
  const [head, key, checkpoints] = await Promise.all([get("/audit/head"), get("/audit/key"), get("/audit/checkpoints")]);
  const out = h("div", { class: "card", role: "status" }, h("p", { class: "dim" }, "Nothing was checked yet."));
  const number = h("input", { type: "text", inputmode: "numeric", "aria-label": "Number or id of a decision", placeholder: "number or id" });
  const check = h("button", { type: "button", class: "first" }, "Check the head here");
  const prove = h("button", { type: "button" }, "Prove a decision");
  const whole = h("button", { type: "button" }, "Let the broker recompute all of it");
  check.addEventListener("click", async () => {
    const steps = h("ul", { class: "tree top" });
    fill(out, steps);
    try {
      const checkpoint = await verifyCheckpoint(await text("/audit/checkpoint"), key.key);
      steps.append(step(true, `A checkpoint over ${checkpoint.size} rows bears the log's signature; root ${hex(checkpoint.root)}.`));
      await remember(steps, checkpoint);
    } catch (error) { steps.append(step(false, error.message)); }
  });
  prove.addEventListener("click", () => (number.value.trim() ? proveRow(out, number.value.trim()) : number.focus()));
  number.addEventListener("keydown", (event) => { if (event.key === "Enter") prove.click(); });
  whole.addEventListener("click", async () => {
    whole.disabled = true;
    say("The broker reads its whole log; of millions of rows that takes minutes.");
    try {
      const report = await get("/audit/verify");
      fill(out, h("ul", { class: "tree top" }, report.broken
        ? step(false, [`Row or checkpoint broken: ${report.broken.message} `, code(JSON.stringify(report.broken), 200)])
        : step(true, `The broker recomputed ${report.sequence} rows and met ${report.checkpoints} checkpoints. That is its own word: an auditor runs adyton audit verify.`)));
    } catch (error) { fill(out, step(false, error.message)); }
    whole.disabled = false;
  });
  fill(main, h("h1", {}, "Audit"),
    h("p", { class: "lead" }, "Every decision and every change is a row of an append-only Merkle tree. Proofs are checked in this browser, against the log's key and the last checkpoint that it saw."),
    h("div", { class: "cards" },
      h("div", { class: "card" }, h("p", { class: "big" }, head.sequence), h("p", { class: "dim" }, "rows")),
      h("div", { class: "card" }, terms([["log", key.origin], ["root", code(head.root)], ["key", code(key.key)]]))),
    h("div", { class: "bar" }, check, number, prove, whole), out,
    h("h2", {}, "Signed checkpoints"),
    table("As the broker signed them.", ["Rows", "When", "Note"],
      checkpoints.reverse().slice(0, 100).map((one) => ({ cells: [one.size, time(one.time), code(one.note.split("\n")[2] ?? "", 60)], key: one.size })),
      "No checkpoint was signed yet: the broker signs one every minute in which something was added."));
}
