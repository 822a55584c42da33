"use strict";
// Draws the figures from the page's own numbers, narrows them down, and leads from a point or a box to its runs.
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const figures = JSON.parse($("data").textContent);
  const filters = $("filters");
  const drawn = []; // of each panel: its numbers, its element, the points that are shown
  const rows = [...document.querySelectorAll("[data-code]")].map((row) => ({ row, code: split(row.dataset.code) }));
  // What fingers drag moves the page, not the figure.
  const coarse = matchMedia("(pointer: coarse)").matches;

  function split(code) {
    return code.split(" ").map((values) => values.split(","));
  }

  /** The values that are ticked in each facet; a facet without any asks for nothing. */
  function asked() {
    const ticked = new Map();
    for (const { name, value } of filters.querySelectorAll("input:checked")) {
      ticked.set(+name, (ticked.get(+name) || new Set()).add(value));
    }
    return [...ticked];
  }

  function meets(code, wanted) {
    return wanted.every(([facet, values]) => code[facet].some((value) => values.has(value)));
  }

  /** Plotly reads a little HTML in its texts; names are no HTML. */
  function plain(text) {
    return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  }

  function colours() {
    const style = getComputedStyle(root);
    return (name) => style.getPropertyValue(`--${name}`).trim();
  }

  /** The mean of y at each x: of logarithms for ratios. */
  function means(points, kind) {
    const at = new Map();
    for (const { x, y } of points) at.set(x, (at.get(x) || []).concat(kind === "geometric" ? Math.log(y) : y));
    const x = [...at.keys()].sort((a, b) => a - b);
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    return { x, y: x.map((place) => (kind === "geometric" ? Math.exp(mean(at.get(place))) : mean(at.get(place)))) };
  }

  function line(points, panel, colour, dash) {
    const { x, y } = means(points, panel.mean);
    return { type: "scatter", mode: "lines", x, y, hoverinfo: "skip", line: { color: colour, width: 2, dash } };
  }

  function traces(panel, shown, colour) {
    const made = panel.marks.map((mark) => ({
      type: "scatter", mode: "lines", hoverinfo: "skip", line: { color: colour("faint"), width: 1, dash: mark.dash },
      x: "x" in mark ? [mark.x, mark.x] : [panel.x.low, panel.x.high],
      y: "y" in mark ? [mark.y, mark.y] : [panel.y.low, panel.y.high],
    }));
    for (const series of panel.series) {
      const points = shown.filter((point) => point.series === series);
      const own = colour(`c${series.colour}`);
      if (!points.length) continue;
      if (!panel.joint) made.push(line(points, panel, own, series.dash));
      made.push({
        type: "scatter", mode: "markers", name: series.name, customdata: points,
        x: points.map((point) => point.x), y: points.map((point) => point.y),
        text: points.map((point) => point.told.map(plain).join("<br>")), hovertemplate: "%{text}<extra></extra>",
        marker: { color: own, symbol: series.symbol, size: 8, line: { color: own, width: 1.6 } },
      });
    }
    if (panel.joint && shown.length) made.push(line(shown, panel, colour("ink"), "solid"));
    return made;
  }

  function axis(told, colour) {
    const log = told.log ? Math.log10 : (value) => value;
    const ticks = told.ticks.length ? { tickmode: "array", tickvals: told.ticks, ticktext: told.ticks.map(String) } : {};
    return {
      title: { text: told.title, standoff: 8 }, type: told.log ? "log" : "linear", range: [log(told.low), log(told.high)],
      gridcolor: colour("line"), linecolor: colour("faint"), color: colour("ink"), zeroline: false, showline: true,
      ticks: "outside", tickcolor: colour("faint"), minallowed: log(told.low), maxallowed: log(told.high), ...ticks,
    };
  }

  function layout(panel, colour) {
    return {
      autosize: true, showlegend: false, margin: { l: 58, r: 10, t: 6, b: 46 }, dragmode: coarse ? false : "zoom",
      hovermode: "closest", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("ink") },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("faint"), activecolor: colour("ink") },
      hoverlabel: { bgcolor: colour("paper"), bordercolor: colour("ink"), font: { color: colour("ink") }, align: "left" },
      xaxis: axis(panel.x, colour), yaxis: axis(panel.y, colour),
    };
  }

  // The buttons are listed, since Plotly's own list holds one that shares a figure over the network.
  const config = {
    displaylogo: false, responsive: true, displayModeBar: coarse ? false : "hover",
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };

  function draw(one) {
    const colour = colours();
    Plotly.react(one.plot, traces(one.panel, one.shown, colour), layout(one.panel, colour), config);
  }

  function narrow(one, wanted) {
    one.shown = one.points.filter((point) => meets(point.code, wanted));
    one.at = -1;
    one.said.replaceChildren();
    one.holder.hidden = !one.shown.length;
    const left = one.panel.left_out ? `; left out: ${one.panel.left_out}` : "";
    one.note.textContent = `n = ${one.shown.length}${left}`;
    one.plot.setAttribute("aria-label", `${one.panel.title}, ${one.panel.y.title}, n = ${one.shown.length}. `
      + "Arrow keys go from point to point, Enter leads to its run.");
    if (one.shown.length) draw(one);
  }

  function apply() {
    const wanted = asked();
    drawn.forEach((one) => narrow(one, wanted));
    for (const { row, code } of rows) row.hidden = !meets(code, wanted);
    for (const note of document.querySelectorAll(".shown")) {
      const all = [...note.parentElement.querySelectorAll("[data-code]")];
      note.hidden = !wanted.length;
      note.textContent = `${all.filter((row) => !row.hidden).length} of ${all.length} shown`;
    }
    const points = drawn.reduce((sum, one) => sum + one.shown.length, 0);
    const every = drawn.reduce((sum, one) => sum + one.points.length, 0);
    $("narrowed").textContent = wanted.length ? `${points} of ${every} points of the figures` : "everything is shown";
  }

  /** Opens whatever an address of this page stands in, and goes there. */
  function reveal() {
    const found = $(decodeURIComponent(location.hash.slice(1)));
    if (!found) return;
    for (let one = found; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    found.hidden = false;
    found.scrollIntoView({ block: found.tagName === "TR" ? "center" : "start" });
    (found.tagName === "DETAILS" ? found.firstElementChild : found).focus({ preventScroll: true });
  }

  function lead(point) {
    if (location.hash === `#${point.goes}`) reveal();
    else location.hash = point.goes;
  }

  /** A finger cannot point first, so what it touches is told below the figure, with a link. */
  function press(one, point) {
    if (!coarse) return lead(point);
    const link = document.createElement("a");
    link.href = `#${point.goes}`;
    link.textContent = "its runs";
    one.said.replaceChildren(`${point.told.join(", ")}: `, link);
  }

  /** Left and right go through the points in the order of x, as if they were pointed at. */
  function walk(event, one) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" && one.at >= 0) lead(one.order[one.at].point);
    if (!step) return;
    event.preventDefault();
    if (one.at < 0) {
      one.order = one.plot.data.flatMap((trace, curveNumber) =>
        (trace.customdata || []).map((point, pointNumber) => ({ point, curveNumber, pointNumber })));
      one.order.sort((a, b) => a.point.x - b.point.x || a.point.y - b.point.y);
    }
    one.at = Math.min(Math.max(one.at + step, 0), one.order.length - 1);
    const { point, curveNumber, pointNumber } = one.order[one.at];
    Plotly.Fx.hover(one.plot, [{ curveNumber, pointNumber }]);
    $("told").textContent = point.told.join(", ");
  }

  function place(panel, into) {
    const holder = document.createElement("div");
    holder.className = "panel";
    holder.innerHTML = "<h3></h3><p></p><div class=plot tabindex=0 role=group></div><p></p>";
    const [title, note, plot, said] = holder.children;
    title.textContent = panel.title;
    into.append(holder);
    const points = panel.series.flatMap((series) =>
      series.points.map((point) => ({ ...point, series, code: split(point.code) })));
    const one = { panel, holder, note, plot, said, points, shown: points, order: [], at: -1 };
    plot.addEventListener("keydown", (event) => walk(event, one));
    plot.addEventListener("blur", () => Plotly.Fx.unhover(plot));
    drawn.push(one);
    narrow(one, []);
    plot.on("plotly_click", ({ points: [hit] }) => hit.customdata && press(one, hit.customdata));
  }

  function redraw() {
    drawn.filter((one) => one.shown.length).forEach(draw);
  }

  /** On paper: light, at a fixed width; what verdicts rest on and what is missing is open. */
  function print(going) {
    root.classList.toggle("paper", going);
    for (const one of document.querySelectorAll("[aria-labelledby=pairs] details, [aria-labelledby=gaps] details")) {
      if (going && !one.open) one.open = one.printed = true;
      else if (!going && one.printed) one.open = one.printed = false;
    }
    for (const { plot } of drawn) plot.style.width = going ? "330px" : "";
    redraw();
    drawn.forEach(({ plot }) => Plotly.Plots.resize(plot));
  }

  for (const [name, panels] of Object.entries(figures)) {
    const into = document.querySelector(`[data-figure=${name}]`);
    panels.forEach((panel) => place(panel, into));
  }
  filters.hidden = false;
  filters.addEventListener("change", apply);
  filters.querySelector("button").addEventListener("click", () => {
    filters.querySelectorAll("input").forEach((one) => { one.checked = false; });
    apply();
  });
  addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) reveal(); // the same address again changes no hash
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  reveal();
  root.dataset.drawn = drawn.length;
})();
