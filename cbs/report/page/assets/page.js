// The page: what is embedded is unpacked, figures are drawn, filters and addresses are followed.
"use strict";
(async () => {
  const { Table, csv, download, element, shown } = Tables;
  const { escaped, finite } = Rules;
  const find = (id) => document.getElementById(id);
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const CELLS = ["instance", "label", "family", "n", "variant", "budget", "sparsity", "time_limit", "seed", "state",
    "status", "value", "bound", "gap", "seconds", "nodes", "memory", "accuracy", "loss", "machine", "error",
    "parameters", "result"];

  async function unpacked(id) {
    const bytes = Uint8Array.from(atob(find(id).textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  const data = JSON.parse(await unpacked("data"));
  const cells = data.cells, count = cells.cell.length;
  const library = element("script", { textContent: await unpacked("plotly") });
  document.head.append(library);

  // ---- tables of figures: a column that is not written is that of the cells
  const caches = new Map();
  function column(table, name) {
    if (table.data[name]) return table.data[name];
    if (!table.columns.includes(name) && !(table.data.cell && cells[name])) return null;
    if (!caches.has(table)) caches.set(table, {});
    const cache = caches.get(table);
    cache[name] ??= table.data.cell.map((row) => cells[name][row]);
    return cache[name];
  }
  const all = (n) => Array.from({ length: n }, (_, i) => i);

  // ---- filters of the page
  const filters = { labels: null, families: null, n: [null, null], sparsity: [null, null] };
  const within = ([low, high], v) =>
    !finite(v) || ((low === null || v >= low) && (high === null || v <= high));
  const filtered = () => filters.labels !== null || filters.families !== null
    || [...filters.n, ...filters.sparsity].some((v) => v !== null);
  // Whether a row passes, for a table whose columns `get` gives.
  function passer(get) {
    const label = get("label"), family = get("family"), n = get("n"), sparsity = get("sparsity");
    return (row) => (!filters.labels || !label || filters.labels.has(label[row]))
      && (!filters.families || !family || filters.families.has(family[row]))
      && (!n || within(filters.n, n[row])) && (!sparsity || within(filters.sparsity, sparsity[row]));
  }
  // A row with a cell is of that cell's solver and family, whatever a column of its own is called.
  const whose = (table, name) => (table.data.cell && ["label", "family"].includes(name)
    ? table.data.cell.map((row) => cells[name][row]) : column(table, name));
  const kept = (table) => all(table.rows).filter(passer((name) => whose(table, name)));

  // ---- themes
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = () => (printing ? "light" : document.documentElement.dataset.theme || (system.matches ? "dark" : "light"));
  let printing = false;
  function themed(layout) {
    const tone = data.themes[theme()];
    const axis = { gridcolor: tone.grid, linecolor: tone.line, zerolinecolor: tone.line, tickcolor: tone.line };
    const made = {
      ...layout, paper_bgcolor: tone.background, plot_bgcolor: tone.background,
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: tone.text },
      hoverlabel: { bgcolor: tone.panel, bordercolor: tone.line, font: { color: tone.text } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: tone.muted, activecolor: tone.accent },
    };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) made[name] = { ...axis, ...layout[name] };
    return made;
  }

  // ---- figures
  const figures = new Map(data.figures.map((figure) => [figure.name, figure]));
  const drawable = data.figures.filter((figure) => figure.spec);
  const place = (name) => document.querySelector(`[data-figure="${name}"]`);
  function traces(figure) {
    const get = (name) => column(figure.table, name);
    const rows = figure.table.data.cell ? kept(figure.table) : null;
    return figure.spec.data.map((trace) => {
      const meta = trace.meta ?? {};
      const visible = !meta.label || !filters.labels || filters.labels.has(meta.label);
      if (!meta.rule || !rows || !filtered()) return { ...trace, visible };
      const made = { ...trace, visible, ...Rules.apply(meta, rows, get) };
      if (meta.rule === "shifted") {
        made.marker = { ...trace.marker, pattern: { ...trace.marker.pattern, shape: made.open ? "/" : "" } };
        delete made.open;
      }
      return made;
    });
  }
  // Room below the plot for the rows of its legend, in a figure of this width.
  function roomy(layout, drawn, height, width) {
    const names = drawn.filter((t) => t.name && t.showlegend !== false && t.visible !== false).map((t) => t.name);
    const one = layout.showlegend === false || names.length < 2;
    const columns = Math.max(1, Math.floor((width - 90) / (48 + 7 * Math.max(0, ...names.map((n) => n.length)))));
    const rows = one ? 0 : Math.ceil(names.length / columns), top = layout.margin.t, plot = height - 70 - top;
    layout.margin.b = Math.max(layout.margin.b, rows ? 74 + 20 * rows : 0);
    layout.height = plot + top + layout.margin.b;
    if (layout.legend) layout.legend.y = -62 / plot;
  }
  async function draw(figure) {
    const where = place(figure.name), drawn = traces(figure), width = where.clientWidth;
    const layout = themed(structuredClone(figure.spec.layout));
    roomy(layout, drawn, figure.height, width);
    if (width < 520) layout.font.size = 11;
    where.style.height = `${layout.height}px`;
    for (const { meta } of drawn) {
      if (meta?.room) layout.xaxis.range = [0, meta.room * Math.max(...drawn.filter((t) => t.visible).flatMap((t) => t.x), 1e-3)];
    }
    await Plotly.react(where, drawn, layout, CONFIG);
  }
  async function drawAll() {
    for (const figure of drawable) {
      await draw(figure);
      await new Promise((done) => setTimeout(done));
    }
    for (const note of document.querySelectorAll(".filtered")) note.hidden = !filtered();
    if (!find("instance").hidden) route();
  }
  const figureCsv = (figure) => {
    const { columns } = figure.table;
    const rows = figure.table.data.cell ? kept(figure.table) : all(figure.table.rows);
    return csv(columns, rows.map((row) => columns.map((name) => column(figure.table, name)[row])));
  };
  for (const button of document.querySelectorAll("[data-csv]")) {
    const figure = figures.get(button.dataset.csv);
    button.setAttribute("aria-label", `Data of ${figure.title} as CSV`);
    button.addEventListener("click", () => download(`${figure.name}.csv`, figureCsv(figure)));
  }
  for (const button of document.querySelectorAll("[data-png]")) {
    const figure = figures.get(button.dataset.png);
    button.setAttribute("aria-label", `${figure.title} as PNG`);
    button.addEventListener("click", () => Plotly.downloadImage(place(figure.name),
      { format: "png", filename: figure.name, width: 1000, height: figure.height, scale: 2 }));
  }

  // ---- the form of the filters
  function form() {
    const inner = element("details", { open: window.innerWidth > 800 }, element("summary", { textContent: "Filters" }));
    const checks = (title, values, change, swatch) => {
      if (values.length < 2) return [];
      const boxes = values.map((value) => {
        const box = element("input", { type: "checkbox", checked: true, value });
        box.addEventListener("change", () => {
          const on = boxes.filter((b) => b.checked).map((b) => b.value);
          change(on.length === values.length ? null : new Set(on));
          update();
        });
        return box;
      });
      const set = element("fieldset", {}, element("legend", { textContent: title }),
        ...boxes.map((box, i) => {
          const mark = element("span", { className: "swatch" });
          if (swatch) mark.style.background = data.looks[values[i]][0];
          return element("label", {}, box, ...(swatch ? [mark] : []), values[i] || "(none)");
        }));
      for (const [word, on] of [["all", true], ["none", false]]) {
        const button = element("button", { type: "button", textContent: word });
        button.setAttribute("aria-label", `${title}: ${word}`);
        button.addEventListener("click", () => {
          for (const box of boxes) box.checked = on;
          change(on ? null : new Set());
          update();
        });
        set.append(button);
      }
      return [set];
    };
    const range = (title, name, scale) => {
      const values = cells[name].filter(finite);
      const [low, high] = [Math.min(...new Set(values)), Math.max(...new Set(values))];
      if (!values.length || low === high) return [];
      return [element("fieldset", { className: "range" }, element("legend", { textContent: title }),
        ...["from", "to"].map((word, i) => {
          const input = element("input", { type: "number", step: "any", placeholder: String(Number(((i ? high : low) * scale).toPrecision(6))) });
          input.addEventListener("input", () => {
            filters[name][i] = input.value === "" || !finite(input.valueAsNumber) ? null : input.valueAsNumber / scale;
            update();
          });
          return element("label", {}, word, input);
        }))];
    };
    const values = (name) => [...new Set(cells[name])].sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
    const parts = [
      ...checks("Solver or method", values("label"), (set) => { filters.labels = set; }, true),
      ...checks("Family", values("family"), (set) => { filters.families = set; }, false),
      ...range("Inputs n", "n", 1), ...range("Pruned, %", "sparsity", 100),
    ];
    const reset = element("button", { type: "reset", textContent: "Reset" });
    const told = element("span", { className: "count", role: "status", id: "filtered-count" });
    inner.append(...parts, element("div", { className: "bar" }, reset, told));
    const made = find("filters");
    made.append(inner);
    made.hidden = !parts.length;
    made.addEventListener("submit", (event) => event.preventDefault());
    made.addEventListener("reset", () => {
      Object.assign(filters, { labels: null, families: null, n: [null, null], sparsity: [null, null] });
      setTimeout(update);
    });
  }
  let waiting = 0;
  function update() {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const left = all(count).filter(passer((name) => cells[name]));
      find("filtered-count").textContent = filtered() ? `${left.length.toLocaleString("en")} of ${count.toLocaleString("en")} cells` : "";
      const rows = new Set(left);
      cellsTable.restrict((row) => rows.has(row));
      const pages = new Set(left.map((row) => cells.page[row]));
      instancesTable?.restrict((row) => pages.has(instances.page[row]));
      await drawAll();
      document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
    }, 120);
  }

  // ---- instances
  const byPage = new Map();
  cells.page.forEach((page, row) => {
    if (!page) return;
    if (!byPage.has(page)) byPage.set(page, []);
    byPage.get(page).push(row);
  });
  const instances = { page: [], instance: [], kind: [], family: [], m: [], n: [], variant: [], budget: [], sparsity: [],
    proof: [], best_value: [], best_bound: [], gap: [], runs: [], best_by: [], quickest_proof: [], seconds: [] };
  for (const [page, rows] of byPage) {
    const first = rows[0], done = rows.filter((row) => cells.state[row] === "done");
    const better = cells.kind[first] === "prune" && done.some((row) => finite(cells.accuracy[row]))
      ? (a, b) => (cells.accuracy[b] ?? -1) - (cells.accuracy[a] ?? -1)
      : (a, b) => (cells.value[a] ?? Infinity) - (cells.value[b] ?? Infinity);
    const best = [...done].sort((a, b) => better(a, b) || a - b)[0];
    // Objectives of prunings differ with budget and samples: only a run's own bound is one of its value.
    const counted = cells.kind[first] === "prune" && best !== undefined ? [best] : done;
    const bounds = counted.map((row) => cells.bound[row]).filter(finite);
    const values = counted.map((row) => cells.value[row]).filter(finite);
    const value = values.length ? Math.min(...values) : null, bound = bounds.length ? Math.max(...bounds) : null;
    const proofs = done.filter((row) => cells.outcome[row] === "proven").sort((a, b) => cells.seconds[a] - cells.seconds[b]);
    const gap = value === null || bound === null ? null : value === bound ? 0 : (value - bound) / Math.abs(value);
    for (const name of ["instance", "kind", "family", "m", "n", "variant", "budget", "sparsity"]) instances[name].push(cells[name][first]);
    instances.page.push(page);
    instances.proof.push(cells.kind[first] !== "solve" ? "" : proofs.length ? "proven" : "open");
    instances.best_value.push(value);
    instances.best_bound.push(bound);
    instances.gap.push(gap === null ? null : Math.max(gap, 0));
    instances.runs.push(rows.length);
    instances.best_by.push(best === undefined ? "" : cells.label[best]);
    instances.quickest_proof.push(proofs.length ? cells.label[proofs[0]] : "");
    instances.seconds.push(proofs.length ? cells.seconds[proofs[0]] : null);
  }
  const kinds = new Set(cells.kind);
  Tables.names.label = kinds.size > 1 ? "solver or method" : kinds.has("prune") ? "method" : kinds.has("call") ? "function" : "solver";
  const address = (page) => `#instance=${encodeURIComponent(page)}`;
  const told = (values) => values.some((v) => v !== null && v !== undefined && v !== "" && v !== 0);
  let instancesTable = null;
  if (byPage.size) {
    const columns = Object.keys(instances).filter((name) => name !== "page" && told(instances[name]));
    instancesTable = new Table(find("instances-table"), {
      columns, get: (name) => instances[name], rows: all(byPage.size), name: "instances",
      selects: ["family", "kind", "proof", "variant", "budget", "best_by"],
      link: (name, row) => (name === "instance" ? address(instances.page[row]) : null), label: "Instances",
    });
  } else {
    find("instances").hidden = true;
    document.querySelector('nav a[href="#instances"]').parentElement.hidden = true;
  }
  const cellsTable = new Table(find("cells-table"), {
    columns: CELLS.filter((name) => cells[name] && told(cells[name]) && (name !== "machine" || new Set(cells[name]).size > 1)), get: (name) => cells[name], rows: all(count),
    name: "cells", selects: ["kind", "label", "family", "state", "status"], label: "All cells",
    link: (name, row) => (name === "instance" && cells.page[row] ? address(cells.page[row]) : null),
  });
  for (const where of document.querySelectorAll("[data-summary]")) {
    const { summary, title, name } = figures.get(where.dataset.summary);
    new Table(where, {
      columns: summary.columns, get: (c) => column(summary, c), rows: all(summary.rows), name: `${name}-summary`,
      tools: summary.rows > 20, label: `Table of ${title}`,
      link: (c, row) => (c === "instance" && summary.data.page ? address(summary.data.page[row]) : null),
    });
  }

  // ---- the page of an instance
  let details = null;
  async function show(page) {
    const rows = byPage.get(page), where = find("instance");
    find("overview").hidden = true;
    where.hidden = false;
    const back = element("p", {}, element("a", { href: "#instances", textContent: "Back to all instances" }));
    if (!rows) {
      where.replaceChildren(back, element("p", { className: "warning", textContent: `There is no instance ${page} in this report.` }));
      return;
    }
    details ??= JSON.parse(await unpacked("details"));
    const at = instances.page.indexOf(page);
    const facts = element("dl", { className: "facts" });
    for (const [name, v] of [...Object.keys(instances).filter((n) => !["page", "instance"].includes(n)).map((n) => [n, instances[n][at]]), ["digest", cells.digest?.[rows[0]] ?? page]]) {
      if (v === null || v === undefined || v === "") continue;
      facts.append(element("div", {}, element("dt", { textContent: name.replace(/_/g, " ") }), element("dd", { textContent: shown(v, name) })));
    }
    const title = element("h2", { textContent: cells.instance[rows[0]] || page, tabIndex: -1 });
    const runs = element("div", { className: "table" });
    const plot = element("div", { className: "plot" }), masks = element("div");
    where.replaceChildren(back, title, facts, element("h3", { textContent: "Runs" }), runs);
    const mine = Object.fromEntries(Object.keys(cells).map((name) => [name, rows.map((row) => cells[name][row])]));
    new Table(runs, { columns: CELLS.filter((name) => !["instance", "family", "n", "variant", "budget"].includes(name) && mine[name] && told(mine[name])),
      get: (name) => mine[name], rows: all(rows.length), name: `runs-${page.slice(0, 12)}`, label: "Runs", tools: rows.length > 12 });
    const traced = rows.filter((row) => details.traces[row]);
    if (traced.length) {
      where.append(element("h3", { textContent: "Search over time" }), plot,
        element("p", { className: "note", textContent: "Values of masks (lines with markers) and bounds (dotted) over seconds." }));
      const lines = traced.flatMap((row) => {
        const [x, value, bound] = details.traces[row], [colour, marker] = data.looks[cells.label[row]];
        const base = { x: x.map((t) => Math.max(t, 1e-4)), type: "scatter", legendgroup: String(row) };
        const name = escaped(cells.label[row]);
        return [
          { ...base, y: value, name, mode: "lines+markers", line: { color: colour, shape: "hv" }, marker: { color: colour, symbol: marker, size: 6 } },
          ...(bound.some(finite) ? [{ ...base, y: bound, name: `${name} (bound)`, mode: "lines", showlegend: false, line: { color: colour, dash: "dot", shape: "hv" } }] : []),
        ];
      });
      plot.style.height = "420px";
      await Plotly.newPlot(plot, lines, themed({
        height: 420, xaxis: { type: "log", title: { text: "seconds" }, automargin: true }, yaxis: { title: { text: "value and bound" }, automargin: true },
        legend: { orientation: "h", y: -0.25 }, margin: { l: 60, r: 20, t: 10, b: 50 }, hovermode: "closest",
      }), CONFIG);
    }
    if (details.masks[page]) {
      const { cell, layers } = details.masks[page];
      masks.className = "masks";
      where.append(element("h3", { textContent: `Best mask (${cells.label[cell]})` }),
        element("p", { className: "note", textContent: "Rows by inputs; kept weights are blue, pruned ones grey." }), masks);
      for (const layer of layers) masks.append(drawn(layer));
    }
    if (document.activeElement?.tagName !== "INPUT") title.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  // A mask as a picture, and a box by which every row becomes a square one.
  function drawn({ name, shape: [m, n], bits }) {
    const packed = Uint8Array.from(atob(bits), (c) => c.charCodeAt(0));
    const pruned = (row, k) => (packed[(row * n + k) >> 3] >> (7 - ((row * n + k) & 7))) & 1;
    const canvas = element("canvas"), side = Math.round(Math.sqrt(n));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Mask ${name} of ${m} rows and ${n} inputs`);
    const paint = (squares) => {
      const across = squares ? Math.ceil(Math.sqrt(m)) : 1;
      const [w, h] = squares ? [across * (side + 1) - 1, Math.ceil(m / across) * (side + 1) - 1] : [n, m];
      Object.assign(canvas, { width: w, height: h });
      const zoom = Math.max(1, Math.min(12, Math.floor(640 / w)));
      canvas.style.width = `${w * zoom}px`;
      const image = canvas.getContext("2d").createImageData(w, h);
      for (let row = 0; row < m; row += 1) {
        for (let k = 0; k < n; k += 1) {
          const [x, y] = squares
            ? [(row % across) * (side + 1) + (k % side), Math.floor(row / across) * (side + 1) + Math.floor(k / side)] : [k, row];
          image.data.set(pruned(row, k) ? [222, 226, 231, 255] : [50, 118, 178, 255], 4 * (y * w + x));
        }
      }
      canvas.getContext("2d").putImageData(image, 0, 0);
    };
    paint(false);
    const box = element("input", { type: "checkbox" });
    box.addEventListener("change", () => paint(box.checked));
    return element("div", {}, element("div", { className: "bar" }, `${name || "mask"}, ${m} x ${n}`,
      ...(side * side === n && n > 9 ? [element("label", {}, box, "every row as a picture")] : [])), canvas);
  }

  // An address that was damaged on its way is looked for as it is.
  function decoded(word) {
    try { return decodeURIComponent(word); } catch { return word; }
  }
  function route() {
    const match = /^#instance=(.+)$/.exec(window.location.hash);
    if (match) return show(decoded(match[1]));
    const was = find("overview").hidden;
    find("overview").hidden = false;
    find("instance").hidden = true;
    find("instance").replaceChildren();
    if (was) {
      for (const figure of drawable) Plotly.Plots.resize(place(figure.name));
      document.getElementById(window.location.hash.slice(1))?.scrollIntoView();
    }
  }
  window.addEventListener("hashchange", route);

  // ---- theme, print
  const button = find("theme");
  const dress = () => {
    const dark = theme() === "dark";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(dark));
    button.setAttribute("aria-label", `Switch to ${dark ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
    dress();
    drawAll();
  });
  system.addEventListener("change", () => { dress(); drawAll(); });
  find("print").addEventListener("click", () => window.print());
  window.addEventListener("beforeprint", () => { printing = true; drawable.forEach(draw); });
  window.addEventListener("afterprint", () => { printing = false; drawable.forEach(draw); });
  if (window.innerWidth <= 800) find("contents").open = false;

  dress();
  form();
  await drawAll();
  await route();
  window.report = { figures, column, kept, applied: (name) => figures.get(name).spec.data.map((trace) =>
    trace.meta?.rule ? Rules.apply(trace.meta, kept(figures.get(name).table), (c) => column(figures.get(name).table, c)) : null) };
  document.documentElement.dataset.ready = "yes";
})().catch((error) => {
  const told = document.getElementById("broken");
  told.hidden = false;
  told.textContent = `This page can't be shown here (${error.message}): it needs a browser of 2023 or later.`;
  throw error;
});
