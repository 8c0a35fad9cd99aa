"use strict";
(() => {
  const KEEP = 48; // figures drawn at one time; of the others only the data are kept
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(hover: none)");
  const darkOf = JSON.parse(document.getElementById("dark").textContent);
  const drawn = new Set(); // in the order of drawing
  const seen = new Set(); // in or near the window

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const source = (plot) => document.getElementById(plot.id + "-data").textContent;

  function figure(plot) {
    let text = source(plot);
    if (isDark()) text = text.replace(/#[0-9a-f]{6}\b/g, (colour) => darkOf[colour] ?? colour);
    const made = JSON.parse(text);
    made.layout.height = plot.clientHeight;
    made.layout.dragmode = touch.matches ? false : "zoom"; // a finger scrolls the page
    return made;
  }

  function draw(plot) {
    const { data, layout } = figure(plot);
    Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true });
    drawn.delete(plot);
    drawn.add(plot);
    for (const old of drawn) {
      if (drawn.size <= KEEP) break;
      if (seen.has(old)) continue;
      Plotly.purge(old);
      drawn.delete(old);
    }
  }

  // One figure at a time, so that the page answers between two of them.
  const waiting = new Set();
  function drawNext() {
    for (const plot of waiting) {
      waiting.delete(plot);
      if (!seen.has(plot)) continue;
      if (drawn.has(plot)) Plotly.Plots.resize(plot);
      else draw(plot);
      break;
    }
    if (waiting.size) setTimeout(drawNext);
  }

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) {
          seen.add(target);
          waiting.add(target);
        } else seen.delete(target);
      }
      if (waiting.size) setTimeout(drawNext);
    },
    { rootMargin: "300px" }
  );
  document.querySelectorAll(".plot").forEach((plot) => watcher.observe(plot));

  function recolour() {
    button.setAttribute("aria-pressed", String(isDark()));
    button.textContent = isDark() ? "Light colours" : "Dark colours";
    [...drawn].forEach(draw);
  }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    recolour();
  });
  system.addEventListener("change", recolour);
  recolour();

  // The numbers of a figure, as a table; built when first opened.
  function cell(row, kind, text) {
    const made = document.createElement(kind);
    made.textContent = text;
    row.append(made);
  }
  function numbers(plot) {
    const table = document.createElement("table");
    table.createCaption().textContent = plot.getAttribute("aria-label");
    const head = table.createTHead().insertRow();
    ["what", "x", "y"].forEach((name) => cell(head, "th", name));
    const body = table.createTBody();
    for (const trace of JSON.parse(source(plot)).data) {
      trace.x.forEach((x, i) => {
        const row = body.insertRow();
        cell(row, "th", trace.meta);
        cell(row, "td", String(x));
        cell(row, "td", String(trace.y[i]));
      });
    }
    return table;
  }
  for (const details of document.querySelectorAll("details[data-numbers]")) {
    details.addEventListener(
      "toggle",
      () => {
        for (const id of details.dataset.numbers.split(" ")) {
          const box = document.createElement("div");
          box.className = "scroll tall";
          box.tabIndex = 0;
          box.append(numbers(document.getElementById(id)));
          details.append(box);
        }
      },
      { once: true }
    );
  }

  addEventListener("beforeprint", () => {
    const open = [...document.querySelectorAll(".plot")].filter((plot) => plot.clientWidth > 0);
    if (open.length <= KEEP) open.filter((plot) => !drawn.has(plot)).forEach(draw);
  });
})();
