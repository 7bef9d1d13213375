// TracIn on the page: gradients of linear layers as the vectors they are made of, and their inner products. No DOM.
vaekitLive.part("tracin", ({ engine, vae }) => {
  /** For one picture and one half of the draws: for each linear layer a list of [inputs, gradients at its outputs]. */
  const factors = (model, x, noise) => {
    const layers = [], n = noise.length / model.D, values = model.encoder.run(x, 1), moments = values.at(-1), D = model.D;
    const split = (layer, inputs, g, rows) => Array.from({ length: rows }, (_, r) => [inputs.slice(r * layer.inputs, (r + 1) * layer.inputs), g.slice(r * layer.outputs, (r + 1) * layer.outputs)]);
    const note = (network, rows) => (k, g, inputs) => network.layers[k].weight && layers.push({ bias: !!network.layers[k].bias, pairs: split(network.layers[k], inputs, g, rows) });
    const q = { mean: moments.slice(0, D), logStd: moments.slice(D) };
    const slope = model.elboSlope(x, q, noise, { note: note(model.decoder, n) });
    const into = note(model.encoder, 1);
    model.encoder.backward(values, Float64Array.from([...slope.mean, ...slope.logStd]), 1, (k, g) => into(k, g, values[k]));
    return layers;
  };
  const product = (a, b) => {
    let sum = 0;
    for (let l = 0; l < a.length; l++) for (const [u, g] of a[l].pairs) for (const [v, h] of b[l].pairs) {
      sum += (engine.dot(u, 0, v, 0, u.length) + (a[l].bias ? 1 : 0)) * engine.dot(g, 0, h, 0, g.length);
    }
    return sum;
  };
  /** Both halves of a picture, and the unbiased inner product of two pictures' gradients. */
  const halves = (model, x, noise) => noise.map((half) => factors(model, x, half));
  const score = (a, b) => (product(a[0], b[1]) + product(a[1], b[0])) / 2;
  return { halves, score };
});
