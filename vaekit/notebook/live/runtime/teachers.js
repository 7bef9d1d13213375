// Who taught the model this? TracIn from checkpoints, for a picture that is chosen or drawn: proponents and opponents.
vaekitLive.kind("teachers", (host, { checkpoints, train, labels, queries, shape, shown: many }) => {
  const { make, picture, board, thumbnails, select, number, row, panel, buttons, button, check, status, breather } = { ...vaekitLive.parts, ...vaekitLive.pictures };
  const { array } = vaekitLive.engine, { halves, score } = vaekitLive.tracin, n = number(1);
  const all = array(train), size = shape.reduce((a, b) => a * b, 1), M = all.length / size, image = (i) => all.subarray(i * size, (i + 1) * size);
  const models = checkpoints.map(({ model, lr, noise }) => ({ model: vaekitLive.vae.vae(model), lr, noise: noise.map(array) }));
  const cases = queries.map((q) => ({ ...q, pixels: array(q.image) })), gradients = models.map(() => []);
  let runs = 0, of = "all", ready = false, scores;
  const drawing = board(host, { label: "The picture that is asked about", shape, width: 190, radius: 0.55, on: () => later() });
  const seen = picture(host, { label: "What the last model makes of it", shape, width: 120 });
  const gallery = (title) => {
    const items = Array.from({ length: many }, (_, k) => ({ shown: picture(host, { label: `${title} ${k + 1}`, shape, width: 72 }), words: make("figcaption") }));
    return { items, element: panel(title, make("div", { className: "strip" }, ...items.map((i) => make("figure", {}, i.shown.element, i.words)))) };
  };
  const friends = gallery("Proponents: training images that helped"), foes = gallery("Opponents: training images that hurt");
  const bar = make("progress", { max: models.length * M, value: 0, attributes: { "aria-label": "Gradients of the training images" } }), told = status();
  const prepare = async () => {
    const rest = breather();
    for (let c = 0; c < models.length; c++) for (let i = 0; i < M; i++) {
      gradients[c].push(halves(models[c].model, image(i), models[c].noise));
      if (i % 8 === 0) { bar.value = c * M + i; await rest(); }
    }
    bar.remove();
    ready = true;
    ask();
  };
  const ask = async () => {
    if (!ready) return;
    const mine = ++runs, rest = breather(), x = drawing.pixels.slice(), begun = performance.now();
    scores = new Float64Array(M);
    for (let c = 0; c < models.length; c++) {
      if (of !== "all" && +of !== c) continue;
      const query = halves(models[c].model, x, models[c].noise);
      for (let i = 0; i < M; i++) {
        scores[i] += models[c].lr * score(gradients[c][i], query);
        if (i % 16 === 0) { await rest(); if (mine !== runs) return; }
      }
    }
    const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a]);
    const tell = (items, indices, word) => items.forEach(({ shown, words }, k) => {
      const i = indices[k];
      shown.show(image(i), `${word} ${k + 1}: ${labels ? `a ${labels[i]}, ` : ""}score ${n(scores[i])}`);
      words.textContent = `${labels ? `${labels[i]}: ` : ""}${n(scores[i])}`;
    });
    tell(friends.items, order, "proponent");
    tell(foes.items, [...order].reverse(), "opponent");
    const last = models.at(-1).model;
    seen.show(last.decode(last.posterior(x).mean));
    const count = labels && Object.entries(order.slice(0, many).reduce((t, i) => ({ ...t, [labels[i]]: (t[labels[i]] ?? 0) + 1 }), {})).sort((a, b) => b[1] - a[1]).map(([name, times]) => `${times} × ${name}`).join(", ");
    told.say(`${count ? `Among the ${many} strongest proponents: ${count}. ` : ""}Scores from ${n(Math.min(...scores))} to ${n(Math.max(...scores))}, over ${M} training images and ${of === "all" ? `${models.length} checkpoints` : `checkpoint ${+of + 1}`}.`);
    host.state = { scores: [...scores], pixels: [...x], took: performance.now() - begun };
  };
  let pause;
  const later = () => { runs += 1; clearTimeout(pause); pause = setTimeout(ask, 80); };
  const which = select("Checkpoints", [["all", "all"], ...models.map((_, c) => [String(c), `only number ${c + 1}`])], "all", (v) => { of = v; later(); });
  host.box.append(
    thumbnails(host, { label: "Ask about", images: cases.map((c) => c.pixels), names: cases.map((c) => c.name), shape, on: (k) => drawing.set(cases[k].pixels) }).element,
    row(panel("Or draw here", drawing.element, buttons(button("Clear", () => drawing.set(new Float64Array(size))), check("eraser", false, (on) => drawing.erase(on)).element)),
      make("div", { className: "narrow" }, panel("reconstruction", seen.element)), make("div", { className: "wide" }, friends.element, make("br"), foes.element)),
    buttons(which.element, bar), told.element,
  );
  drawing.set(cases[0].pixels);
  return void prepare().catch((error) => host.fail(error));
});
