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

// A table with its head. A column is [title, kind], kind "number", "name" (may be long), "code" (long, one word), "wide" (a
// sentence), "act" (a button) or nothing; a cell is text or an element. On a narrow screen each row is a card of titled cells, so the roles say what the layout no longer does.
export function table(columns, rows, nothing) {
  if (rows.length === 0) return element("p", { class: "empty" }, nothing);
  const row = (...cells) => element("tr", { role: "row" }, ...cells);
  const head = row(...columns.map(([title, kind]) => element("th", { class: kind, scope: "col", role: "columnheader" }, title)));
  const cell = (content, [title, kind]) => element("td", { class: kind, "data-title": title, role: "cell" }, content);
  const body = rows.map((cells) => row(...cells.map((content, at) => cell(content, columns[at]))));
  return element("table", { role: "table" }, element("thead", { role: "rowgroup" }, head), element("tbody", { role: "rowgroup" }, ...body));
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
