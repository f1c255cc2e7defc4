"use strict";
(() => {
  document.documentElement.classList.add("js");
  const viewer = document.getElementById("viewer");
  if (!viewer) return;

  const stage = viewer.querySelector(".stage");
  const tools = viewer.querySelector("form");
  const frames = [...stage.querySelectorAll(".frame")];
  const handle = stage.querySelector(".handle");
  const ruler = stage.querySelector(".ruler");
  const MAX_ZOOM = 32;
  const defaults = { mode: "fixed", when: "after", layer: "slides", mix: "50", marks: "", zoom: 1, x: 0, y: 0 };
  for (const input of tools.querySelectorAll("input:checked")) defaults[input.name] = input.value;
  const state = { ...defaults };
  let blink = 0;

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  function place() {
    state.zoom = clamp(state.zoom, 1, MAX_ZOOM);
    state.x = clamp(state.x, 0, 1 - 1 / state.zoom);
    state.y = clamp(state.y, 0, 1 - 1 / state.zoom);
    for (const [name, value] of [["--zoom", state.zoom], ["--x", state.x], ["--y", state.y]]) {
      stage.style.setProperty(name, value);
    }
    stage.classList.toggle("close", state.zoom > 4);
    tools.querySelector("output").textContent = `${+state.zoom.toFixed(1)}×`;
    rule();
  }

  function rule() {
    const shown = Number(viewer.dataset.widthUm) / state.zoom;
    const power = 10 ** Math.floor(Math.log10(shown / 4));
    const length = [5, 2, 1].find((step) => step * power <= shown / 4) * power;
    const share = state.mode === "side" ? 50 : 100;
    ruler.style.width = `${(share * length) / shown}%`;
    ruler.firstElementChild.textContent =
      length >= 1000 ? `${length / 1000} mm` : `${+length.toPrecision(1)} µm`;
  }

  function wanted(role) {
    if (state.mode === "overlay") return role === `overlay-${state.when}` ? "alone" : "";
    if (state.mode === "fixed") return role === "fixed" ? "alone" : "";
    if (role === "fixed") return "fixed";
    return role === state.when ? "moving" : "";
  }

  function show() {
    stage.dataset.mode = state.mode;
    for (const frame of frames) {
      const part = frame.dataset.layer === state.layer ? wanted(frame.dataset.role) : "";
      frame.dataset.part = part;
      frame.setAttribute("aria-hidden", part ? "false" : "true");
    }
    stage.style.setProperty("--mix", state.mix / 100);
    stage.style.setProperty("--square", `${8 + Number(state.mix) * 1.6}px`);
    stage.classList.toggle("marked", state.marks === "on");
    const names = { opacity: "Moving", curtain: "Position", checker: "Square" };
    const range = tools.querySelector(".range");
    if (range) {
      range.firstElementChild.textContent = names[state.mode] || "";
      range.style.visibility = names[state.mode] ? "visible" : "hidden";
    }
    clearInterval(blink);
    stage.classList.remove("blink");
    if (state.mode === "flicker") blink = setInterval(() => stage.classList.toggle("blink"), 600);
    place();
  }

  function write() {
    for (const input of tools.elements) {
      if (input.type === "radio") input.checked = state[input.name] === input.value;
      else if (input.type === "checkbox") input.checked = state.marks === "on";
      else if (input.type === "range") input.value = state.mix;
    }
    show();
  }

  function remember() {
    const changed = Object.keys(state).filter((key) => String(state[key]) !== String(defaults[key]));
    const short = (value) => (typeof value === "number" ? +value.toFixed(4) : value);
    const hash = changed.map((key) => `${key}=${encodeURIComponent(short(state[key]))}`).join("&");
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function read() {
    const asked = new URLSearchParams(location.hash.slice(1));
    for (const key of Object.keys(state)) {
      const value = asked.get(key);
      if (value === null) continue;
      if (typeof defaults[key] === "number") state[key] = Number(value) || defaults[key];
      else if (key === "mix") state.mix = String(clamp(Number(value) || 0, 0, 100));
      else if (key === "marks") state.marks = value === "on" ? "on" : "";
      else if ([...tools.querySelectorAll(`[name=${key}]`)].some((input) => input.value === value)) state[key] = value;
    }
    write();
  }

  function change(values) {
    Object.assign(state, values);
    write();
    remember();
  }

  function zoomTo(zoom, atX = 0.5, atY = 0.5) {
    const next = clamp(zoom, 1, MAX_ZOOM);
    const shift = 1 / state.zoom - 1 / next;
    change({ zoom: next, x: state.x + atX * shift, y: state.y + atY * shift });
  }

  function next(key) {
    const values = [...tools.querySelectorAll(`[name=${key}]`)].map((input) => input.value);
    if (values.length > 1) change({ [key]: values[(values.indexOf(state[key]) + 1) % values.length] });
  }

  function picture() {
    return frames.find((frame) => frame.dataset.part).firstElementChild.getBoundingClientRect();
  }

  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("input", ({ target }) =>
    change({ [target.name]: target.type === "checkbox" ? (target.checked ? "on" : "") : target.value }));
  tools.addEventListener("click", ({ target }) => {
    const factor = { in: 1.5, out: 1 / 1.5, all: 0 }[target.dataset.zoom];
    if (factor !== undefined) zoomTo(state.zoom * factor);
  });

  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const box = picture();
    zoomTo(state.zoom * Math.exp(-event.deltaY / 300),
      ((event.clientX - box.left) % box.width) / box.width, (event.clientY - box.top) / box.height);
  }, { passive: false });

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const box = picture();
    const start = { x: state.x, y: state.y };
    const drag = event.target === handle
      ? (at) => change({ mix: String(Math.round(clamp((100 * (at.clientX - box.left)) / box.width, 0, 100))) })
      : (at) => change({
          x: start.x - (at.clientX - event.clientX) / box.width / state.zoom,
          y: start.y - (at.clientY - event.clientY) / box.height / state.zoom,
        });
    const stop = () => {
      stage.removeEventListener("pointermove", drag);
      stage.classList.remove("dragging");
    };
    stage.setPointerCapture(event.pointerId);
    stage.classList.add("dragging");
    stage.addEventListener("pointermove", drag);
    stage.addEventListener("pointerup", stop, { once: true });
    stage.addEventListener("pointercancel", stop, { once: true });
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(text|search)$/.test(event.target.type)) return;
    const modes = [...tools.querySelectorAll("[name=mode]")].map((input) => input.value);
    const step = 0.1 / state.zoom;
    const arrows = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key >= "1" && event.key <= String(modes.length)) change({ mode: modes[event.key - 1] });
    else if (event.key === "b") next("when");
    else if (event.key === "c") next("layer");
    else if (event.key === "+" || event.key === "=") zoomTo(state.zoom * 1.5);
    else if (event.key === "-") zoomTo(state.zoom / 1.5);
    else if (event.key === "0") zoomTo(1);
    else if (event.target === stage && arrows[event.key] && state.zoom > 1) {
      change({ x: state.x + arrows[event.key][0], y: state.y + arrows[event.key][1] });
    } else return;
    event.preventDefault();
  });

  document.addEventListener("click", ({ target }) => {
    if (!target.dataset.share) return;
    const zoom = clamp(0.5 / target.dataset.share, 1, MAX_ZOOM);
    change({
      zoom,
      x: target.dataset.left / 100 - 0.5 / zoom,
      y: target.dataset.top / 100 - 0.5 / zoom,
      when: "after",
      marks: "on",
    });
    viewer.scrollIntoView({ block: "start" });
    stage.focus({ preventScroll: true });
  });

  window.addEventListener("hashchange", read);
  read();
})();
