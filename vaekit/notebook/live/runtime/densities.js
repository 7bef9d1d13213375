// Exact influence in classical density models of points in the plane, as vaekit.influence computes it. No DOM.
vaekitLive.part("densities", () => {
  const LOG_2PI = Math.log(2 * Math.PI), square = (a, b) => (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2;
  const logSumExp = (values) => { const top = Math.max(...values); return top === -Infinity ? top : top + Math.log(values.reduce((s, v) => s + Math.exp(v - top), 0)); };
  const without = (points, i) => points.filter((_, k) => k !== i);
  const normal = (weights, points) => { // maximum likelihood, weighted: mean, covariance [xx, xy, yy]
    const total = weights.reduce((a, b) => a + b, 0), mean = [0, 1].map((d) => points.reduce((s, p, i) => s + weights[i] * p[d], 0) / total);
    const moment = (a, b) => points.reduce((s, p, i) => s + weights[i] * (p[a] - mean[a]) * (p[b] - mean[b]), 0) / total;
    return { mean, covariance: [moment(0, 0), moment(0, 1), moment(1, 1)], total };
  };
  const logNormal = (z, { mean, covariance: [a, b, c] }) => {
    const det = a * c - b * b, [x, y] = [z[0] - mean[0], z[1] - mean[1]];
    return -LOG_2PI - Math.log(det) / 2 - (c * x * x - 2 * b * x * y + a * y * y) / det / 2;
  };
  const ones = (points) => points.map(() => 1);

  const kde = (h) => ({
    fit: (points) => (z) => logSumExp(points.map((p) => -square(p, z) / (2 * h * h))) - Math.log(points.length) - LOG_2PI - 2 * Math.log(h),
  });
  const knn = (k) => ({
    fit: (points) => (z) => { const far = points.map((p) => square(p, z)).sort((a, b) => a - b)[k - 1]; return Math.log(k / points.length / Math.PI) - Math.log(far); },
  });
  const gaussian = () => ({ fit: (points) => { const found = normal(ones(points), points); return (z) => logNormal(z, found); } });

  /** EM from where `mixture` stands until the log-likelihood per point gains less than `tolerance`. */
  const climb = (points, mixture, { ridge = 1e-6, tolerance = 1e-9, steps = 5000 } = {}) => {
    let before = -Infinity;
    for (let step = 0; step < steps; step++) {
      const joint = points.map((p) => mixture.map((m) => m.logShare + logNormal(p, m))), logs = joint.map(logSumExp);
      const nats = logs.reduce((a, b) => a + b, 0) / points.length;
      if (Math.abs(nats - before) < tolerance) break;
      before = nats;
      mixture = mixture.map((_, k) => {
        const { mean, covariance: [a, b, c], total } = normal(joint.map((row, i) => Math.exp(row[k] - logs[i])), points);
        return { mean, covariance: [a + ridge, b, c + ridge], logShare: Math.log(total / points.length) };
      });
    }
    return mixture;
  };
  /** A start for EM: the points farthest from each other as centres, one round covariance. */
  const start = (points, K) => {
    const { mean, covariance: [a, , c] } = normal(ones(points), points), centres = [points.reduce((p, q) => (square(q, mean) > square(p, mean) ? q : p))];
    while (centres.length < K) centres.push(points.reduce((p, q) => (Math.min(...centres.map((m) => square(q, m))) > Math.min(...centres.map((m) => square(p, m))) ? q : p)));
    return centres.map((centre) => ({ mean: centre, covariance: [a / K, 0, c / K], logShare: -Math.log(K) }));
  };
  const mixture = (K) => ({
    whole: (points) => climb(points, start(points, K)),
    fit: (points, from) => { const found = climb(points, from ?? start(points, K)); return (z) => logSumExp(found.map((m) => m.logShare + logNormal(z, m))); },
  });

  /** log p(z) and, for each point, log p(z) - log p(z without it). */
  const influence = (model, points, z) => {
    const whole = model.whole?.(points), logP = model.fit(points, whole)(z);
    return { logP, influence: points.map((_, i) => logP - model.fit(without(points, i), whole)(z)) };
  };
  return { kde, knn, gaussian, mixture, influence };
});
