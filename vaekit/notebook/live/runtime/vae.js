// A variational auto-encoder on networks of engine.js: likelihoods, bounds, Adam. No DOM. All values in nats.
vaekitLive.part("vae", ({ engine }) => {
  const LOG_2PI = Math.log(2 * Math.PI);
  const { sigmoid, softplus } = engine;

  /** log p(x | parameters of n decoded latents) [n]; with `slope` filled by its gradient in the parameters. */
  const likelihoods = {
    bernoulli: () => ({
      mean: (logits) => logits.map(sigmoid),
      meanTangent: (logits, t) => t.map((v, i) => { const p = sigmoid(logits[i % logits.length]); return v * p * (1 - p); }),
      logProb(x, logits, n, slope) {
        const values = new Float64Array(n), size = x.length;
        for (let r = 0; r < n; r++) for (let i = 0; i < size; i++) {
          const logit = logits[r * size + i];
          values[r] += x[i] * logit - softplus(logit);
          if (slope) slope[r * size + i] = x[i] - sigmoid(logit);
        }
        return values;
      },
    }),
    gaussian: ({ scale }) => ({
      mean: (mean) => mean.slice(),
      meanTangent: (mean, t) => t.slice(),
      logProb(x, mean, n, slope) {
        const values = new Float64Array(n).fill(-x.length * (Math.log(scale) + LOG_2PI / 2)), size = x.length;
        for (let r = 0; r < n; r++) for (let i = 0; i < size; i++) {
          const away = (x[i] - mean[r * size + i]) / scale;
          values[r] -= (away * away) / 2;
          if (slope) slope[r * size + i] = away / scale;
        }
        return values;
      },
    }),
  };

  const logMeanExp = (values) => {
    const top = Math.max(...values);
    return top + Math.log(values.reduce((sum, v) => sum + Math.exp(v - top), 0) / values.length);
  };
  const klToPrior = (mean, logStd) => mean.reduce((sum, m, d) => sum + (m * m + Math.exp(2 * logStd[d]) - 1) / 2 - logStd[d], 0);

  const vae = ({ encoder, decoder, latents, likelihood, shape }) => {
    const model = { D: latents, shape, encoder: encoder && engine.network(encoder), decoder: engine.network(decoder) };
    const p = likelihoods[likelihood.name](likelihood), D = latents;
    /** q(z|x) as {mean, logStd}, [D] each. */
    model.posterior = (x) => {
      const moments = model.encoder.forward(x);
      return { mean: moments.slice(0, D), logStd: moments.slice(D) };
    };
    /** The mean picture of a latent. */
    model.decode = (z, n = 1) => p.mean(model.decoder.forward(z, n));
    model.logLikelihood = (x, z, n) => p.logProb(x, model.decoder.forward(z, n), n);
    /** Columns of the mean picture's Jacobian at z: [D, pixels], and the picture. */
    model.jacobian = (z) => {
      const values = model.decoder.run(z, 1), outputs = values.at(-1);
      const basis = new Float64Array(D * D);
      for (let d = 0; d < D; d++) basis[d * D + d] = 1;
      return { picture: p.mean(outputs), columns: p.meanTangent(outputs, model.decoder.tangent(values, basis, D)) };
    };
    const draw = ({ mean, logStd }, noise) => Float64Array.from(noise, (e, i) => mean[i % D] + Math.exp(logStd[i % D]) * e);
    const average = (values, weights) => values.reduce((sum, v, s) => sum + v * (weights ? weights[s] : 1 / values.length), 0);
    /** ELBO of one picture with the given noise [S * D]; `weights` [S] turn the mean over draws into a quadrature. */
    model.elbo = (x, q, noise, weights) => {
      const values = model.logLikelihood(x, draw(q, noise), noise.length / D);
      return average(values, weights) - klToPrior(q.mean, q.logStd);
    };
    /** The same with its gradient in mean and log std; `note` as for a network's backward, for weights. */
    model.elboSlope = (x, q, noise, { weights, note } = {}) => {
      const n = noise.length / D, z = draw(q, noise), values = model.decoder.run(z, n), slope = new Float64Array(n * x.length);
      const nats = p.logProb(x, values.at(-1), n, slope);
      for (let i = 0; i < slope.length; i++) slope[i] *= weights ? weights[Math.floor(i / x.length)] : 1 / n;
      const g = model.decoder.backward(values, slope, n, note && ((k, gradient) => note(k, gradient, values[k])));
      const mean = new Float64Array(D), logStd = new Float64Array(D);
      for (let i = 0; i < g.length; i++) {
        mean[i % D] += g[i];
        logStd[i % D] += g[i] * noise[i] * Math.exp(q.logStd[i % D]);
      }
      for (let d = 0; d < D; d++) {
        mean[d] -= q.mean[d];
        logStd[d] -= Math.exp(2 * q.logStd[d]) - 1;
      }
      return { value: average(nats, weights) - klToPrior(q.mean, q.logStd), mean, logStd };
    };
    /** log p(x, z) - log q(z|x) for draws with the given noise [S * D]: [S]. */
    model.logWeights = (x, q, noise) => {
      const n = noise.length / D, z = draw(q, noise), values = model.logLikelihood(x, z, n);
      for (let i = 0; i < z.length; i++) values[Math.floor(i / D)] += (noise[i] * noise[i] - z[i] * z[i]) / 2 + q.logStd[i % D];
      return values;
    };
    return model;
  };

  /** Adam, climbing, with torch's defaults; changes `parameters` in place. */
  const adam = (parameters, lr) => {
    const first = new Float64Array(parameters.length), second = new Float64Array(parameters.length);
    let step = 0;
    return (gradient) => {
      step += 1;
      const a = lr / (1 - 0.9 ** step), b = Math.sqrt(1 - 0.999 ** step);
      for (let i = 0; i < parameters.length; i++) {
        first[i] += 0.1 * (gradient[i] - first[i]);
        second[i] = 0.999 * second[i] + 0.001 * gradient[i] * gradient[i];
        parameters[i] += (a * first[i]) / (Math.sqrt(second[i]) / b + 1e-8);
      }
    };
  };

  /** Fits q to one picture by Adam from where it is, one row of `stepNoise` [steps * D] a step; yields after each step. */
  function* climb(model, x, q, stepNoise, lr) {
    const D = model.D, parameters = Float64Array.from([...q.mean, ...q.logStd]), step = adam(parameters, lr);
    for (let k = 0; (k + 1) * D <= stepNoise.length; k++) {
      const here = { mean: parameters.slice(0, D), logStd: parameters.slice(D) };
      const { mean, logStd } = model.elboSlope(x, here, stepNoise.subarray(k * D, (k + 1) * D));
      step([...mean, ...logStd]);
      yield { mean: parameters.slice(0, D), logStd: parameters.slice(D) };
    }
  }

  return { vae, adam, climb, logMeanExp, klToPrior };
});
