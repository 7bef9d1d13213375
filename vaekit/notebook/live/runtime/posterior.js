// The posterior by hand: move and stretch a Gaussian over the exact p(z|x) of one picture, and watch the gap of the ELBO.
vaekitLive.kind("posterior", (host, { model: described, cases, nodes: packed }) => {
  const { make, plot, picture, slider, number, row, panel, controls, buttons, button, thumbnails, numbers, status, soon } = { ...vaekitLive.parts, ...vaekitLive.pictures, ...vaekitLive.plots };
  const { array } = vaekitLive.engine, model = vaekitLive.vae.vae(described), n = number(2);
  const nodes = array(packed.noise), weights = Float64Array.from(packed.weights);
  for (const each of cases) Object.assign(each, { pixels: array(each.image), grid: array(each.log_joint) });
  let now = cases[0], climbing = 0;
  const q = { mean: new Float64Array(2), logStd: new Float64Array(2) };
  const set = (mean, logStd) => { q.mean.set(mean); q.logStd.set(logStd); update(); };
  const guess = () => set(now.guess.slice(0, 2), now.guess.slice(2));
  const byHand = () => { climbing += 1; update(); };

  const cloud = make("canvas"); // p(z|x) on its grid, drawn once for each picture and theme
  const paintCloud = () => {
    const side = Math.sqrt(now.grid.length), top = now.grid.reduce((a, b) => Math.max(a, b), -Infinity);
    cloud.width = cloud.height = side;
    const context = cloud.getContext("2d"), image = context.createImageData(side, side);
    const blue = [1, 3, 5].map((k) => parseInt(host.colours.blue.slice(k, k + 2), 16));
    for (let r = 0; r < side; r++) for (let c = 0; c < side; c++) image.data.set([...blue, 235 * Math.exp(now.grid[r * side + c] - top)], 4 * ((side - 1 - r) * side + c));
    context.putImageData(image, 0, 0);
  };
  host.repaint.add(paintCloud);

  const sigma = (d) => Math.exp(q.logStd[d]);
  const view = plot(host, {
    label: "The exact posterior of the picture (blue cloud) and the Gaussian q (orange ellipses)",
    x: () => now.window[0], y: () => now.window[1], xlabel: "z₁", ylabel: "z₂",
    handles: () => [
      { x: q.mean[0], y: q.mean[1], move: (a, b) => { q.mean.set([a, b]); byHand(); } },
      { x: q.mean[0] + sigma(0), y: q.mean[1], move: (a) => stretch(0, a - q.mean[0]) },
      { x: q.mean[0], y: q.mean[1] + sigma(1), move: (_, b) => stretch(1, b - q.mean[1]) },
    ],
    draw(g) {
      const [[x0, x1], [y0, y1]] = now.window;
      g.c.drawImage(cloud, g.x(x0), g.y(y1), g.x(x1) - g.x(x0), g.y(y0) - g.y(y1));
      g.ellipse(...q.mean, sigma(0), sigma(1), g.colours.orange, { fill: 0.14, width: 2.5 });
      g.ellipse(...q.mean, 2 * sigma(0), 2 * sigma(1), g.colours.orange, { width: 1.5, dash: [5, 4] });
      g.c.lineWidth = 2;
      for (const [a, b] of [[0, 0], [sigma(0), 0], [0, sigma(1)]]) g.dot(q.mean[0] + a, q.mean[1] + b, a || b ? 5.5 : 7, a || b ? g.colours.paper : g.colours.orange, g.colours.orange);
    },
  });
  const stretch = (d, to) => { q.logStd[d] = Math.log(Math.max(to, now.width / 200)); byHand(); };

  const gauge = plot(host, {
    label: "How far the ELBO lies below log p(x)", ratio: 0.58, maximum: 210, ylabel: "nats", x: [0, 1], xticks: false,
    y: () => [now.evidence - Math.max(6, 1.15 * (now.evidence - elbo)), now.evidence + 1], grid: false,
    draw(g) {
      const bottom = g.box.bottom, [a, b] = [g.x(0.22), g.x(0.52)];
      Object.assign(g.c, { fillStyle: g.colours.orange, globalAlpha: 0.3 });
      g.c.fillRect(a, g.y(elbo), b - a, bottom - g.y(elbo));
      g.c.globalAlpha = 1;
      g.line([0.22, 0.52], [elbo, elbo], g.colours.orange, { width: 3 });
      g.line([0, 1], [now.evidence, now.evidence], g.colours.blue, { width: 3 });
      g.text("log p(x)", g.x(0.03), g.y(now.evidence) - 10, { colour: g.colours.blue, bold: true });
      g.text("ELBO", (a + b) / 2, Math.min(bottom - 12, g.y(elbo) + 14), { colour: g.colours.ink, align: "center", bold: true });
      g.line([0.62, 0.62], [elbo, now.evidence], g.colours.ink, { width: 1.5 });
      g.text("KL gap", g.x(0.66), Math.max(g.y(now.evidence) + 14, Math.min(bottom - 30, (g.y(elbo) + g.y(now.evidence)) / 2)), { bold: true });
    },
  });
  let elbo = NaN;
  const decoded = picture(host, { label: "What the decoder draws at the mean of q", shape: model.shape, width: 130 });
  const given = picture(host, { label: "The picture x", shape: model.shape, width: 130 });
  const shown = numbers("log p(x)", "ELBO", "gap = KL(q ‖ p(z|x))", "E log p(x|z)", "KL(q ‖ p(z))"), told = status();
  const sliders = [0, 1].flatMap((d) => [
    slider({ label: `mean of z${"₁₂"[d]}`, min: 0, max: 1, value: 0, text: () => n(q.mean[d]), on: (v) => { const [a, b] = now.window[d]; q.mean[d] = a + v * (b - a); byHand(); } }),
    slider({ label: `width σ${"₁₂"[d]}`, min: 0, max: 1, value: 0, text: () => number(3)(sigma(d)), on: (v) => stretch(d, now.width * 0.005 * 100 ** v) }),
  ]);
  const measure = () => {
    elbo = model.elbo(now.pixels, q, nodes, weights);
    const kl = vaekitLive.vae.klToPrior(q.mean, q.logStd), gap = Math.max(0, now.evidence - elbo);
    shown.show(n(now.evidence), n(elbo), n(gap), n(elbo + kl), n(kl));
    decoded.show(model.decode(q.mean));
    [view, gauge].forEach((each) => each.paint());
    sliders.forEach((s, k) => {
      const d = k >> 1, [a, b] = now.window[d];
      s.value = k % 2 ? Math.log(sigma(d) / (now.width * 0.005)) / Math.log(100) : (q.mean[d] - a) / (b - a);
    });
    told.say(`The Gaussian stands at (${n(q.mean[0])}, ${n(q.mean[1])}) with widths ${number(3)(sigma(0))} and ${number(3)(sigma(1))}. Its ELBO of ${n(elbo)} nats misses log p(x) by ${n(gap)} nats.`);
    host.state = { mean: [...q.mean], logStd: [...q.logStd], elbo, gap, kl, evidence: now.evidence };
  };
  const update = soon(measure);
  const climb = () => {
    const mine = ++climbing, parameters = Float64Array.from([...q.mean, ...q.logStd]), step = vaekitLive.vae.adam(parameters, 0.02);
    let left = 250;
    const go = () => {
      if (mine !== climbing || left-- <= 0) return;
      for (let inner = 0; inner < (matchMedia("(prefers-reduced-motion: reduce)").matches ? 250 : 2); inner++) {
        const slope = model.elboSlope(now.pixels, { mean: parameters.slice(0, 2), logStd: parameters.slice(2) }, nodes, { weights });
        step([...slope.mean, ...slope.logStd]);
      }
      q.mean.set(parameters.slice(0, 2));
      q.logStd.set(parameters.slice(2));
      measure();
      requestAnimationFrame(go);
    };
    go();
  };
  const choose = (k) => {
    climbing += 1;
    now = cases[k];
    given.show(now.pixels, `The picture x: ${now.name}`);
    paintCloud();
    const [[x0, x1], [y0, y1]] = now.window, wide = Math.log((x1 - x0) / 12);
    set([x0 + 0.3 * (x1 - x0), y0 + 0.3 * (y1 - y0)], [wide, wide]);
  };
  const pictures = make("div", { className: "narrow" }, panel("x", given.element), make("br"), panel("drawn at the mean", decoded.element));
  host.box.append(
    thumbnails(host, { label: "Picture", images: cases.map((c) => c.pixels), names: cases.map((c) => c.name), shape: model.shape, on: choose }).element,
    row(panel("Drag the centre and the two widths", view.element), panel("How far below?", gauge.element), pictures),
    controls(...sliders.map((s) => s.element)),
    buttons(button("The encoder's guess", () => { climbing += 1; guess(); }), button("Climb the ELBO", climb), button("Start again", () => choose(cases.indexOf(now)))),
    shown.element, told.element,
  );
  choose(0);
  measure();
});
