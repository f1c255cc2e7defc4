"use strict";
(() => {
  document.documentElement.classList.add("js");
  const form = document.querySelector("form.tools");
  const body = document.querySelector(".pairs tbody");
  const headings = [...document.querySelectorAll("th[data-key]")];
  const rows = [...body.rows].map((row) => ({ row, text: row.textContent.toLowerCase() }));
  const state = { sort: "", down: false, q: "", verdict: new Set() };

  const column = (heading) => [...heading.parentElement.children].indexOf(heading);

  function compare(one, other) {
    const missing = (one === "") - (other === "");
    if (missing) return missing;
    const numbers = Number(one) - Number(other);
    const order = Number.isNaN(numbers) ? one.localeCompare(other, undefined, { numeric: true }) : numbers;
    return state.down ? -order : order;
  }

  function sort() {
    for (const heading of headings) {
      const sorted = heading.dataset.key === state.sort;
      if (sorted) heading.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    }
    const heading = headings.find((each) => each.dataset.key === state.sort);
    if (!heading) return;
    const at = column(heading);
    const keyed = rows.map(({ row }) => ({ row, value: row.cells[at].dataset.value }));
    keyed.sort((one, other) => compare(one.value, other.value));
    body.append(...keyed.map(({ row }) => row));
  }

  function filter() {
    const parts = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, text } of rows) {
      const fits = (!state.verdict.size || state.verdict.has(row.dataset.verdict)) && parts.every((part) => text.includes(part));
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent = shown === rows.length ? `${shown} shown` : `${shown} of ${rows.length} shown`;
  }

  function remember() {
    const kept = [["verdict", [...state.verdict].join(",")], ["q", state.q], ["sort", state.sort && (state.down ? "-" : "") + state.sort]];
    const hash = kept.filter(([, value]) => value).map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function read() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const order = asked.get("sort") || "";
    state.down = order.startsWith("-");
    state.sort = order.replace(/^-/, "");
    state.q = asked.get("q") || "";
    state.verdict = new Set((asked.get("verdict") || "").split(",").filter(Boolean));
    form.elements.q.value = state.q;
    for (const box of form.querySelectorAll("[name=verdict]")) box.checked = state.verdict.has(box.value);
    sort();
    filter();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    state.q = form.elements.q.value;
    state.verdict = new Set([...form.querySelectorAll("[name=verdict]:checked")].map((box) => box.value));
    filter();
    remember();
  });
  for (const heading of headings) {
    heading.addEventListener("click", () => {
      state.down = state.sort === heading.dataset.key && !state.down;
      state.sort = heading.dataset.key;
      sort();
      remember();
    });
  }
  window.addEventListener("hashchange", read);
  read();
})();
