// How what a figure shows follows from the rows behind it: the same arithmetic as in the Python modules
// `races`, `draw_gaps` and `draw_prunings`, for the rows that the page's filters leave.
"use strict";
const Rules = (() => {
  const FLOOR = 1e-3;
  const finite = (v) => typeof v === "number" && Number.isFinite(v);

  function median(values) {
    const sorted = Float64Array.from(values).sort();
    const half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }

  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

  function grouped(meta, rows, column, gather) {
    const groups = new Map();
    const x = column(meta.x), y = column(meta.y);
    for (const row of rows) {
      if (!finite(x[row]) || !finite(y[row])) continue;
      if (!groups.has(x[row])) groups.set(x[row], []);
      groups.get(x[row]).push(y[row]);
    }
    const keys = [...groups.keys()].sort((a, b) => a - b);
    return { x: keys, y: keys.map((key) => gather(groups.get(key))) };
  }

  // Steps of a share of values that are at most x, from `first` on and to `end`.
  function steps(values, total, first, end) {
    const sorted = Float64Array.from(values).sort();
    const x = [first], y = [];
    for (const v of sorted) if (v > x[x.length - 1]) x.push(v);
    let at = 0;
    for (const v of x) {
      while (at < sorted.length && sorted[at] <= v) at += 1;
      y.push(at / Math.max(total, 1));
    }
    return { x: [...x, end], y: [...y, y[y.length - 1]] };
  }

  // The seconds to the gap asked over the task's least, among the rows that are shown.
  function ratios(rows, column) {
    const task = column("task"), outcome = column("outcome"), seconds = column("seconds");
    const least = new Map(), time = new Map();
    for (const row of rows) {
      const t = outcome[row] === "proven" && finite(seconds[row]) ? Math.max(seconds[row], FLOOR) : Infinity;
      time.set(row, t);
      least.set(task[row], Math.min(t, least.get(task[row]) ?? Infinity));
    }
    const found = new Map();
    for (const row of rows) {
      const best = least.get(task[row]);
      found.set(row, Number.isFinite(best) ? time.get(row) / best : Infinity);
    }
    return found;
  }

  const shiftedMean = (times, shift) =>
    Math.exp(mean(times.map((t) => Math.log(t + shift)))) - shift;

  const digits = (v) => String(Number(v.toPrecision(3)));
  function seconds(v) {
    if (!finite(v)) return "-";
    if (v < 1) return `${digits(1000 * v)} ms`;
    return v < 600 ? `${digits(v)} s` : v < 36000 ? `${digits(v / 60)} min` : `${digits(v / 3600)} h`;
  }

  // What a trace shows by its rule; `rows` are those that the filters leave, of all labels.
  const RULES = {
    points(meta, rows, column) {
      const label = column("label"), x = column(meta.x), y = column(meta.y), instance = column("instance");
      const shown = rows.filter((row) => label[row] === meta.label).filter((_, i) => i % meta.stride === 0);
      const moved = (v) => (v === null ? null : v * (meta.factor ?? 1) + (meta.add ?? 0));
      return {
        x: shown.map((row) => moved(x[row])), y: shown.map((row) => y[row]),
        customdata: shown.map((row) => [escaped(instance[row]), x[row]]),
      };
    },
    median: (meta, rows, column) => grouped(meta, of(meta, rows, column), column, median),
    mean: (meta, rows, column) => grouped(meta, of(meta, rows, column), column, mean),
    profile(meta, rows, column) {
      const ratio = ratios(rows, column);
      const mine = of(meta, rows, column);
      const reached = mine.map((row) => ratio.get(row)).filter(Number.isFinite);
      return steps(reached, mine.length, 1, Math.max(meta.end, ...reached.slice(-1)));
    },
    distribution(meta, rows, column) {
      const values = column(meta.y);
      const mine = of(meta, rows, column);
      const known = mine.map((row) => values[row]).filter(finite).map((v) => Math.max(v, meta.least));
      return steps(known, mine.length, meta.least, meta.end);
    },
    shifted(meta, rows, column) {
      const cap = column("cap"), outcome = column("outcome");
      const mine = of(meta, rows, column);
      if (!mine.length) return { x: [], y: [], text: [], open: 0 };
      const open = mine.filter((row) => outcome[row] !== "proven").length;
      const x = shiftedMean(mine.map((row) => cap[row]), meta.shift);
      return {
        x: [x], y: [escaped(meta.label)], open,
        text: [`${seconds(x)}${open ? ` (${open} of ${mine.length} open)` : ""}`],
      };
    },
  };

  function of(meta, rows, column) {
    const label = column("label");
    return rows.filter((row) => label[row] === meta.label);
  }

  // Plotly reads tags in its texts.
  const escaped = (word) =>
    String(word ?? "").replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  return { apply: (meta, rows, column) => RULES[meta.rule](meta, rows, column), escaped, finite, seconds };
})();
