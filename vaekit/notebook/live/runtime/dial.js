// A picture on a dial: where several encoders put it and its turned copy, and what the divergence between the two is made of.
vaekitLive.kind("dial", (host, { models, images, reach, limit, round, start }) => {
  const { make, plot, picture, thumbnails, slider, number, row, panel, controls, status, soon } = { ...vaekitLive.parts, ...vaekitLive.pictures, ...vaekitLive.plots };
  const n = number(2), shape = models[0].model.shape, [, h, w] = shape, names = models.map((m) => m.name);
  const all = models.map(({ model }) => vaekitLive.vae.vae(model)), cases = images.map((each) => ({ ...each, pixels: vaekitLive.engine.array(each.image) }));
  let angle = start, now = cases[0], chains;
  const grid = Array.from({ length: 61 }, (_, k) => -reach + (k * reach) / 30);
  const copy = (degrees) => { const t = vaekitLive.scene.turned(now.pixels, h, w, degrees); return round ? t.map((v) => (v > 0.5 ? 1 : 0)) : t; };
  /** KL(copy ‖ original), split: what moved means cost, and what changed widths cost. */
  const divergence = (tilde, q) => {
    let means = 0, widths = 0;
    q.mean.forEach((m, d) => {
      const ratio = Math.exp(2 * (tilde.logStd[d] - q.logStd[d]));
      means += (tilde.mean[d] - m) ** 2 / Math.exp(2 * q.logStd[d]) / 2;
      widths += (ratio - 1 - Math.log(ratio)) / 2;
    });
    return { means, widths, kl: means + widths };
  };
  const original = picture(host, { label: "The picture", shape, width: 120 }), turned = picture(host, { label: "The turned copy", shape, width: 120 });
  let found = [];
  const planes = all.map((_, m) => plot(host, {
    label: `${names[m]}: posteriors of the picture and of its copy`, x: [-limit, limit], y: [-limit, limit], maximum: 260,
    draw(g) {
      if (!found.length) return;
      const { q, tilde } = found[m], s = (p, d) => Math.exp(p.logStd[d]);
      g.c.globalAlpha = 0.8;
      g.line(chains[m].map((p) => p.mean[0]), chains[m].map((p) => p.mean[1]), g.colours.muted, { width: 1.5 });
      g.c.globalAlpha = 1;
      g.ellipse(...q.mean, s(q, 0), s(q, 1), g.colours.blue, { fill: 0.3 });
      g.ellipse(...tilde.mean, s(tilde, 0), s(tilde, 1), g.colours.orange, { fill: 0.3, dash: [4, 3] });
    },
  }));
  const words = all.map(() => make("p", { className: "label" }));
  const curve = plot(host, {
    label: "The divergence against the angle, one curve for each encoder", ratio: 1.5, x: [-reach, reach], y: () => [-1.5, Math.max(1, 0.2 + Math.log10(Math.max(...chains.flat().map((p) => p.kl), 1)))], xlabel: "angle, degrees", ylabel: "KL, nats",
    ytext: (v) => (Number.isInteger(v) ? String(10 ** v) : ""), handles: () => [{ x: angle, y: 0, move: (a) => { angle = a; update(); } }],
    draw(g) {
      const palette = [g.colours.blue, g.colours.orange, g.colours.green, g.colours.purple, g.colours.yellow], dashes = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 4]];
      g.line([angle, angle], [-9, 9], g.colours.ink, { width: 1, dash: [3, 3] });
      chains.forEach((chain, m) => {
        g.line(grid, chain.map((p) => Math.log10(Math.max(p.kl, 1e-6))), palette[m % 5], { dash: dashes[m % 5] });
        const value = Math.log10(Math.max(found[m].kl, 1e-6));
        g.dot(angle, value, 4.5, palette[m % 5]);
        g.line([-0.95 * reach, -0.82 * reach], [0, 0].map(() => g.atY(g.box.bottom - 12 - 17 * (chains.length - 1 - m))), palette[m % 5], { dash: dashes[m % 5] });
        g.text(names[m], g.x(-0.79 * reach), g.box.bottom - 12 - 17 * (chains.length - 1 - m), { colour: palette[m % 5] });
      });
    },
  });
  const told = status(), dial = slider({ label: "angle", min: -reach, max: reach, value: angle, text: (v) => `${number(0)(v)}°`, on: (v) => { angle = v; update(); } });
  const show = () => {
    const x = copy(angle);
    turned.show(x, `The copy, turned by ${number(0)(angle)} degrees`);
    found = all.map((model) => { const q = model.posterior(copy(0)), tilde = model.posterior(x); return { q, tilde, ...divergence(tilde, q) }; });
    found.forEach(({ kl, means, widths }, m) => { words[m].textContent = `KL ${n(kl)} = means ${n(means)} + widths ${n(widths)}`; });
    dial.value = angle;
    [...planes, curve].forEach((each) => each.paint());
    told.say(`Turned by ${number(0)(angle)} degrees. ${found.map(({ kl, means }, m) => `${names[m]}: ${n(kl)} nats, ${Math.round((100 * means) / (kl || 1))} per cent from moved means`).join("; ")}.`);
    host.state = { angle, models: found.map(({ kl, means, widths, q, tilde }) => ({ kl, means, widths, mean: [...q.mean], logStd: [...q.logStd], copyMean: [...tilde.mean], copyLogStd: [...tilde.logStd] })) };
  };
  const update = soon(show);
  const choose = (k) => {
    now = cases[k];
    const copies = grid.map(copy);
    chains = all.map((model) => { const q = model.posterior(copy(0)); return copies.map((x) => { const p = model.posterior(x); return { ...p, ...divergence(p, q) }; }); });
    original.show(now.pixels, `The picture: ${now.name}`);
    show();
  };
  host.box.append(
    thumbnails(host, { label: "Picture", images: cases.map((c) => c.pixels), names: cases.map((c) => c.name), shape, on: choose }).element,
    row(make("div", { className: "narrow" }, panel("the picture", original.element), panel("its copy", turned.element)), panel("Drag the angle", curve.element)),
    controls(dial.element), make("br"), row(...planes.map((p, m) => panel(names[m], p.element, words[m]))), told.element,
  );
  choose(0);
});
