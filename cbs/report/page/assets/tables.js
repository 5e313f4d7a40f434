// Tables that are filtered by text and by column, sorted by a click on a heading, and downloaded as CSV.
"use strict";
const Tables = (() => {
  const STEP = 100, MANY = 5000;

  const counted = new Intl.NumberFormat("en");
  const collator = new Intl.Collator("en", { numeric: true });
  const isNumber = (v) => typeof v === "number";

  // A CSV field (RFC 4180).
  function field(v) {
    if (v === null || v === undefined) return "";
    const text = typeof v === "boolean" ? (v ? "True" : "False") : String(v);
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  }

  const csv = (columns, rows) =>
    [columns, ...rows].map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";

  function download(name, text, type = "text/csv;charset=utf-8") {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // Names of columns as headings show them, where that is not the column's own.
  const names = {};
  const heading = (column) => names[column] ?? column.replace(/_/g, " ");
  const SHARES = /(^|[ _])(gap|sparsity|accuracy|excess|share)([ _]|$)/;

  function shown(v, column = "") {
    if (v === null || v === undefined || v === "") return "";
    if (isNumber(v) && SHARES.test(column)) return `${Number((100 * v).toPrecision(Math.abs(v) < 1e-5 ? 2 : 4))}%`;
    if (typeof v === "boolean") return v ? "yes" : "no";
    if (!isNumber(v)) return String(v);
    if (Number.isInteger(v) && Math.abs(v) < 1e9) return counted.format(v);
    const size = Math.abs(v);
    return size && (size < 1e-4 || size >= 1e7) ? v.toExponential(3) : String(Number(v.toPrecision(5)));
  }

  // Missing ones last, whichever way is sorted.
  function order(a, b, sign) {
    const none = (v) => v === null || v === undefined || v === "";
    if (none(a) || none(b)) return none(a) - none(b);
    if (isNumber(a) && isNumber(b)) return sign * (a - b);
    return sign * collator.compare(String(a), String(b));
  }

  const element = (tag, settings = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), settings);
    made.append(...children);
    return made;
  };

  /* A table in a place of the page.
     columns: names; get(name): its values; rows: indices; selects: columns with a filter of their own;
     link(column, row): an address or null; name: of its CSV file; tools: whether it can be filtered. */
  class Table {
    constructor(place, { columns, get, rows, selects = [], link = () => null, name, tools = true, label }) {
      Object.assign(this, { place, columns, get, link, name, all: rows, base: rows, selects: {}, lines: [] });
      this.sorting = null;
      this.text = "";
      this.limit = STEP;
      this.numeric = Object.fromEntries(
        columns.map((c) => [c, this.all.every((r) => get(c)[r] === null || get(c)[r] === undefined || isNumber(get(c)[r]))
          && this.all.some((r) => isNumber(get(c)[r]))]),
      );
      const bar = element("div", { className: "bar" });
      if (tools) {
        const search = element("input", { type: "search", placeholder: "Filter by text" });
        search.setAttribute("aria-label", `Filter ${label ?? name} by text`);
        let waiting = 0;
        const find = () => { this.text = search.value.trim().toLowerCase(); this.draw(true); };
        search.addEventListener("input", () => {
          clearTimeout(waiting);
          if (rows.length < MANY) find(); else waiting = setTimeout(find, 250);
        });
        bar.append(search);
        for (const column of selects.filter((c) => columns.includes(c))) this.choice(bar, column);
      }
      this.count = element("span", { className: "count", role: "status" });
      const save = element("button", { type: "button", textContent: "CSV of these" });
      save.addEventListener("click", () => download(`${name}.csv`, this.csv()));
      bar.append(this.count, save);
      this.head = element("tr");
      for (const column of columns) {
        const button = element("button", { type: "button", textContent: heading(column) });
        const cell = element("th", { scope: "col", className: this.numeric[column] ? "number" : "" }, button);
        cell.setAttribute("aria-sort", "none");
        button.addEventListener("click", () => this.sort(column));
        this.head.append(cell);
      }
      this.body = element("tbody");
      const scroll = element("div", { className: "scroll", tabIndex: 0 },
        element("table", {}, element("thead", {}, this.head), this.body));
      scroll.setAttribute("role", "region");
      scroll.setAttribute("aria-label", label ?? name);
      this.more = element("button", { type: "button", textContent: "More" });
      this.more.addEventListener("click", () => { this.limit += 5 * STEP; this.draw(); });
      place.replaceChildren(...(tools || rows.length > 8 ? [bar] : []), scroll, this.more);
      this.draw();
    }

    choice(bar, column) {
      const values = [...new Set(this.all.map((r) => this.get(column)[r] ?? ""))].sort((a, b) => order(a, b, 1));
      if (values.length < 2) return;
      const select = element("select", {}, element("option", { value: "", textContent: "all" }),
        ...values.map((v, i) => element("option", { value: String(i + 1), textContent: shown(v, column) || "(none)" })));
      select.dataset.column = column;
      select.addEventListener("change", () => {
        if (select.value) this.selects[column] = values[Number(select.value) - 1]; else delete this.selects[column];
        this.draw(true);
      });
      bar.append(element("label", {}, heading(column), select));
    }

    sort(column) {
      const up = !(this.sorting?.column === column && this.sorting.up);
      this.sorting = { column, up };
      [...this.head.children].forEach((cell, i) =>
        cell.setAttribute("aria-sort", this.columns[i] !== column ? "none" : up ? "ascending" : "descending"));
      this.draw();
    }

    // The rows that the filters of the page leave.
    restrict(keep) {
      this.base = this.all.filter(keep);
      this.draw(true);
    }

    rows() {
      const chosen = Object.entries(this.selects);
      let rows = this.base.filter((r) => chosen.every(([c, v]) => (this.get(c)[r] ?? "") === v));
      if (this.text) {
        const words = this.text.split(/\s+/);
        rows = rows.filter((r) => {
          this.lines[r] ??= this.columns.map((c) => shown(this.get(c)[r], c)).join(" ").toLowerCase();
          return words.every((word) => this.lines[r].includes(word));
        });
      }
      if (this.sorting) {
        const values = this.get(this.sorting.column);
        rows = [...rows].sort((a, b) => order(values[a], values[b], this.sorting.up ? 1 : -1) || a - b);
      }
      return rows;
    }

    csv() {
      return csv(this.columns, this.rows().map((r) => this.columns.map((c) => this.get(c)[r])));
    }

    draw(afresh = false) {
      if (afresh) this.limit = STEP;
      const rows = this.rows();
      this.body.replaceChildren(...rows.slice(0, this.limit).map((r) => {
        const line = element("tr");
        for (const column of this.columns) {
          const value = this.get(column)[r];
          const cell = element("td", { className: this.numeric[column] ? "number" : "" });
          const address = this.link(column, r);
          const text = shown(value, column);
          cell.append(address ? element("a", { href: address, textContent: text || "(none)" }) : text);
          if (text.length > 40) cell.title = text;
          line.append(cell);
        }
        return line;
      }));
      this.count.textContent = `${counted.format(rows.length)} of ${counted.format(this.all.length)} rows`;
      this.more.hidden = rows.length <= this.limit;
      this.more.textContent = `Show more (${counted.format(rows.length - this.limit)} left)`;
    }
  }

  return { Table, csv, download, element, names, shown };
})();
