// Elements made of nodes, never of markup: whatever a name contains stays text.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

// A table with its head. A column is [title, kind], kind "number", "wide" or nothing; a cell is text or an element.
export function table(columns, rows, nothing) {
  if (rows.length === 0) return element("p", { class: "empty" }, nothing);
  const head = element("tr", {}, ...columns.map(([title, kind]) => element("th", { class: kind, scope: "col" }, title)));
  const body = rows.map((row) => element("tr", {}, ...row.map((cell, at) => element("td", { class: columns[at][1] }, cell))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

// Puts tiles into a dl: [title, value, note].
export function tiles(list, into) {
  into.replaceChildren(...list.map(([title, value, note]) =>
    element("div", {}, element("dt", {}, title), element("dd", {}, value, note ? element("small", {}, note) : null))));
}

const MOODS = { healthy: "good", closed: "good", degraded: "fair", half_open: "fair", unhealthy: "bad", open: "bad" };

export function pill(word) {
  return element("span", { class: `pill ${MOODS[word] ?? ""}` }, word.replace("_", "-"));
}
