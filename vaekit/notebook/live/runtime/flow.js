// The ring: 400 particles carried by tempered leapfrog steps from a Gaussian towards a ring-shaped posterior.
vaekitLive.kind("flow", (host, { seen, scale, rounding, evidence, noise: packed, limit, start }) => {
  const { plot, slider, number, row, panel, controls, buttons, button, numbers, status, soon, make } = { ...vaekitLive.parts, ...vaekitLive.pictures, ...vaekitLive.plots };
  const noise = vaekitLive.engine.array(packed), N = noise.length / 4, LOG_2PI = Math.log(2 * Math.PI), n = number(3);
  const set = { ...start, k: start.K };
  const constant = LOG_2PI + Math.log(scale) + LOG_2PI / 2;
  /** U(z) = -log p(x, z) of the decoder r(z) = sqrt(|z|² + rounding), and its gradient. */
  const potential = (a, b) => {
    const r = Math.sqrt(a * a + b * b + rounding), away = (r - seen) / (scale * scale);
    return [(a * a + b * b) / 2 + (away * (r - seen)) / 2 + constant, a * (1 + away / r), b * (1 + away / r)];
  };
  /** Cooling factors whose product is sqrt(beta_0), 1 / sqrt(beta_k) quadratic in k. */
  const cooling = (root, K) => {
    const inverse = (k) => (1 - 1 / root) * (k / K) ** 2 + 1 / root;
    return Array.from({ length: K }, (_, k) => inverse(k + 1) / inverse(k));
  };
  /** All particles through K steps: log w [N], the largest energy error of a step, and the paths [K + 1, N, 2] if wanted. */
  const run = ({ mean, width, step, K, root }, paths) => {
    const alpha = cooling(root, K), weights = new Float64Array(N);
    let error = 0;
    for (let i = 0; i < N; i++) {
      const [e1, e2, g1, g2] = noise.subarray(4 * i, 4 * i + 4);
      let a = mean[0] + width * e1, b = mean[1] + width * e2, p = g1 / root, q = g2 / root, [U, da, db] = potential(a, b);
      const logStart = -(e1 * e1 + e2 * e2 + g1 * g1 + g2 * g2) / 2 - 2 * Math.log(width) - 2 * LOG_2PI;
      paths?.set([a, b], 2 * i);
      for (let k = 0; k < K; k++) {
        const before = U + (p * p + q * q) / 2;
        p -= (step / 2) * da; q -= (step / 2) * db;
        a += step * p; b += step * q;
        [U, da, db] = potential(a, b);
        p -= (step / 2) * da; q -= (step / 2) * db;
        const off = Math.abs(U + (p * p + q * q) / 2 - before);
        if (!(off <= error)) error = off;
        p *= alpha[k]; q *= alpha[k];
        paths?.set([a, b], 2 * ((k + 1) * N + i));
      }
      weights[i] = -U - (p * p + q * q) / 2 - LOG_2PI - logStart;
    }
    const bound = weights.reduce((x, y) => x + y, 0) / N;
    const spread = Math.sqrt(weights.reduce((x, y) => x + (y - bound) ** 2, 0) / (N - 1) / N);
    return { bound, spread, error, weights };
  };

  const reach = 0.8, grid = Array.from({ length: 40 }, (_, k) => ((k + 1) / 40) * reach);
  /** The gap of the Gaussian start, with no flow at all. */
  const alone = ({ mean, width }) => {
    let sum = 0;
    for (let i = 0; i < N; i++) {
      const [e1, e2] = [noise[4 * i], noise[4 * i + 1]];
      sum += -potential(mean[0] + width * e1, mean[1] + width * e2)[0] + (e1 * e1 + e2 * e2) / 2 + 2 * Math.log(width) + LOG_2PI;
    }
    return evidence - sum / N;
  };
  let paths, found, gaps, without;
  const compute = () => {
    paths = new Float64Array(2 * N * (set.K + 1));
    found = run(set, paths);
    without = alone(set);
    gaps = grid.map((step) => evidence - run({ ...set, step }).bound);
    set.k = Math.min(set.k, set.K);
    show();
  };
  const cliff = 2 / Math.sqrt(1 + 1 / (scale * scale));
  const plane = plot(host, {
    label: "Four hundred particles on a ring-shaped posterior", x: [-limit, limit], y: [-limit, limit], xlabel: "z₁", ylabel: "z₂", grid: false,
    handles: () => [{ x: set.mean[0], y: set.mean[1], move: (a, b) => { set.mean = [a, b]; rewind(); } }],
    draw(g) {
      const { c, colours } = g;
      for (const [share, alpha] of [[0.05, 0.1], [0.2, 0.12], [0.5, 0.14], [0.8, 0.18]]) { // level sets of p(z|x) are rings
        const level = (r) => Math.exp(-potential(r, 0)[0] + low), radii = radial.filter((r) => level(r) >= share);
        c.beginPath();
        for (const [r, way] of [[radii.at(-1), false], [radii[0], true]]) c.ellipse(g.x(0), g.y(0), g.x(r) - g.x(0), g.y(0) - g.y(r), 0, way ? 7 : 0, way ? 0.7168146928 : 7, way);
        Object.assign(c, { fillStyle: colours.blue, globalAlpha: alpha });
        c.fill("evenodd");
        c.globalAlpha = 1;
      }
      c.globalAlpha = 0.75;
      const inside = (v) => Math.abs(v) < 50 * limit;
      for (let i = 0; i < N; i++) {
        const [a, b] = paths.subarray(2 * (set.k * N + i), 2 * (set.k * N + i) + 2);
        if (inside(a) && inside(b)) g.dot(a, b, 2.2, colours.orange);
      }
      c.globalAlpha = 0.8;
      for (let i = 0; i < 6; i++) {
        const at = (k, d) => { const v = paths[2 * (k * N + i) + d]; return inside(v) ? v : NaN; };
        const steps = Array.from({ length: set.k + 1 }, (_, k) => k).filter((k) => Number.isFinite(at(k, 0) + at(k, 1)));
        g.line(steps.map((k) => at(k, 0)), steps.map((k) => at(k, 1)), colours.muted, { width: 1 });
      }
      c.globalAlpha = 1;
      g.ellipse(...set.mean, set.width, set.width, colours.ink, { width: 1.5, dash: [4, 4] });
      g.dot(...set.mean, 6, colours.ink, colours.paper);
    },
  });
  const radial = Array.from({ length: 600 }, (_, k) => (k + 1) / 150), low = Math.min(...radial.map((r) => potential(r, 0)[0]));
  const top = () => 1.25 * Math.max(without, Math.min(...gaps.filter(Number.isFinite), 2 * without));
  const curve = plot(host, {
    label: "The gap of the bound against the step size", x: [0, reach], y: () => [0, top()], xlabel: "step size ε", ylabel: "gap, nats", ratio: 1.2,
    handles: () => [{ x: set.step, y: 0, move: (a) => { set.step = Math.max(0.01, a); step.value = set.step; rewind(); } }],
    draw(g) {
      g.line([cliff, cliff], [0, 9], g.colours.muted, { width: 1.5, dash: [5, 4] });
      g.text("stability limit", g.x(cliff) - 6, g.box.bottom - 12, { colour: g.colours.muted, align: "right" });
      g.line([0, 9], [without, without], g.colours.green, { width: 1.5, dash: [2, 3] });
      g.text("the start alone", g.x(0) + 6, g.y(without) - 10, { colour: g.colours.green });
      g.line(grid, gaps, g.colours.blue, { width: 2.5 });
      g.c.lineWidth = 2;
      const gap = evidence - found.bound, y = gap > top() || !Number.isFinite(gap) ? top() : gap;
      if (y === top()) g.text("off the scale ▲", g.x(set.step) + 10, g.box.top + 30, { colour: g.colours.orange, bold: true });
      g.dot(set.step, y, 7, g.colours.orange, g.colours.paper);
    },
  });
  const told = status(), shown = numbers("log p(x), exact", "bound", "gap", "gap of the start alone", "energy error of a step, at most", "left the picture");
  const show = () => {
    let left = 0;
    for (let i = 0; i < N; i++) if (!(Math.hypot(...paths.subarray(2 * (set.k * N + i), 2 * (set.k * N + i) + 2)) < limit)) left += 1;
    const gap = evidence - found.bound, wild = !Number.isFinite(found.bound) || found.error > 100;
    const big = (v) => (Number.isFinite(v) ? (Math.abs(v) < 1e4 ? n(v) : v.toExponential(1).replace("-", "−")) : "diverged");
    shown.show(n(evidence), big(found.bound), big(gap), big(without), big(found.error), `${left} of ${N}`);
    told.say(wild
      ? `The flow has diverged: at ε = ${n(set.step)} a single step changes the energy by ${big(found.error)} nats, and the bound is worthless.`
      : `${set.K} steps of ε = ${n(set.step)}, cooled to √β₀ = ${n(set.root)}, leave a gap of ${n(gap)} ± ${n(found.spread)} nats. Shown after step ${set.k}.`);
    k.value = set.k;
    [plane, curve].forEach((each) => each.paint());
    host.state = { ...set, ...found, without, weights: [...found.weights], gap, left, wild };
  };
  let playing = 0;
  const redo = soon(compute), rewind = () => { playing += 1; set.k = set.K; redo(); };
  const play = () => {
    const mine = ++playing;
    let k = matchMedia("(prefers-reduced-motion: reduce)").matches ? set.K : 0;
    const go = () => {
      if (mine !== playing) return;
      set.k = k;
      show();
      if (k++ < set.K) setTimeout(go, 1400 / (set.K + 4));
    };
    go();
  };
  const root = slider({ label: "temperature √β₀", min: 0.2, max: 1, value: set.root, on: (v) => { set.root = v; rewind(); } });
  const step = slider({ label: "step size ε", min: 0.01, max: reach, value: set.step, text: n, on: (v) => { set.step = v; rewind(); } });
  const steps = slider({ label: "steps K", min: 1, max: 30, step: 1, value: set.K, text: String, on: (v) => { set.K = v; k.input.max = v; rewind(); } });
  const width = slider({ label: "width of the start", min: 0.05, max: 1.5, value: set.width, on: (v) => { set.width = v; rewind(); } });
  const k = slider({ label: "shown after step k", min: 0, max: set.K, step: 1, value: set.k, text: String, on: (v) => { playing += 1; set.k = v; show(); } });
  const move = [0, 1].map((d) => slider({ label: `start z${"₁₂"[d]}`, min: -limit, max: limit, value: set.mean[d], on: (v) => { set.mean = set.mean.map((old, i) => (i === d ? v : old)); rewind(); } }));
  host.box.append(
    row(panel("Drag the start (dashed circle)", plane.element), panel("Drag the step size", curve.element)),
    controls(step.element, steps.element, root.element, width.element, ...move.map((m) => m.element), k.element),
    buttons(button("▶ Play the steps", play), button("As at the beginning", () => { Object.assign(set, start, { k: start.K }); k.input.max = set.K; [[step, "step"], [steps, "K"], [root, "root"], [width, "width"]].forEach(([s, name]) => { s.value = set[name]; }); move.forEach((m, d) => { m.value = set.mean[d]; }); rewind(); })),
    shown.element, told.element,
  );
  compute();
});
