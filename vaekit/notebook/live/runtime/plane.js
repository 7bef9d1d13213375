// The latent plane: drag the point and see the picture that the decoder draws there.
vaekitLive.kind("plane", (host, { model: described, codes, labels, names, limit, start }) => {
  const { plot, picture, slider, number, row, panel, controls, status } = { ...vaekitLive.parts, ...vaekitLive.pictures, ...vaekitLive.plots };
  const model = vaekitLive.vae.vae(described), z = Float64Array.from(start), points = vaekitLive.engine.array(codes);
  const view = plot(host, {
    label: "The latent plane with the codes of test images and the point that is decoded",
    x: [-limit, limit], y: [-limit, limit], xlabel: "z₁", ylabel: "z₂", handles: () => [{ x: z[0], y: z[1], move }],
    draw(g) {
      const palette = [g.colours.blue, g.colours.orange, g.colours.green, g.colours.purple, g.colours.yellow, g.colours.sky, g.colours.muted];
      g.c.globalAlpha = 0.55;
      for (let i = 0; i < points.length / 2; i++) {
        const [px, py] = [points[2 * i], points[2 * i + 1]];
        if (labels) g.text(names[labels[i]], g.x(px), g.y(py), { colour: palette[labels[i] % palette.length], align: "center" });
        else g.dot(px, py, 2, g.colours.muted);
      }
      g.c.globalAlpha = 1;
      g.c.lineWidth = 2.5;
      g.dot(z[0], z[1], 9, g.colours.paper, g.colours.ink);
      g.dot(z[0], z[1], 4, g.colours.orange);
    },
  });
  const drawn = picture(host, { label: "What the decoder draws", shape: model.shape, width: 300 });
  const sliders = [0, 1].map((d) => slider({ label: `z${"₁₂"[d]}`, min: -limit, max: limit, value: z[d], on: (value) => { z[d] = value; update(); } }));
  const told = status(), n = number(2);
  const move = (x, y) => {
    z.set([x, y]);
    sliders.forEach((s, d) => { s.value = z[d]; });
    update();
  };
  const nearest = () => {
    let best = 0, far = Infinity;
    for (let i = 0; i < points.length / 2; i++) {
      const distance = Math.hypot(points[2 * i] - z[0], points[2 * i + 1] - z[1]);
      if (distance < far) [best, far] = [i, distance];
    }
    return labels ? `; the nearest code of a test image belongs to a ${names[labels[best]]}, ${n(far)} away` : `; the nearest code of a test image is ${n(far)} away`;
  };
  const update = () => {
    const pixels = model.decode(z);
    drawn.show(pixels);
    view.paint();
    told.say(`z = (${n(z[0])}, ${n(z[1])})${nearest()}.`);
    host.state = { z: [...z], pixels };
  };
  host.box.append(row(panel("Drag the point", view.element), panel("p(x|z), drawn", drawn.element)), controls(...sliders.map((s) => s.element)), told.element);
  update();
});
