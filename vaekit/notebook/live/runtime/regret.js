// Draw anything: what a model makes of it, how unlikely it is, and how much its bound gains when q is fitted to it alone.
vaekitLive.kind("regret", (host, { model: described, examples, noise: packed, lr, every, sets, world }) => {
  const { plot, picture, board, thumbnails, slider, number, row, panel, controls, buttons, button, check, numbers, status, breather, soon } = { ...vaekitLive.parts, ...vaekitLive.pictures, ...vaekitLive.plots };
  const { array } = vaekitLive.engine, { vae, climb, logMeanExp } = vaekitLive.vae, n = number(1), percent = (v) => `${Math.round(100 * v)} %`;
  const model = vae(described), noise = Object.fromEntries(Object.entries(packed).map(([key, value]) => [key, array(value)]));
  for (const each of examples) each.pixels = array(each.image);
  const steps = noise.climb.length / model.D, names = Object.keys(sets), sorted = {};
  for (const name of names) sorted[name] = { regret: [...sets[name].regret].sort((a, b) => a - b), nll: [...sets[name].nll].sort((a, b) => a - b) };
  const share = (values, above) => values.filter((v) => v > above).length / values.length;
  const quantile = (values, q) => values[Math.min(values.length - 1, Math.floor(q * values.length))];
  const far = (score) => Math.max(...names.map((name) => quantile(sorted[name][score], 0.985)));
  const near = (score) => Math.min(...names.map((name) => sorted[name][score][0]));
  let threshold = quantile(sorted[world].regret, 0.95), found = { curve: [] }, runs = 0;

  const drawing = board(host, { label: "Your drawing", shape: model.shape, on: () => changed() });
  const seen = picture(host, { label: "What the model makes of it", shape: model.shape, width: 220 });
  const curve = plot(host, {
    label: "The bound climbing while q is fitted", ratio: 1.15, x: [0, steps], xlabel: "step of Adam", ylabel: "ELBO, nats",
    y: () => { const v = found.curve.map((p) => p[1]); if (!v.length) return [-1, 0]; const [a, b] = [Math.min(...v), Math.max(...v)]; return [a - 0.12 * (b - a) - 1, b + 0.12 * (b - a) + 1]; },
    draw(g) {
      if (!found.curve.length) return;
      const [first, last] = [found.curve[0], found.curve.at(-1)];
      g.line([0, steps], [first[1], first[1]], g.colours.muted, { width: 1.5, dash: [4, 4] });
      g.line(found.curve.map((p) => p[0]), found.curve.map((p) => p[1]), g.colours.orange, { width: 2.5 });
      g.dot(...last, 5, g.colours.orange);
      g.line([last[0], last[0]], [first[1], last[1]], g.colours.ink, { width: 1.5 });
      g.text(`regret ${n(last[1] - first[1])}`, g.x(last[0]) - 7, (g.y(first[1]) + g.y(last[1])) / 2, { align: "right", bold: true });
    },
  });
  const histogram = (score, title, line) => plot(host, {
    label: `Histograms of ${title}`, ratio: 2, xlabel: `${title}, nats`, x: () => { const [a, b] = [near(score), Math.max(far(score), 1.03 * (found[score] ?? 0))]; return [a - 0.02 * (b - a), b + 0.02 * (b - a)]; }, y: [0, 1.25], yticks: false,
    handles: line && (() => [{ x: threshold, y: 0, move: (v) => { threshold = v; bar.value = v; tell(); } }]),
    draw(g) {
      const [low, high] = [g.atX(g.box.left), g.atX(g.box.right)], bins = Math.min(36, 10 + Math.floor(sets[world][score].length / 8)), palette = [g.colours.blue, g.colours.orange, g.colours.green, g.colours.purple];
      names.forEach((name, s) => {
        const counts = new Array(bins).fill(0);
        for (const v of sets[name][score]) counts[Math.max(0, Math.min(bins - 1, Math.floor(((v - low) / (high - low)) * bins)))] += 1;
        const top = Math.max(...counts), xs = [], ys = [];
        counts.forEach((count, b) => { xs.push(low + (b * (high - low)) / bins, low + ((b + 1) * (high - low)) / bins); ys.push(count / top, count / top); });
        g.line([xs[0], ...xs, xs.at(-1)], [0, ...ys, 0], palette[s], { width: 2, dash: s ? [6, 3] : [] });
        g.text(`${s ? "╌╌" : "──"} ${name}`, g.box.right - 8, g.box.top + 12 + 17 * s, { colour: palette[s], align: "right", bold: true });
      });
      if (line) {
        g.line([threshold, threshold], [0, 2], g.colours.ink, { width: 1.5, dash: [3, 3] });
        g.text("alarm ▸", g.x(threshold) - 5, g.y(0.12), { align: "right" });
      }
      if (Number.isFinite(found[score])) {
        g.line([found[score], found[score]], [0, 1.06], g.colours.ink, { width: 3 });
        g.text("yours", Math.max(g.box.left + 22, Math.min(g.box.right - 22, g.x(found[score]))), g.y(1.14), { align: "center", bold: true });
      }
    },
  });
  const nll = histogram("nll", "negative log-likelihood", false), regret = histogram("regret", "likelihood regret", true);
  const shown = numbers("NLL, nats", "regret, nats", "false alarms", ...names.filter((name) => name !== world).map((name) => `caught: ${name}`)), told = status();
  const bar = slider({ label: "alarm above a regret of", min: 0, max: far("regret"), value: threshold, text: n, on: (v) => { threshold = v; tell(); } });

  const tell = () => {
    const has = Number.isFinite(found.regret);
    shown.show(has ? n(found.nll) : "…", has ? n(found.regret) : "…", percent(share(sets[world].regret, threshold)), ...names.filter((name) => name !== world).map((name) => percent(share(sets[name].regret, threshold))));
    [curve, nll, regret].forEach((each) => each.paint());
    if (has) told.say(`NLL ${n(found.nll)} nats: more likely than ${percent(share(sets[world].nll, found.nll))} of ${world}. Regret ${n(found.regret)} nats: higher than ${percent(1 - share(sets[world].regret, found.regret))} of ${world}, ${found.regret > threshold ? "above the threshold: alarm" : "below the threshold: no alarm"}.`);
    host.state = { ...found, threshold, running: !has, pixels: [...drawing.pixels] };
  };
  /** Everything about what is on the board; a newer drawing stops it. */
  const score = async () => {
    const mine = ++runs, rest = breather(), x = drawing.pixels.slice(), begun = performance.now();
    found = { curve: [] };
    tell();
    const before = model.posterior(x), start = model.elbo(x, before, noise.score);
    const likely = -logMeanExp(model.logWeights(x, before, noise.nll)), points = [[0, start]];
    let q = before, k = 0;
    for (q of climb(model, x, before, noise.climb, lr)) {
      k += 1;
      if (k % every === 0 || k === steps) points.push([k, model.elbo(x, q, noise.score)]);
      await rest();
      if (mine !== runs) return;
      if (k % every === 0) { found = { curve: points }; curve.paint(); }
    }
    found = { curve: points, nll: likely, regret: points.at(-1)[1] - start, before: start, took: performance.now() - begun };
    tell();
  };
  let pause;
  const changed = soon(() => {
    runs += 1;
    seen.show(model.decode(model.posterior(drawing.pixels).mean));
    clearTimeout(pause);
    pause = setTimeout(score, 120);
  });
  host.box.append(
    thumbnails(host, { label: "Begin with", images: examples.map((e) => e.pixels), names: examples.map((e) => e.name), shape: model.shape, on: (k) => drawing.set(examples[k].pixels) }).element,
    row(panel("Draw here", drawing.element), panel("What the model makes of it", seen.element), panel("Fitting q to this picture alone", curve.element)),
    buttons(button("Clear", () => drawing.set(new Float64Array(drawing.pixels.length))), check("eraser", false, (on) => drawing.erase(on)).element),
    row(panel("How unlikely?", nll.element), panel("How much regret? Drag the threshold", regret.element)),
    controls(bar.element), shown.element, told.element,
  );
  drawing.set(examples[0].pixels);
});
