// Tenants and people: whose things these are, who may do what, and changes that wait for more than one person.

import { get, part, post, tenant } from "./api.js";
import { ask, chip, code, fill, h, say, table, terms, time } from "./dom.js";

const ALLOWED = [401, 403, 404];

/** What a request gives, or `null` where the role may not ask. */
async function seen(path) {
  try { return await get(path); } catch (error) { if (ALLOWED.includes(error.status)) return null; throw error; }
}

export async function tenants(main) {
  const [about, me, own, listed, people] = await Promise.all(
    [get("/about"), seen("/whoami"), seen("/tenant"), seen("/tenants"), seen("/people")]);
  const quotas = own ? Object.entries(own.quotas).map(([name, most]) => h("div", {}, `${name}: ${own.used[name] ?? 0} of ${most}`)) : [];
  fill(main, h("h1", {}, "Tenants"),
    h("p", { class: "lead" }, "Whose secrets, policies and decisions these are. A page shows one tenant; another one has an address of its own."),
    h("div", { class: "card" }, terms([["this tenant", about.tenant], ["organisation", own?.organisation], ["environment", own?.environment ?? about.environment],
      ["broker", `Adyton ${about.version}`], ["generation", about.generation],
      ["development roots", about.development_roots.length ? about.development_roots.map((root) => h("div", {}, code(root))) : "none"],
      ["quotas", quotas.length ? quotas : own ? "none" : ""],
      ["approval", own?.approvals?.actions?.length ? `${own.approvals.needed} people for ${own.approvals.actions.join(", ")}` : own ? "one person decides" : ""],
      ["you are", me ? `${me.name}, ${me.role}${me.organisation ? ` of ${me.organisation}` : " of the whole broker"} (by ${me.by})` : ""]])),
    listed ? table("Those that you have to do with.", ["Name", "Organisation", "Environment", "Used", "Address"],
      listed.map((one) => ({ key: one.name, cells: [one.name, one.organisation || "–", one.environment,
        Object.entries(one.used ?? {}).map(([name, count]) => `${name} ${count}`).join(", ") || "–",
        one.name === tenant ? "here" : h("a", { href: `/t/${one.name}/ui` }, `open ${one.name}`)] })), "There are none beside this one.") : null,
    people ? [h("h2", {}, "People"), table("Of this tenant's organisation.", ["Name", "Role", "Tenants", "Credentials"],
      people.map((one) => ({ key: one.name, cells: [one.name, chip(one.role), one.tenants ? one.tenants.join(", ") : "all",
        one.credentials.map((it) => h("div", {}, `${it.kind} ${it.id.slice(0, 12)}`, it.expires ? [" until ", it.expires] : ""))] })),
      "Nobody is registered: the admin token does everything. adyton person set NAME --role owner")] : null);
}

export async function approvals(main, go) {
  const open = await get("/approvals?all");
  const waiting = open.filter((one) => one.state === "pending");
  const vote = async (one, choice, button) => {
    const yes = choice === "approve";
    if (!(await ask(yes ? "Approve this change?" : "Reject this change?",
      `${one.action}: ${one.method} ${one.path}, asked for by ${one.by}. ${yes ? `${one.agreed} of ${one.needed} agree so far.` : "It will not be done."}`, yes ? "Approve" : "Reject", !yes))) return;
    button.disabled = true;
    try {
      const after = await post(`/approvals/${part(one.id)}/votes`, { digest: one.digest, choice });
      say(after.state === "done" ? "It was done." : `It is ${after.state}: ${after.agreed} of ${after.needed} agree.`);
    } catch (error) { say(error.message); }
    go("approvals", true);
  };
  const buttons = (one) => ["approve", "reject"].map((choice) => {
    const button = h("button", { type: "button", class: choice === "approve" ? "first" : "danger" }, choice === "approve" ? "Approve" : "Reject");
    button.addEventListener("click", () => vote(one, choice, button));
    return button;
  });
  fill(main, h("h1", {}, "Approvals"),
    h("p", { class: "lead" }, "Changes that several people must agree on. What is voted on is the exact request, by its digest; each person counts once."),
    waiting.length ? waiting.map((one) => h("section", { class: "card" }, h("h2", {}, one.action), terms([
      ["request", code(`${one.method} ${one.path}`)], ["asked for by", one.by], ["when", time(one.created)], ["ends", one.expires], ["digest", code(one.digest)],
      ["agree", `${one.agreed} of ${one.needed}: ${one.votes.map((it) => `${it.who} (${it.choice})`).join(", ") || "nobody yet"}`],
      ["content", one.shown ? h("pre", { class: "diff" }, one.shown) : ""]]), h("p", { class: "bar" }, buttons(one))))
      : h("p", { class: "card empty" }, "Nothing waits."),
    h("h2", {}, "Decided"),
    table("Those that were decided or ended.", ["What", "Request", "By", "When", "State", "Votes"],
      open.filter((one) => one.state !== "pending").map((one) => ({ key: one.id, cells: [one.action, code(`${one.method} ${one.path}`, 60), one.by, time(one.created),
        chip(one.state, one.state === "done" ? "good" : "warn"), one.votes.map((it) => `${it.who}: ${it.choice}`).join(", ")] })), "None yet."));
}
