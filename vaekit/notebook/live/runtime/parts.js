// What figures are made of: native controls, pictures, a canvas with axes whose points can be dragged, a canvas to draw on.
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
      await new Promise((go) => setTimeout(go));
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

  const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
  const mix = (a, b, t) => a.map((v, k) => v + (b[k] - v) * t);
  /** What a pixel in [0, 1] looks like: paper at 0, ink at 1. Signed ones: orange below 0, blue above. */
  const shades = (colours, signed) => {
    const [paper, ink, blue, orange] = ["paper", "ink", "blue", "orange"].map((name) => rgb(colours[name]));
    if (signed) return (v) => mix(paper, v < 0 ? orange : blue, Math.min(1, Math.abs(v)));
    return (v) => mix(paper, ink, Math.max(0, Math.min(1, v)));
  };

  /** Pixels [C, H, W] as a picture; `signed` for values about 0, scaled by the largest or by `scale`. */
  const picture = (host, { label, shape, width = 140, signed = false }) => {
    const [channels, h, w] = shape.length === 2 ? [1, ...shape] : shape;
    const canvas = make("canvas", { className: "pixels", width: w, height: h, attributes: { role: "img", "aria-label": label } });
    canvas.style.maxWidth = `${width}px`;
    let pixels = null, scale = null;
    const paint = () => {
      if (!pixels) return;
      const context = canvas.getContext("2d"), image = context.createImageData(w, h), shade = shades(host.colours, signed);
      const top = signed ? scale ?? (pixels.reduce((m, v) => Math.max(m, Math.abs(v)), 0) || 1) : 1, area = w * h;
      for (let i = 0; i < area; i++) {
        const colour = channels === 3 ? [0, 1, 2].map((c) => 255 * pixels[c * area + i]) : shade(pixels[i] / top);
        image.data.set([...colour, 255], 4 * i);
      }
      context.putImageData(image, 0, 0);
    };
    host.repaint.add(paint);
    const show = (values, name, to = null) => {
      [pixels, scale] = [values, to];
      if (name) canvas.setAttribute("aria-label", name);
      paint();
    };
    return { element: canvas, show };
  };

  /** Small pictures of which one is chosen. `names` say what each shows. */
  const thumbnails = (host, { label, images, names, shape, chosen = 0, width = 44, on }) => {
    const all = images.map((pixels, k) => {
      const small = picture(host, { label: names[k], shape, width });
      small.show(pixels);
      small.element.style.width = `${width}px`;
      return make("button", { type: "button", className: "thumb", onclick: () => pick(k), attributes: { "aria-label": names[k], "aria-pressed": k === chosen } }, small.element);
    });
    const mark = (k) => all.forEach((b, i) => b.setAttribute("aria-pressed", i === k));
    const pick = (k) => { mark(k); on(k); };
    return { element: make("div", { className: "buttons", attributes: { role: "group", "aria-label": label } }, make("span", { className: "label", textContent: label }), ...all), mark };
  };

  /** A canvas in CSS pixels that is drawn anew when its size or the theme changes. */
  const canvas = (host, { label, ratio = 1, draw, maximum = 460 }) => {
    const element = make("canvas", { attributes: { role: "img", "aria-label": label } });
    element.style.maxWidth = `${maximum}px`;
    element.style.aspectRatio = ratio;
    const paint = soon(() => {
      const width = element.clientWidth, height = width / ratio, dense = Math.min(2, globalThis.devicePixelRatio || 1);
      if (!width) return;
      if (element.width !== Math.round(width * dense) || element.height !== Math.round(height * dense)) [element.width, element.height] = [Math.round(width * dense), Math.round(height * dense)];
      const context = element.getContext("2d");
      context.setTransform(dense, 0, 0, dense, 0, 0);
      context.clearRect(0, 0, width, height);
      draw(context, width, height, host.colours);
    });
    new ResizeObserver(paint).observe(element);
    host.repaint.add(paint);
    return { element, paint };
  };

  const ticks = (low, high, most) => {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough), found = [];
    for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + 1e-9 * step; t += step) found.push(Math.abs(t) < 1e-9 * step ? 0 : +t.toPrecision(10));
    return found;
  };

  /** A plot: `draw(g)` gets g with `x(value)`, `y(value)` in CSS pixels, the context `c`, the colours, and a few shapes.
   *  `x`, `y`: ranges, or functions that give them. `handles()`: points {x, y, move(x, y)} that the pointer drags. */
  const plot = (host, { label, x, y, xlabel = "", ylabel = "", ratio = 1, maximum, draw, handles, grid = true, xticks = true, anywhere = true }) => {
    const range = (r) => (typeof r === "function" ? r() : r);
    const margin = { left: ylabel ? 46 : 30, right: 14, top: 8, bottom: xlabel ? 36 : xticks ? 22 : 8 };
    let g;
    const view = canvas(host, {
      label, ratio, maximum, draw(c, width, height, colours) {
        const [[x0, x1], [y0, y1]] = [range(x), range(y)];
        const box = { left: margin.left, top: margin.top, right: width - margin.right, bottom: height - margin.bottom };
        g = {
          c, colours, box,
          x: (v) => box.left + ((v - x0) / (x1 - x0)) * (box.right - box.left),
          y: (v) => box.bottom - ((v - y0) / (y1 - y0)) * (box.bottom - box.top),
          atX: (p) => x0 + ((p - box.left) / (box.right - box.left)) * (x1 - x0),
          atY: (p) => y0 + ((box.bottom - p) / (box.bottom - box.top)) * (y1 - y0),
          dot(px, py, radius, fill, stroke) {
            c.beginPath();
            c.arc(g.x(px), g.y(py), radius, 0, 7);
            if (fill) { c.fillStyle = fill; c.fill(); }
            if (stroke) { c.strokeStyle = stroke; c.stroke(); }
          },
          line(xs, ys, colour, { width: w = 2, dash = [] } = {}) {
            c.beginPath();
            let pen = false;
            for (let k = 0; k < xs.length; k++) {
              if (!Number.isFinite(ys[k])) { pen = false; continue; }
              c[pen ? "lineTo" : "moveTo"](g.x(xs[k]), Math.max(-1e4, Math.min(1e4, g.y(ys[k]))));
              pen = true;
            }
            Object.assign(c, { strokeStyle: colour, lineWidth: w, lineJoin: "round" });
            c.setLineDash(dash);
            c.stroke();
            c.setLineDash([]);
          },
          ellipse(mx, my, rx, ry, colour, { fill = 0, width: w = 2, dash = [] } = {}) {
            c.beginPath();
            c.ellipse(g.x(mx), g.y(my), Math.abs(g.x(rx) - g.x(0)), Math.abs(g.y(ry) - g.y(0)), 0, 0, 7);
            Object.assign(c, { strokeStyle: colour, fillStyle: colour, lineWidth: w });
            c.setLineDash(dash);
            if (fill) { c.globalAlpha = fill; c.fill(); c.globalAlpha = 1; }
            if (w) c.stroke();
            c.setLineDash([]);
          },
          text(words, px, py, { colour = colours.ink, align = "left", base = "middle", bold = false } = {}) {
            Object.assign(c, { fillStyle: colour, textAlign: align, textBaseline: base, font: `${bold ? "600 " : ""}13px system-ui, sans-serif` });
            c.fillText(words, px, py);
          },
        };
        c.lineWidth = 1;
        c.strokeStyle = colours.grid;
        const count = Math.max(2, Math.floor((box.right - box.left) / 70));
        for (const t of xticks ? ticks(x0, x1, count) : []) {
          if (grid) { c.beginPath(); c.moveTo(g.x(t), box.top); c.lineTo(g.x(t), box.bottom); c.stroke(); }
          g.text(String(t).replace("-", "−"), g.x(t), box.bottom + 5, { colour: colours.muted, align: "center", base: "top" });
        }
        for (const t of ticks(y0, y1, Math.max(2, Math.floor((box.bottom - box.top) / 45)))) {
          if (grid) { c.beginPath(); c.moveTo(box.left, g.y(t)); c.lineTo(box.right, g.y(t)); c.stroke(); }
          g.text(String(t).replace("-", "−"), box.left - 5, g.y(t), { colour: colours.muted, align: "right" });
        }
        if (xlabel) g.text(xlabel, (box.left + box.right) / 2, height - 3, { align: "center", base: "bottom" });
        if (ylabel) {
          c.save();
          c.translate(11, (box.top + box.bottom) / 2);
          c.rotate(-Math.PI / 2);
          g.text(ylabel, 0, 0, { align: "center" });
          c.restore();
        }
        c.save();
        c.beginPath();
        c.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
        c.clip();
        draw(g);
        c.restore();
        c.strokeStyle = colours.line;
        c.strokeRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
      },
    });
    if (handles) {
      const { element } = view;
      let held = null;
      element.classList.add("drag");
      const at = (event) => [event.offsetX, event.offsetY];
      const clamp = (v, [a, b]) => Math.max(a, Math.min(b, v));
      const move = (event) => {
        const [px, py] = at(event);
        held.move(clamp(g.atX(px), range(x)), clamp(g.atY(py), range(y)));
        view.paint();
      };
      element.addEventListener("pointerdown", (event) => {
        if (!g) return;
        const [px, py] = at(event), all = handles().map((h) => ({ h, far: Math.hypot(g.x(h.x) - px, g.y(h.y) - py) })).sort((a, b) => a.far - b.far);
        if (!all.length || (all[0].far > 28 && !anywhere)) return;
        held = all[0].h;
        element.setPointerCapture(event.pointerId);
        event.preventDefault();
        move(event);
      });
      element.addEventListener("pointermove", (event) => held && move(event));
      for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => { held = null; });
    }
    return view;
  };

  return { make, number, soon, breather, slider, button, check, select, choice, status, numbers, row, controls, buttons, panel, picture, thumbnails, canvas, plot, shades };
});
