// Drag three dots: each model's Jacobian columns at the code of the picture, with their norms.
vaekitLive.kind("columns", (host, { models, size, start, shown: many }) => {
  const { make, plot, picture, slider, select, number, row, panel, controls, numbers, status, soon } = { ...vaekitLive.parts, ...vaekitLive.pictures, ...vaekitLive.plots };
  const { dots } = vaekitLive.scene, n = number(1), at = [...start];
  const all = models.map(({ name, model: described }) => ({ name, model: vaekitLive.vae.vae(described) }));
  let chosen = 0;
  const background = picture(host, { label: "", shape: [1, size, size] });
  const view = plot(host, {
    label: "The picture with its three dots", x: [0, 63], y: [-63, 0], xticks: false, yticks: false, grid: false, maximum: 300,
    handles: () => [0, 1, 2].map((k) => ({ x: at[2 * k], y: -at[2 * k + 1], move: (x, y) => { choose(k); [at[2 * k], at[2 * k + 1]] = [x, -y]; place(); } })),
    draw(g) {
      g.c.imageSmoothingEnabled = false;
      g.c.drawImage(background.element, g.x(0), g.y(0), g.x(63) - g.x(0), g.y(-63) - g.y(0));
      g.c.lineWidth = 2;
      [0, 1, 2].forEach((k) => g.dot(at[2 * k], -at[2 * k + 1], 11, null, k === chosen ? g.colours.orange : g.colours.blue));
    },
  });
  const rows = all.map(({ name }) => {
    const drawn = picture(host, { label: `${name}: reconstruction`, shape: [1, size, size], width: 86 });
    const columns = Array.from({ length: many }, (_, k) => ({ view: picture(host, { label: `${name}: column ${k + 1}`, shape: [1, size, size], width: 86, signed: true }), words: make("figcaption") }));
    const total = make("p", { className: "label" });
    const strip = make("div", { className: "strip" }, make("figure", {}, drawn.element, make("figcaption", { textContent: "drawn" })), ...columns.map((c) => make("figure", {}, c.view.element, c.words)));
    return { drawn, columns, total, element: make("div", {}, make("p", { className: "heading", textContent: name }), strip, total) };
  });
  const legend = make("p", { className: "label", textContent: "Below a column: its L1 norm, and how much of it lies at one dot." }), told = status();
  const sliders = ["across", "down"].map((label, d) => slider({ label: `dot, ${label}`, min: 0, max: 63, value: at[d], text: number(0), on: (v) => { at[2 * chosen + d] = v; place(); } }));
  const which = select("Dot", [[0, "first"], [1, "second"], [2, "third"]], 0, (k) => { choose(+k); place(); });
  const choose = (k) => { chosen = k; which.input.value = k; };
  const compute = () => {
    const ink = dots(at, size), x = ink.map((v) => 1 - v), P = size * size;
    background.show(ink);
    view.paint();
    const nearest = Array.from({ length: P }, (_, p) => [0, 1, 2].map((k) => Math.hypot((at[2 * k] * size) / 63 - (p % size) - 0.5, (at[2 * k + 1] * size) / 63 - Math.floor(p / size) - 0.5)).reduce((best, far, k, a) => (far < a[best] ? k : best), 0));
    const found = all.map(({ name, model }, m) => {
      const z = model.posterior(x).mean, { picture: mean, columns } = model.jacobian(z);
      const each = Array.from({ length: model.D }, (_, d) => {
        const column = columns.subarray(d * P, (d + 1) * P), parts = [0, 0, 0];
        let l1 = 0, l2 = 0;
        column.forEach((v, p) => { l1 += Math.abs(v); l2 += v * v; parts[nearest[p]] += Math.abs(v); });
        return { d, column, l1, l2, share: Math.max(...parts) / (l1 || 1) };
      }).sort((a, b) => b.l1 - a.l1);
      const total = each.reduce((s, c) => s + c.l1, 0), square = each.reduce((s, c) => s + c.l2, 0), share = each.reduce((s, c) => s + c.share * c.l1, 0) / (total || 1);
      rows[m].drawn.show(mean.map((v) => 1 - v));
      rows[m].columns.forEach(({ view: shown, words }, k) => {
        shown.show(each[k].column.map((v) => -v), `${name}, column of latent ${each[k].d + 1}: L1 norm ${n(each[k].l1)}, ${Math.round(100 * each[k].share)} per cent of it at one dot`);
        words.textContent = `${n(each[k].l1)} · ${Math.round(100 * each[k].share)} %`;
      });
      rows[m].total.textContent = `All ${model.D} columns: L1 ${n(total)}, sum of squares ${n(square)}; on average ${Math.round(100 * share)} % at one dot`;
      return { name, z: [...z], columns: [...columns], l1: total, l2: square, share };
    });
    told.say(found.map((f) => `${f.name}: L1 norm ${n(f.l1)}, of which ${Math.round(100 * f.share)} per cent lies at each column's own dot.`).join(" "));
    host.state = { at: [...at], models: found };
  };
  const update = soon(compute), place = () => { sliders.forEach((s, d) => { s.value = at[2 * chosen + d]; }); update(); };
  host.box.append(row(panel("Drag the dots", view.element), make("div", { className: "wide" }, ...rows.map((r) => r.element), legend)), controls(which.element, ...sliders.map((s) => s.element)), told.element);
  compute();
});
