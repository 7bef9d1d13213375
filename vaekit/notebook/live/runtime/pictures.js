// What figures are made of, second part: pictures of pixels, thumbnails to choose from, a canvas to draw on.
vaekitLive.part("pictures", (live) => {
  const { make, soon } = live.parts;
  const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
  const mix = (a, b, t) => a.map((v, k) => v + (b[k] - v) * t);
  /** What a pixel in [0, 1] looks like: paper at 0, ink at 1; by night: light on dark. Signed ones: orange below 0, blue above. */
  const shades = (colours, signed, night) => {
    const [paper, ink, blue, orange] = ["paper", "ink", "blue", "orange"].map((name) => rgb(colours[name]));
    if (signed) return (v) => mix(paper, v < 0 ? orange : blue, Math.min(1, Math.abs(v)));
    if (night) return (v) => mix([11, 16, 32], [255, 244, 194], Math.max(0, Math.min(1, v)));
    return (v) => mix(paper, ink, Math.max(0, Math.min(1, v)));
  };

  /** Pixels [C, H, W] as a picture; `signed` for values about 0, scaled by the largest or by `scale`. */
  const picture = (host, { label, shape, width = 140, signed = false, night = false }) => {
    const [channels, h, w] = shape.length === 2 ? [1, ...shape] : shape;
    const canvas = make("canvas", { className: "pixels", width: w, height: h, attributes: { role: "img", "aria-label": label } });
    canvas.style.maxWidth = `${width}px`;
    let pixels = null, scale = null;
    const paint = () => {
      if (!pixels) return;
      const context = canvas.getContext("2d"), image = context.createImageData(w, h), shade = shades(host.colours, signed, night);
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

  /** A canvas of pixels [H, W] to draw on with mouse, finger or pen; arrow keys move the pen, the space bar puts it down. */
  const board = (host, { label, shape: [, h, w], width = 220, radius = 1.1, on }) => {
    const pixels = new Float64Array(h * w), shown = picture(host, { label, shape: [1, h, w], width });
    const { element } = shown, at = { x: w / 2, y: h / 2, down: false, erase: false };
    element.className = "pixels pen";
    element.tabIndex = 0;
    element.setAttribute("role", "application");
    element.setAttribute("aria-roledescription", "drawing board");
    element.setAttribute("aria-label", `${label}. Arrow keys move the pen, the space bar puts it down or lifts it, E changes to the eraser and back.`);
    const paint = soon(() => {
      shown.show(pixels);
      if (host.shadowRoot.activeElement !== element) return;
      const context = element.getContext("2d");
      context.strokeStyle = at.down ? host.colours.orange : host.colours.blue;
      context.strokeRect(Math.floor(at.x) - 0.5, Math.floor(at.y) - 0.5, 2, 2);
    });
    const ink = (x, y) => {
      for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) {
        const cover = Math.max(0, Math.min(1, radius + 0.5 - Math.hypot(j + 0.5 - x, i + 0.5 - y)));
        pixels[i * w + j] = at.erase ? Math.min(pixels[i * w + j], 1 - cover) : Math.max(pixels[i * w + j], cover);
      }
    };
    const stroke = (x, y) => {
      const steps = Math.max(1, Math.ceil(Math.hypot(x - at.x, y - at.y) * 2));
      for (let k = 1; k <= steps; k++) ink(at.x + ((x - at.x) * k) / steps, at.y + ((y - at.y) * k) / steps);
      [at.x, at.y] = [x, y];
      paint();
      on(pixels);
    };
    const place = (event) => [(event.offsetX / element.clientWidth) * w, (event.offsetY / element.clientHeight) * h];
    let drawing = false;
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      drawing = true;
      [at.x, at.y] = place(event);
      stroke(at.x, at.y);
    });
    element.addEventListener("pointermove", (event) => drawing && stroke(...place(event)));
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => { drawing = false; });
    for (const change of ["focus", "blur"]) element.addEventListener(change, paint);
    element.addEventListener("keydown", (event) => {
      const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
      if (event.key === " ") at.down = !at.down;
      else if (event.key.toLowerCase() === "e") at.erase = !at.erase;
      else if (!dx && !dy) return;
      event.preventDefault();
      const [x, y] = [Math.max(0.5, Math.min(w - 0.5, at.x + dx)), Math.max(0.5, Math.min(h - 0.5, at.y + dy))];
      if (at.down) stroke(x, y);
      else { [at.x, at.y] = [x, y]; paint(); }
    });
    return { element, pixels, set(values) { pixels.set(values); paint(); on(pixels); }, erase(flag) { at.erase = flag; } };
  };

  return { picture, thumbnails, board };
});
