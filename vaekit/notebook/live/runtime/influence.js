// Influence by hand: training points and a test point to drag, and four densities in which leaving a point out is exact.
vaekitLive.kind("influence", (host, { points: given, test, bandwidth, k, components, window: frame }) => {
  const { make, plot, slider, choice, number, row, panel, controls, buttons, button, numbers, status, soon, check } = { ...vaekitLive.parts, ...vaekitLive.plots };
  const { densities } = vaekitLive, n = number(3);
  let points = given.map((p) => [...p]), z = [...test], kind = 0, cloud, found, note = "", moved = -1;
  const set = { bandwidth, k, components };
  const kinds = [["k nearest neighbours", () => densities.knn(Math.min(set.k, points.length - 2))], ["KDE", () => densities.kde(set.bandwidth)], ["Gaussian", () => densities.gaussian()], ["mixture", () => densities.mixture(set.components)]];
  const [[x0, x1], [y0, y1]] = frame, side = 48;
  const heat = make("canvas", { width: side, height: side });
  const view = plot(host, {
    label: "Training points, coloured and sized by their influence on the test point", x: frame[0], y: frame[1], ratio: (x1 - x0) / (y1 - y0), maximum: 560, grid: false, anywhere: false,
    handles: () => [{ x: z[0], y: z[1], move: (a, b) => { z = [a, b]; changed(); } }, ...points.map((p, i) => ({ x: p[0], y: p[1], move: (a, b) => { points[i] = [a, b]; moved = i; changed(); } }))],
    draw(g) {
      if (!found) return;
      g.c.drawImage(heat, g.x(x0), g.y(y1), g.x(x1) - g.x(x0), g.y(y0) - g.y(y1));
      const top = Math.max(...found.influence.map(Math.abs), 1e-9);
      g.c.lineWidth = 1.2;
      points.forEach(([a, b], i) => {
        const v = found.influence[i];
        g.c.globalAlpha = 0.3 + 0.7 * Math.min(1, Math.abs(v) / top);
        g.dot(a, b, 4 + 8 * Math.sqrt(Math.abs(v) / top), v > 0 ? g.colours.blue : g.colours.orange);
        g.c.globalAlpha = 1;
        g.dot(a, b, 4 + 8 * Math.sqrt(Math.abs(v) / top), null, g.colours.ink);
      });
      const [px, py] = [g.x(z[0]), g.y(z[1])];
      g.c.beginPath();
      for (let t = 0; t < 10; t++) { const r = t % 2 ? 5.5 : 13, a = -Math.PI / 2 + (t * Math.PI) / 5; g.c.lineTo(px + r * Math.cos(a), py + r * Math.sin(a)); }
      g.c.closePath();
      Object.assign(g.c, { fillStyle: g.colours.ink, strokeStyle: g.colours.paper, lineWidth: 2 });
      g.c.stroke();
      g.c.fill();
    },
  });
  const paintHeat = () => {
    if (!cloud) return;
    const context = heat.getContext("2d"), image = context.createImageData(side, side), top = Math.max(...cloud.filter(Number.isFinite));
    const green = [1, 3, 5].map((c) => parseInt(host.colours.green.slice(c, c + 2), 16));
    cloud.forEach((v, i) => image.data.set([...green, 120 * Math.exp(Math.min(0, v - top))], 4 * i));
    context.putImageData(image, 0, 0);
  };
  host.repaint.add(paintHeat);
  const shown = numbers("log p(test point)", "strongest proponent", "strongest opponent", "training points"), told = status();
  const compute = () => {
    const model = kinds[kind][1]();
    found = densities.influence(model, points, z);
    const logP = model.fit(points, model.whole?.(points));
    cloud = Array.from({ length: side * side }, (_, i) => logP([x0 + ((i % side) + 0.5) * ((x1 - x0) / side), y1 - (Math.floor(i / side) + 0.5) * ((y1 - y0) / side)]));
    paintHeat();
    view.paint();
    const [most, least] = [Math.max(...found.influence), Math.min(...found.influence)], best = found.influence.indexOf(most);
    shown.show(n(found.logP), `${n(most)} nats`, `${n(least)} nats`, points.length);
    told.say(`${note}${kinds[kind][0]}: log p at the star is ${n(found.logP)}. Without its strongest proponent, at (${number(1)(points[best][0])}, ${number(1)(points[best][1])}), it would be ${n(found.logP - most)}. ${found.influence.filter((v) => v > 0).length} of ${points.length} points are proponents.`);
    where.forEach((s, d) => { s.value = z[d]; });
    host.state = { z, points, kind: kinds[kind][0], ...found };
  };
  const update = soon(compute), changed = () => { note = ""; update(); };
  const names = choice("Density", kinds.map(([name]) => name), 0, (index) => { kind = index; tune(); changed(); });
  const where = [0, 1].map((d) => slider({ label: `test point, ${["across", "up"][d]}`, min: frame[d][0], max: frame[d][1], value: z[d], on: (v) => { z[d] = v; changed(); } }));
  const tuners = [
    slider({ label: "k", min: 1, max: 12, step: 1, value: k, text: String, on: (v) => { set.k = v; changed(); } }),
    slider({ label: "bandwidth h", min: 0.1, max: 1.5, value: bandwidth, on: (v) => { set.bandwidth = v; changed(); } }), null,
    slider({ label: "components K", min: 1, max: 4, step: 1, value: components, text: String, on: (v) => { set.components = v; changed(); } }),
  ];
  const tune = () => tuners.forEach((s, i) => { if (s) s.element.style.display = i === kind ? "" : "none"; });
  const leaveOut = () => {
    if (points.length <= 8) return;
    const before = found.logP, best = found.influence.indexOf(Math.max(...found.influence)), claimed = found.influence[best];
    points = points.filter((_, i) => i !== best);
    compute();
    note = `Left out: log p fell by ${n(before - found.logP)} nats, its influence had been ${n(claimed)}. `;
    compute();
    note = "";
  };
  host.box.append(
    names.element, row(panel("Drag the star and the points; blue: proponents, orange: opponents", view.element), make("div", {},
    controls(...where.map((s) => s.element), ...tuners.filter(Boolean).map((s) => s.element)),
    buttons(button("Leave out the strongest proponent", leaveOut), button("All points back", () => { points = given.map((p) => [...p]); z = [...test]; changed(); })),
    shown.element, told.element)),
  );
  tune();
  compute();
});
