// Building the page: elements from names, attributes and children. Text is text, never markup.

/** An element. Attributes: `class`, `on*` listeners, true/false for boolean ones; children: nodes, text, lists, null. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else element.setAttribute(key, value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(9)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** An SVG element. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  add(element, children);
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** A word in a pill: good, bad or warn beside its text, so that colour is never all there is. */
export function chip(text, kind = "") {
  return h("span", { class: `chip ${kind}` }, text);
}

export function code(text, length = 0) {
  const shown = length && text.length > length ? `${text.slice(0, length)}…` : text;
  return h("code", shown === text ? {} : { title: text }, shown);
}

/** A term list of [term, value] pairs; those without value are left out. */
export function terms(pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return h("dl", {}, shown.map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));
}

/**
 * A table whose rows can be opened by mouse, Enter, and moved through with the arrow keys or j and k.
 * `rows`: {cells, open, key}.
 */
export function table(caption, heads, rows, empty) {
  if (!rows.length) return h("p", { class: "card empty" }, empty);
  const body = h("tbody");
  for (const row of rows) body.append(tableRow(row));
  body.addEventListener("keydown", (event) => {
    const rows = [...body.rows].filter((row) => row.tabIndex >= 0);
    const at = rows.indexOf(event.target.closest("tr"));
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (step) {
      rows[Math.min(rows.length - 1, Math.max(0, at + step))].focus();
      event.preventDefault();
    }
  });
  const head = h("tr", {}, heads.map((name) => h("th", { scope: "col" }, name)));
  return h("div", { class: "scroll" }, h("table", {}, h("caption", {}, caption), h("thead", {}, head), body));
}

export function tableRow({ cells, open, key, fresh }) {
  const row = h("tr", { class: fresh ? "new" : null, "data-key": key ?? null },
    cells.map((cell, index) => (index ? h("td", {}, cell) : h("th", { scope: "row" }, cell))));
  if (open) {
    row.tabIndex = 0;
    row.addEventListener("click", (event) => { if (!event.target.closest("a,button") && !getSelection().toString()) open(); });
    row.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target === row) open(); });
  }
  return row;
}

/** An RFC 3339 time as a person reads it, with the exact one beside it. */
export function time(text) {
  if (!text) return "–";
  return h("time", { datetime: text, title: text }, `${age(text)} ago`);
}

setInterval(() => {
  for (const shown of document.querySelectorAll("main time")) shown.textContent = `${age(shown.dateTime)} ago`;
}, 10_000);

export function age(text, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - Date.parse(text)) / 1000));
  for (const [size, unit] of [[86400 * 365, "y"], [86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${seconds} s`;
}

/** Any JSON value, short. */
export function value(what) {
  if (what === null || what === undefined) return h("span", { class: "dim" }, "–");
  return code(typeof what === "string" ? what : JSON.stringify(what), 120);
}

let fading;
export function say(text) {
  const toast = document.getElementById("status");
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => toast.classList.remove("shown"), 6000);
}

/** Ask before something is changed; resolves to the answer. */
export function ask(title, text, yes, danger = false) {
  const dialog = document.getElementById("dialog");
  return new Promise((resolve) => {
    const done = (answer) => { dialog.close(); resolve(answer); };
    fill(dialog, h("h2", { id: "dialog-title" }, title), h("p", {}, text),
      h("p", { class: "bar" },
        h("button", { type: "button", class: danger ? "danger" : "first", onclick: () => done(true) }, yes),
        h("button", { type: "button", autofocus: true, onclick: () => done(false) }, "Cancel")));
    dialog.oncancel = () => resolve(false);
    dialog.showModal();
  });
}
