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
  const text = (id) => document.getElementById(id).textContent;
  const source = (plot) => text(plot.id + "-data");
  const inTheme = (json) =>
    isDark() ? json.replace(/#[0-9a-f]{6}\b/g, (colour) => darkOf[colour] ?? colour) : json;

  function figure(plot) {
    const made = JSON.parse(inTheme(source(plot)));
    made.layout.template = JSON.parse(inTheme(text("template")));
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
        cell(row, "td", String(trace.y[i] ?? "–"));
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

  // All numbers of a matrix, one column for each network; built when first opened.
  function shown(value) {
    if (typeof value !== "number") return String(value ?? "–");
    return Number.isInteger(value) ? value.toLocaleString("en") : String(+value.toPrecision(4));
  }
  function everything(details) {
    const [head, ...rows] = JSON.parse(text(details.dataset.all));
    const table = document.createElement("table");
    const top = table.createTHead().insertRow();
    head.forEach((name) => cell(top, "th", name));
    const body = table.createTBody();
    for (const [name, ...values] of rows) {
      const row = body.insertRow();
      cell(row, "th", name);
      for (const value of values) {
        cell(row, "td", shown(value));
        row.lastChild.title = String(value ?? "");
      }
    }
    const box = document.createElement("div");
    box.className = "scroll tall narrow";
    box.tabIndex = 0;
    box.append(table);
    details.append(box);
  }
  for (const details of document.querySelectorAll("details[data-all]"))
    details.addEventListener("toggle", () => everything(details), { once: true });

  // Tables that sort by a column, and forms that hide rows.
  const rowsOf = (table) => [...table.tBodies[0].rows];
  function keyOf(row, column, asText) {
    if (asText) return row.cells[column].textContent;
    const found = row.cells[column].querySelector("data");
    return found ? Number(found.value) : null; // no number: always last
  }
  function sort(table, column, rising, asText) {
    const keyed = rowsOf(table).map((row) => [keyOf(row, column, asText), row]);
    const sign = rising ? 1 : -1;
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (asText ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    });
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.append(...head.childNodes);
      head.append(sorter);
      sorter.addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        sort(table, column, rising, head.classList.contains("text"));
      });
    });
    table.tBodies[0].addEventListener("click", (event) => {
      const link = event.target.closest("tr").querySelector("a");
      if (link && event.target.closest("a") !== link && !String(getSelection())) link.click();
    });
  }
  for (const form of document.querySelectorAll("form.filter")) {
    const table = document.getElementById(form.dataset.filter);
    const all = rowsOf(table);
    const verdict = [...table.tHead.rows[0].cells].findIndex((h) => h.textContent === "verdict");
    form.hidden = false;
    const apply = () => {
      const wanted = form.elements.text.value.toLowerCase();
      const only = form.elements.verdict.value;
      let left = 0;
      for (const row of all) {
        const name = row.querySelector("th").textContent.toLowerCase();
        const fits = name.includes(wanted) && (!only || row.cells[verdict].textContent === only);
        row.hidden = !fits;
        left += fits;
      }
      form.querySelector("output").textContent = `${left} of ${all.length} rows`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  // A link to a matrix opens it, and what it lies in.
  function openTarget() {
    let target;
    try {
      target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch {
      return; // no name of a place
    }
    if (!target || !target.closest("details")) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView({ block: "start", behavior: "instant" });
  }
  addEventListener("hashchange", openTarget);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#matrix-"]');
    if (link && link.getAttribute("href") === location.hash) openTarget(); // no hashchange then
  });
  if (location.hash) openTarget();

  addEventListener("beforeprint", () => {
    const open = [...document.querySelectorAll(".plot")].filter((plot) => plot.clientWidth > 0);
    if (open.length <= KEEP) open.filter((plot) => !drawn.has(plot)).forEach(draw);
  });
})();
