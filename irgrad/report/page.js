"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [NAME, OP, ROLE, ORIGIN, RULE, EXPANSION, PASS, SHAPES, FLOPS, READ, WRITTEN, KEPT, LINE] = Array(13).keys();
  const at = (id) => document.getElementById(id);

  // All that comes from the model goes into the page as text, never as markup.
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "onclick") element.addEventListener("click", value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };

  // --- numbers ---

  const scaled = (number, unit) => {
    if (number === null) return "?";
    let power = 0;
    while (number >= 999.5 && power < 6) { number /= 1000; power += 1; }
    const digits = (power === 0 && Number.isInteger(number)) || number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2;
    return `${number.toFixed(digits)} ${["", "k", "M", "G", "T", "P", "E"][power]}${unit}`.trim();
  };
  const tail = (text) => (text.length > 38 ? `…${text.slice(-37)}` : text); // of a path, the end tells most
  const shown = {
    text: tail,
    code: (value) => value,
    line: (value) => value,
    role: (value) => value,
    count: (value) => value.toLocaleString("en"),
    flops: (value) => (value === 0 ? "–" : scaled(value, "")),
    bytes: (value) => (value === 0 ? "–" : scaled(value, "B")),
    times: (value) => (value === null ? "–" : `${value.toFixed(2)} ×`),
  };
  const isNumber = (kind) => !["text", "code", "line", "role"].includes(kind);
  const dot = (role) => make("i", { class: `dot ${data.roles.includes(role) ? role : ""}` });

  // --- tables ---

  // columns: {title, kind, of: row → value, bar, link}; the rows are sorted by a click on a heading, and drawn page by page.
  class Grid {
    constructor(place, columns, rows, { page = 15, detail = null, sort = null } = {}) {
      Object.assign(this, { place, columns, rows, page, detail, visible: page, column: sort, descending: true, open: new Set() });
      this.shownRows = rows;
      this.maxima = columns.map((c) => (c.bar ? rows.reduce((most, row) => Math.max(most, c.of(row) || 0), 0) : 0));
      this.draw();
    }

    show(rows) {
      this.shownRows = rows;
      this.visible = this.page;
      this.draw();
    }

    sortBy(index, descending) {
      this.column = index;
      this.descending = descending;
      this.draw();
    }

    sorted() {
      if (this.column === null) return this.shownRows;
      const { of, kind } = this.columns[this.column];
      const sign = this.descending ? -1 : 1;
      const compare = isNumber(kind)
        ? (a, b) => (a === null ? -1 : a) - (b === null ? -1 : b)
        : (a, b) => String(a).localeCompare(String(b), "en", { numeric: true });
      return this.shownRows.slice().sort((a, b) => sign * compare(of(a), of(b)));
    }

    draw() {
      const head = make("tr", {}, ...this.columns.map((column, index) => this.heading(column, index)));
      const body = make("tbody");
      const rows = this.sorted();
      // A button in place of a single row would save nothing.
      const shown = rows.length === this.visible + 1 ? rows.length : this.visible;
      for (const row of rows.slice(0, shown)) this.addRow(body, row);
      const parts = [make("table", {}, make("thead", {}, head), body)];
      const rest = rows.length - shown;
      if (rest > 0) {
        const more = Math.min(rest, Math.max(this.visible, 100));
        const label = more === rest ? `Show the other ${rest.toLocaleString("en")}` : `Show ${more} more of ${rest.toLocaleString("en")}`;
        parts.push(make("button", { class: "more", onclick: () => { this.visible += more; this.draw(); } }, label));
      }
      this.place.replaceChildren(...parts);
    }

    heading(column, index) {
      const on = this.column === index;
      const button = make("button", { type: "button", onclick: () => this.sortBy(index, on ? !this.descending : isNumber(column.kind)) });
      button.append(column.title);
      const sort = on ? (this.descending ? "descending" : "ascending") : "none";
      return make("th", { class: isNumber(column.kind) ? "number" : "text", scope: "col", "aria-sort": sort }, button);
    }

    addRow(body, row) {
      const cells = this.columns.map((column, index) => this.cell(column, row, this.maxima[index]));
      const line = make("tr", this.detail ? { class: "row" } : {}, ...cells);
      body.append(line);
      if (!this.detail) return;
      const wide = () => make("tr", { class: "detail" }, make("td", { colspan: this.columns.length }, ...this.detail(row)));
      line.addEventListener("click", () => {
        if (this.open.delete(row)) line.nextSibling.remove();
        else { this.open.add(row); line.after(wide()); }
      });
      if (this.open.has(row)) body.append(wide());
    }

    cell(column, row, most) {
      const value = column.of(row);
      const text = shown[column.kind](value);
      const cell = make("td", { class: `${isNumber(column.kind) ? "number" : column.kind}${most ? " bar" : ""}` });
      if (column.kind === "role") cell.append(dot(value), text);
      else if (column.link && column.link(row) !== null) cell.append(link(text, column.link(row)));
      else cell.append(text);
      if (!isNumber(column.kind)) cell.title = value;
      if (most && value) {
        const colour = `var(--${column.bar})`;
        cell.style.backgroundImage = `linear-gradient(${colour}, ${colour})`;
        cell.style.backgroundSize = `calc((100% - 20px) * ${(value / most).toFixed(4)}) 2px`;
      }
      return cell;
    }
  }

  // --- the nodes ---

  const steps = new Map(data.nodes.map((row, step) => [row, step]));
  const named = new Map(data.nodes.map((row, step) => [row[NAME], step]));
  const haystacks = data.nodes.map((row) => [NAME, OP, ROLE, ORIGIN, RULE, EXPANSION, PASS, SHAPES, LINE].map((k) => row[k]).join("\n").toLowerCase());
  const hidden = new Set();
  let nodes = null;

  const search = () => {
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = data.nodes.filter((row, step) => !hidden.has(row[ROLE]) && words.every((word) => haystacks[step].includes(word)));
    at("found").textContent = `${rows.length.toLocaleString("en")} of ${data.nodes.length.toLocaleString("en")} nodes`;
    nodes.show(rows);
  };

  const goTo = (step) => {
    const row = data.nodes[step];
    at("search").value = row[NAME];
    hidden.clear();
    drawFilters();
    nodes.open.add(row);
    search();
    at("nodes-section").scrollIntoView({ behavior: "smooth" });
  };
  const link = (text, step) => make("a", { onclick: (event) => { event.stopPropagation(); goTo(step); } }, text);
  const links = (list) => {
    const parts = list.slice(0, 30).flatMap((step, k) => [k ? ", " : "", link(data.nodes[step][NAME], step)]);
    return list.length > 30 ? [...parts, ` and ${list.length - 30} more`] : parts;
  };

  const detail = (row) => {
    const step = steps.get(row);
    const facts = [["step", [String(step)]]];
    const origin = named.get(row[ORIGIN]);
    if (row[ORIGIN]) facts.push(["made for", [origin === undefined ? row[ORIGIN] : link(row[ORIGIN], origin)]]);
    if (row[ROLE] === "backward") facts.push(["by the rule of", [row[RULE] || "none: the adjoint pass itself"]]);
    if (row[EXPANSION]) facts.push(["via the expansion of", [row[EXPANSION]]]);
    if (row[PASS]) facts.push(["last changed by", [row[PASS]]]);
    const made = data.made_for[step] || [];
    if (made.length) facts.push(["its backward nodes", links(made)]);
    const kept = data.kept_by[step] || [];
    if (kept.length) {
      const told = kept.flatMap((number, k) => {
        const [value, , size, begin, , readers] = data.kept[number];
        const last = readers[readers.length - 1] === step ? ", as the last one" : "";
        return [k ? "; " : "", link(value, begin), ` (${scaled(size, "B")}${last})`];
      });
      facts.push(["keeps alive", told]);
    }
    facts.push(["reads, writes", [`${scaled(row[READ], "B")}, ${scaled(row[WRITTEN], "B")}`]]);
    const list = make("dl", {}, ...facts.flatMap(([term, told]) => [make("dt", {}, term), make("dd", {}, ...told)]));
    return row[LINE] ? [make("pre", {}, row[LINE]), list] : [list];
  };

  const drawFilters = () => {
    at("filters").replaceChildren(...data.roles.map((role) => {
      const press = () => { if (!hidden.delete(role)) hidden.add(role); drawFilters(); search(); };
      return make("button", { type: "button", "aria-pressed": String(!hidden.has(role)), onclick: press }, dot(role), role);
    }));
  };

  const column = (title, kind, of, more = {}) => ({ title, kind, of, ...more });
  const cell = (k) => (row) => row[k];
  const nodeColumns = [
    column("step", "count", (row) => steps.get(row)),
    column("name", "text", cell(NAME)),
    column("op", "text", cell(OP)),
    column("role", "role", cell(ROLE)),
    column("origin", "text", cell(ORIGIN)),
    column("result", "code", cell(SHAPES)),
    column("FLOPs", "flops", cell(FLOPS), { bar: "accent" }),
    column("bytes", "bytes", (row) => (row[READ] === null ? null : row[READ] + row[WRITTEN]), { bar: "accent" }),
    column("keeps alive", "bytes", cell(KEPT), { bar: "backward" }),
    column("text", "line", cell(LINE)),
  ];
  nodes = new Grid(at("nodes"), nodeColumns, data.nodes, { page: 60, detail });

  // --- the other tables ---

  const ratio = (a, b) => (a && b ? b / a : null);
  if (at("rules")) {
    new Grid(at("rules"), [
      column("operation", "text", (row) => row[0] || "the adjoint pass itself"),
      column("forward nodes", "count", cell(1)),
      column("FLOPs", "flops", cell(2), { bar: "forward" }),
      column("backward nodes", "count", cell(3)),
      column("FLOPs", "flops", cell(4), { bar: "backward" }),
      column("backward / forward", "times", (row) => ratio(row[2], row[4])),
      column("keeps alive", "bytes", cell(5), { bar: "backward" }),
    ], data.rules);
  }
  new Grid(at("operations"), [
    column("operation", "text", cell(0)),
    column("role", "role", cell(1)),
    column("nodes", "count", cell(2)),
    column("FLOPs", "flops", cell(3), { bar: "accent" }),
    column("bytes read", "bytes", cell(4)),
    column("bytes written", "bytes", cell(5)),
  ], data.operations, { page: 12 });
  const lived = (k) => (row) => (row[k] === null ? "returned" : data.nodes[row[k]][NAME]);
  new Grid(at("peak"), [
    column("value", "text", cell(0)),
    column("type", "code", cell(1)),
    column("role", "role", (row) => data.nodes[row[3]][ROLE]),
    column("bytes", "bytes", cell(2), { bar: "peak" }),
    column("made by", "text", lived(3), { link: cell(3) }),
    column("freed after", "text", lived(4), { link: cell(4) }),
  ], data.at_peak);
  if (at("kept")) {
    const last = (row) => row[5][row[5].length - 1];
    new Grid(at("kept"), [
      column("value", "text", cell(0)),
      column("type", "code", cell(1)),
      column("bytes", "bytes", cell(2), { bar: "forward" }),
      column("made by", "text", lived(3), { link: cell(3) }),
      column("steps", "count", (row) => row[4] - row[3]),
      column("backward readers", "count", (row) => row[5].length),
      column("last reader", "text", (row) => data.nodes[last(row)][NAME], { link: last }),
    ], data.kept, { detail: (row) => [make("dl", {}, make("dt", {}, "read by"), make("dd", {}, ...links(row[5])))] });
  }

  // --- the plot ---

  const figure = at("timeline");
  const [left, right, width] = ["left", "right", "width"].map((key) => Number(figure.dataset[key]));
  const count = data.nodes.length;
  const under = (event) => {
    const box = figure.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    return [Math.floor(((x - left) / (width - left - right)) * count), x, box];
  };
  figure.addEventListener("mousemove", (event) => {
    const [step, x, box] = under(event);
    const tip = at("tip");
    tip.hidden = !(step >= 0 && step < count);
    at("cursor").setAttribute("visibility", tip.hidden ? "hidden" : "visible");
    if (tip.hidden) return;
    for (const end of ["x1", "x2"]) at("cursor").setAttribute(end, x);
    const parts = Object.entries(data.live).filter(([, sizes]) => sizes[step]);
    const total = parts.reduce((sum, [, sizes]) => sum + sizes[step], 0);
    const row = data.nodes[step];
    tip.replaceChildren(
      make("b", {}, row[NAME]),
      make("div", {}, `step ${step.toLocaleString("en")} · ${row[OP]} · ${row[ROLE]}`),
      make("div", {}, `${scaled(total, "B")} live`),
      ...parts.map(([role, sizes]) => make("div", {}, dot(role), `${role} ${scaled(sizes[step], "B")}`)),
    );
    const across = event.clientX - box.left;
    tip.style.left = `${across > box.width / 2 ? across - tip.offsetWidth - 14 : across + 14}px`;
    tip.style.top = `${Math.max(0, event.clientY - box.top - tip.offsetHeight / 2)}px`;
  });
  figure.addEventListener("mouseleave", () => {
    at("tip").hidden = true;
    at("cursor").setAttribute("visibility", "hidden");
  });
  figure.addEventListener("click", (event) => {
    const [step] = under(event);
    if (step >= 0 && step < count) goTo(step);
  });

  // --- #search=conv&sort=flops in the address: a view that can be handed on ---

  drawFilters();
  at("search").addEventListener("input", search);
  const wanted = new URLSearchParams(location.hash.slice(1));
  at("search").value = wanted.get("search") || "";
  search();
  const by = nodeColumns.findIndex(({ title }) => title.toLowerCase() === (wanted.get("sort") || "").toLowerCase());
  if (by >= 0) nodes.sortBy(by, wanted.get("order") ? wanted.get("order") === "descending" : isNumber(nodeColumns[by].kind));
  if (wanted.size) at("nodes-section").scrollIntoView();
})();
