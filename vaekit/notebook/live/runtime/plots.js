// What figures are made of, third part: a canvas with axes, and points on it that the pointer drags.
vaekitLive.part("plots", (live) => {
  const { make, soon } = live.parts;

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

  // A plot: `draw(g)` gets g with `x(value)`, `y(value)` in CSS pixels, the context `c`, the colours, and a few shapes.
  // `x`, `y`: ranges, or functions that give them. `handles()`: points {x, y, move(x, y)} that the pointer drags.
  const plot = (host, { label, x, y, xlabel = "", ylabel = "", ratio = 1, maximum, draw, handles, grid = true, xticks = true, yticks = true, ytext = String, anywhere = true }) => {
    const range = (r) => (typeof r === "function" ? r() : r);
    const margin = { left: ylabel ? 56 : yticks ? 34 : 10, right: 14, top: 8, bottom: xlabel ? 36 : xticks ? 22 : 8 };
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
        for (const t of yticks ? ticks(y0, y1, Math.max(2, Math.floor((box.bottom - box.top) / 45))) : []) {
          if (grid) { c.beginPath(); c.moveTo(box.left, g.y(t)); c.lineTo(box.right, g.y(t)); c.stroke(); }
          g.text(ytext(t).replace("-", "−"), box.left - 5, g.y(t), { colour: colours.muted, align: "right" });
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

  return { canvas, plot };
});
