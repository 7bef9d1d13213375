// What figures are made of, first part: native controls with names, numbers, sentences for screen readers.
vaekitLive.part("parts", (live) => {
  /** An element with properties, attributes (in `attributes`) and children. */
  const make = (tag, { attributes = {}, ...properties } = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children.filter((child) => child != null));
    return element;
  };
  const number = (digits) => (value) => (Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : "not finite");

  /** Calls `work` once before the next painting, however often it is asked for. */
  const soon = (work) => {
    let asked = false;
    return () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => { asked = false; work(); });
    };
  };
  /** Lets the page breathe: waits for other work whenever this work has taken 12 ms. */
  const breather = () => {
    let since = performance.now();
    return async () => {
      if (performance.now() - since < 12) return;
      await new Promise((go) => { // a message comes back at once, a timer after four milliseconds
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => { port1.close(); go(); };
        port2.postMessage(0);
      });
      since = performance.now();
    };
  };

  const slider = ({ label, min, max, step = "any", value, text = number(2), on }) => {
    const output = make("output", { attributes: { "aria-hidden": "true" } });
    const input = make("input", { type: "range" });
    Object.assign(input, { min, max, step });
    input.setAttribute("aria-label", label);
    const tell = () => {
      output.textContent = text(+input.value);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.value = value;
    input.addEventListener("input", () => { tell(); on(+input.value); });
    input.addEventListener("keydown", (event) => { // with any value allowed a key moves by a hundredth
      const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (step !== "any" || !way) return;
      event.preventDefault();
      input.value = +input.value + way * ((max - min) / 100) * (event.shiftKey ? 5 : 1);
      input.dispatchEvent(new Event("input"));
    });
    tell();
    return {
      element: make("label", {}, make("span", { textContent: label }), output, input), input,
      get value() { return +input.value; },
      set value(to) { input.value = to; tell(); },
    };
  };
  const button = (textContent, on, pressed) => {
    const element = make("button", { type: "button", textContent, onclick: on });
    if (pressed !== undefined) element.setAttribute("aria-pressed", pressed);
    return element;
  };
  const check = (label, checked, on) => {
    const input = make("input", { type: "checkbox", checked, onchange: () => on(input.checked) });
    return { element: make("label", { className: "check" }, input, label), input };
  };
  const select = (label, options, value, on) => {
    const input = make("select", { onchange: () => on(input.value) }, ...options.map(([key, text]) => make("option", { value: key, textContent: text })));
    input.value = value;
    return { element: make("label", {}, make("span", { textContent: `${label} ` }), input), input };
  };
  /** Buttons of which one is pressed. */
  const choice = (label, names, chosen, on) => {
    const buttons = names.map((name, k) => button(name, () => pick(k), k === chosen));
    const pick = (k) => { mark(k); on(k); };
    const mark = (k) => buttons.forEach((b, i) => b.setAttribute("aria-pressed", i === k));
    return { element: make("div", { className: "buttons", attributes: { role: "group", "aria-label": label } }, make("span", { className: "label", textContent: label }), ...buttons), mark, pick };
  };
  /** A sentence that screen readers hear once the reader has paused. */
  const status = () => {
    const shown = make("p", { className: "status", attributes: { "aria-hidden": "true" } });
    const heard = make("p", { className: "visually-hidden", attributes: { role: "status" } });
    let timer;
    return {
      element: make("div", {}, shown, heard),
      say(text) {
        shown.textContent = text;
        clearTimeout(timer);
        timer = setTimeout(() => { heard.textContent = text; }, 400);
      },
    };
  };
  /** Numbers with names, in a row. */
  const numbers = (...names) => {
    const values = names.map(() => make("dd", { textContent: "–" }));
    const element = make("dl", { className: "numbers" }, ...names.map((name, k) => make("div", {}, make("dt", { textContent: name }), values[k])));
    return { element, show: (...texts) => texts.forEach((text, k) => { values[k].textContent = text; }) };
  };
  const row = (...children) => make("div", { className: "row" }, ...children);
  const controls = (...children) => make("div", { className: "controls" }, ...children);
  const buttons = (...children) => make("div", { className: "buttons" }, ...children);
  const panel = (heading, ...children) => make("div", {}, make("p", { className: "heading", textContent: heading }), ...children);

  return { make, number, soon, breather, slider, button, check, select, choice, status, numbers, row, controls, buttons, panel };
});
