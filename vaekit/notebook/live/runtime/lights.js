// Place lights, add haze, throw strangers in: what eight models that differ by three switches make of the picture.
vaekitLive.kind("lights", (host, { models, switches, size, start, thresholds, noise: packed, lr, shown: many, digits }) => {
  const { make, plot, picture, slider, select, check, number, row, panel, controls, buttons, status, soon, breather } = { ...vaekitLive.parts, ...vaekitLive.pictures, ...vaekitLive.plots };
  const { array } = vaekitLive.engine, { vae, climb, logMeanExp } = vaekitLive.vae, n = number(1);
  const all = models.map(({ on, model }) => { let made; return { on, get model() { return (made ??= vae(model)); } }; }), noise = Object.fromEntries(Object.entries(packed).map(([key, v]) => [key, array(v)]));
  const [coin, survival] = thresholds.map(array), strangers = digits.map((d) => array(d));
  const at = start.map((p) => [...p]), lit = [true, true, true, false], on = switches.map(() => false);
  let haze = 1, scene = "lights", x, clear, chosen = 0, table = [], runs = 0;
  const current = () => all.findIndex((m) => m.on.every((v, k) => v === on[k]));
  const draw = () => {
    const centres = at.filter((_, k) => lit[k]).flat();
    const grey = scene === "lights" ? (centres.length ? vaekitLive.scene.dots(centres, size) : new Float64Array(size * size)) : strangers[+scene];
    clear = grey.map((v, p) => (coin[p] < v ? 1 : 0));
    x = clear.map((v, p) => (v && survival[p] < haze ? 1 : 0));
  };
  const background = picture(host, { label: "", shape: [1, size, size], night: true });
  const view = plot(host, {
    label: "The picture with its lights", x: [0, 63], y: [-63, 0], xticks: false, yticks: false, grid: false, maximum: 260, anywhere: false,
    handles: () => (scene === "lights" ? at.map((p, k) => ({ x: p[0], y: -p[1], move: (a, b) => { at[k] = [a, -b]; pick(k); changed(); } })).filter((_, k) => lit[k]) : []),
    draw(g) {
      g.c.imageSmoothingEnabled = false;
      g.c.drawImage(background.element, g.x(0), g.y(0), g.x(63) - g.x(0), g.y(-63) - g.y(0));
      g.c.lineWidth = 2;
      if (scene === "lights") at.forEach(([a, b], k) => lit[k] && g.dot(a, -b, 10, null, k === chosen ? g.colours.orange : g.colours.blue));
    },
  });
  const drawn = picture(host, { label: "Reconstruction", shape: [1, size, size], width: 200, night: true });
  const columns = Array.from({ length: many }, () => ({ view: picture(host, { label: "Column", shape: [1, size, size], width: 72, signed: true }), words: make("figcaption") }));
  const body = make("tbody"), told = status();
  const heads = [...switches.map(([letter]) => letter), "NLL", "regret", "KL, hazy ‖ clear", "L1 of columns"];
  const cell = "text-align:right;padding:3px 12px;font-variant-numeric:tabular-nums;border-bottom:1px solid var(--line)";
  const sheet = make("table", { attributes: { style: "border-collapse:collapse;font-size:14px" } }, make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { textContent: text, scope: "col", attributes: { style: cell } })))), body);
  const rows = all.map(({ on: which }) => {
    const cells = heads.map((_, k) => make(k < switches.length ? "th" : "td", { textContent: k < switches.length ? (which[k] ? "on" : "–") : "…", attributes: { style: `${cell};font-weight:400` } }));
    const element = make("tr", {}, ...cells);
    body.append(element);
    return { element, cells };
  });
  const measure = async () => {
    const mine = ++runs, rest = breather(), begun = performance.now();
    table = [];
    for (let m = 0; m < all.length; m++) {
      const { model } = all[m], q = model.posterior(x), plain = model.posterior(clear);
      const nll = -logMeanExp(model.logWeights(x, q, noise.nll)), before = model.elbo(x, q, noise.score);
      let end = q;
      for (end of climb(model, x, q, noise.climb, lr)) { await rest(); if (mine !== runs) return; }
      const kl = q.mean.reduce((s, v, d) => { const ratio = Math.exp(2 * (q.logStd[d] - plain.logStd[d])); return s + (ratio - 1 - Math.log(ratio) + (v - plain.mean[d]) ** 2 / Math.exp(2 * plain.logStd[d])) / 2; }, 0);
      const l1 = model.jacobian(q.mean).columns.reduce((s, v) => s + Math.abs(v), 0);
      table.push({ nll, regret: model.elbo(x, end, noise.score) - before, kl, l1 });
      Object.values(table[m]).forEach((v, k) => { rows[m].cells[switches.length + k].textContent = n(v); });
      if (m === current()) say();
    }
    host.state = { ...host.state, table, took: performance.now() - begun };
    say();
  };
  const say = () => {
    const found = table[current()], name = switches.filter((_, k) => on[k]).map(([, long]) => long).join(", ") || "the plain ELBO";
    told.say(found ? `Trained with ${name}: NLL ${n(found.nll)} nats, regret ${n(found.regret)} nats, ${n(found.kl)} nats between the picture and the same without haze.` : `Trained with ${name}: computing.`);
  };
  const show = () => {
    draw();
    const m = current(), { model } = all[m], z = model.posterior(x).mean, { picture: mean, columns: J } = model.jacobian(z), P = size * size;
    background.show(x);
    view.paint();
    drawn.show(mean);
    const order = Array.from({ length: model.D }, (_, d) => ({ column: J.subarray(d * P, (d + 1) * P), d })).map((c) => ({ ...c, l1: c.column.reduce((s, v) => s + Math.abs(v), 0) })).sort((a, b) => b.l1 - a.l1);
    columns.forEach(({ view: shown, words }, k) => { shown.show(order[k].column, `Column of latent ${order[k].d + 1}, L1 norm ${n(order[k].l1)}`); words.textContent = n(order[k].l1); });
    rows.forEach(({ element }, k) => { element.style.background = k === m ? "var(--surface)" : ""; element.style.outline = k === m ? "2px solid var(--blue)" : ""; });
    host.state = { x: [...x], clear: [...clear], model: m, z: [...z], table };
    say();
  };
  let pause;
  const changed = () => { update(); runs += 1; table = []; clearTimeout(pause); pause = setTimeout(measure, 150); };
  const update = soon(show);
  const across = ["across", "down"].map((label, d) => slider({ label: `light, ${label}`, min: 0, max: 63, value: at[0][d], text: number(0), on: (v) => { at[chosen][d] = v; changed(); } }));
  const which = select("Light", at.map((_, k) => [k, ["left", "middle", "right", "a fourth"][k]]), 0, (k) => pick(+k));
  const pick = (k) => { chosen = k; which.input.value = k; across.forEach((s, d) => { s.value = at[k][d]; }); update(); };
  const lamps = at.map((_, k) => check(["left", "middle", "right", "a fourth"][k], lit[k], (v) => { lit[k] = v; changed(); }));
  const scenes = select("Picture", [["lights", "lights"], ...digits.map((_, k) => [String(k), `a digit that slipped in, ${k + 1}`])], "lights", (v) => { scene = v; changed(); });
  const toggles = switches.map(([, long], k) => check(long, false, (v) => { on[k] = v; update(); }));
  const veil = slider({ label: "pixels that survive the haze", min: 0.3, max: 1, value: 1, text: (v) => `${Math.round(100 * v)} %`, on: (v) => { haze = v; changed(); } });
  host.box.append(
    buttons(make("span", { className: "label", textContent: "Trained with" }), ...toggles.map((t) => t.element)),
    row(panel("Drag the lights", view.element), panel("What the model makes of it", drawn.element),
      panel("Strongest Jacobian columns", make("div", { className: "strip" }, ...columns.map((c) => make("figure", {}, c.view.element, c.words))))),
    buttons(make("span", { className: "label", textContent: "Lit" }), ...lamps.map((l) => l.element)),
    controls(scenes.element, veil.element, which.element, ...across.map((s) => s.element)),
    make("div", { attributes: { style: "overflow-x:auto;margin-top:12px", tabindex: "0", role: "region", "aria-label": "All models on this picture" } }, make("p", { className: "heading", textContent: "All models on this picture, in nats (L1: pixel units)" }), sheet), told.element,
  );
  show();
  measure();
});
