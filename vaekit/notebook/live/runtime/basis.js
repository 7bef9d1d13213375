// Turn the basis of two latents and watch both norms of their columns; no model, the dots are drawn exactly.
vaekitLive.kind("basis", (host, { size, radius, soft, start }) => {
  const { make, plot, picture, slider, select, number, row, panel, controls, buttons, button, numbers, status, soon } = { ...vaekitLive.parts, ...vaekitLive.pictures, ...vaekitLive.plots };
  const { discs, discSlopes } = vaekitLive.scene, n = number(2);
  let dots = start.map((d) => [...d]), angle = 0.5, pair = "sideways", turning = 0;
  const range = Array.from({ length: 91 }, (_, k) => (k * Math.PI) / 180), degrees = range.map((a) => (a * 180) / Math.PI);
  const background = picture(host, { label: "", shape: [1, size, size] });
  const view = plot(host, {
    label: "Two dots", x: [0, size], y: [-size, 0], xticks: false, yticks: false, grid: false, maximum: 260,
    handles: () => dots.map(([x, y], k) => ({ x, y: -y, move: (a, b) => { dots[k] = [a, -b]; moved(); } })),
    draw(g) {
      g.c.imageSmoothingEnabled = false;
      g.c.drawImage(background.element, g.x(0), g.y(0), g.x(size) - g.x(0), g.y(-size) - g.y(0));
      g.c.lineWidth = 2;
      dots.forEach(([x, y], k) => g.dot(x, -y, 5, g.colours.paper, k ? g.colours.blue : g.colours.orange));
    },
  });
  const columns = [0, 1].map((k) => picture(host, { label: `Column ${k + 1}`, shape: [1, size, size], width: 135, signed: true }));
  let straight, l1s, l2s;
  const turn = (a) => [straight[0].map((v, p) => Math.cos(a) * v + Math.sin(a) * straight[1][p]), straight[1].map((v, p) => Math.cos(a) * v - Math.sin(a) * straight[0][p])];
  const norms = (a) => { const [c, s] = [Math.cos(a), Math.sin(a)]; let l1 = 0, l2 = 0; for (let p = 0; p < straight[0].length; p++) { const [u, v] = [straight[0][p], straight[1][p]], [x, y] = [c * u + s * v, c * v - s * u]; l1 += Math.abs(x) + Math.abs(y); l2 += x * x + y * y; } return [l1, l2]; };
  const curve = plot(host, {
    label: "Both norms against the angle", x: [0, 90], y: () => [0.85, 1.5], xlabel: "angle, degrees", ylabel: "norm, relative to 0°", ratio: 1.15,
    handles: () => [{ x: degrees0(), y: 1, move: (a) => { turning += 1; angle = (a * Math.PI) / 180; update(); } }],
    draw(g) {
      g.line(degrees, l2s.map((v) => v / l2s[0]), g.colours.blue, { width: 2, dash: [6, 4] });
      g.line(degrees, l1s.map((v) => v / l1s[0]), g.colours.orange, { width: 2.5 });
      const [l1, l2] = norms(angle);
      g.c.lineWidth = 2;
      g.dot(degrees0(), l2 / l2s[0], 5, g.colours.blue, g.colours.paper);
      g.dot(degrees0(), l1 / l1s[0], 7, g.colours.orange, g.colours.paper);
      g.text("── L1", g.box.right - 8, g.box.top + 14, { colour: g.colours.orange, align: "right", bold: true });
      g.text("╌╌ sum of squares", g.box.right - 8, g.box.top + 32, { colour: g.colours.blue, align: "right", bold: true });
    },
  });
  const degrees0 = () => (angle * 180) / Math.PI;
  const shown = numbers("L1 norm", "sum of squares", "least L1 at"), told = status();
  const show = () => {
    const [l1, l2] = norms(angle), least = l1s.indexOf(Math.min(...l1s)), spread = Math.max(...l1s) / Math.min(...l1s) - 1;
    turn(angle).forEach((column, k) => columns[k].show(column, `Column ${k + 1}: what changes when latent ${k + 1} moves`, 1 / soft));
    bar.value = degrees0();
    curve.paint();
    shown.show(n(l1), n(l2), spread < 0.02 ? "no angle" : `${least}°`);
    told.say(`Turned by ${number(0)(degrees0())} degrees: L1 is ${n(l1 / Math.min(...l1s))} times its least value, the sum of squares stays at ${n(l2 / l2s[0])}. ${spread < 0.02 ? "L1 hardly depends on the angle: it cannot choose a basis here." : "L1 has a preferred basis here."}`);
    host.state = { angle, l1, l2, l1s: [...l1s], l2s: [...l2s], dots, pair };
  };
  const prepare = () => {
    const slopes = dots.map((_, k) => discSlopes(dots, k, radius, size, soft));
    straight = { sideways: [slopes[0][0], slopes[1][0]], one: slopes[0], crossed: [slopes[0][0], slopes[1][1]] }[pair];
    [l1s, l2s] = [0, 1].map((d) => range.map((a) => norms(a)[d]));
    background.show(discs(dots, radius, size, soft));
    view.paint();
    show();
  };
  const descend = () => {
    const mine = ++turning, start0 = angle;
    let steps = 0;
    const go = () => {
      if (mine !== turning || steps++ > 200) return;
      const slope = (norms(angle + 1e-3)[0] - norms(angle - 1e-3)[0]) / 2e-3 / l1s[0];
      angle = Math.max(0, Math.min(Math.PI / 2, angle - 0.06 * Math.max(-1, Math.min(1, slope))));
      show();
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) go();
      else requestAnimationFrame(go);
    };
    if (Number.isFinite(start0)) go();
  };
  const update = soon(show), moved = soon(prepare);
  const bar = slider({ label: "angle between the latents and the dots", min: 0, max: 90, value: degrees0(), text: (v) => `${number(0)(v)}°`, on: (v) => { turning += 1; angle = (v * Math.PI) / 180; update(); } });
  const which = select("The two latents move", [["sideways", "each dot sideways"], ["crossed", "one dot sideways, the other down"], ["one", "the orange dot, sideways and down"]], pair, (v) => { pair = v; prepare(); });
  const gap = slider({ label: "distance between the dots", min: 0, max: size / 2, value: 0, text: number(1), on: (v) => { const [x, y] = [(dots[0][0] + dots[1][0]) / 2, (dots[0][1] + dots[1][1]) / 2]; dots = [[x - v / 2, y], [x + v / 2, y]]; moved(); } });
  gap.value = Math.hypot(dots[0][0] - dots[1][0], dots[0][1] - dots[1][1]);
  host.box.append(
    row(panel("Drag the dots", view.element), make("div", { className: "narrow" }, ...columns.map((c, k) => panel(`Latent ${k + 1}'s column`, c.element))), panel("Drag the angle", curve.element)),
    controls(which.element, bar.element, gap.element), buttons(button("Descend L1", descend)), shown.element, told.element,
  );
  prepare();
});
