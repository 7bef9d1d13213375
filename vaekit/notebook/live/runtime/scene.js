// Pictures that are drawn on the page: round dots, and images turned about their centre.
vaekitLive.part("scene", () => {
  /** How much of each pixel the discs cover, [size, size]: centres in pixels, the edge softened over `soft` pixels. */
  const discs = (centres, radius, size, soft = 1) => {
    const covered = new Float64Array(size * size);
    for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) {
      const nearest = Math.min(...centres.map(([x, y]) => Math.hypot(j + 0.5 - x, i + 0.5 - y)));
      covered[i * size + j] = Math.max(0, Math.min(1, 0.5 - (nearest - radius) / soft));
    }
    return covered;
  };
  /** Derivatives of `discs` in the centre of disc k, sideways and downwards: two pictures. */
  const discSlopes = (centres, k, radius, size, soft = 1) => {
    const [across, down] = [new Float64Array(size * size), new Float64Array(size * size)], [x, y] = centres[k];
    for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) {
      const [dx, dy] = [j + 0.5 - x, i + 0.5 - y], far = Math.hypot(dx, dy), inside = 0.5 - (far - radius) / soft;
      if (inside <= 0 || inside >= 1 || centres.some(([a, b]) => Math.hypot(j + 0.5 - a, i + 0.5 - b) < far)) continue;
      across[i * size + j] = dx / far / soft;
      down[i * size + j] = dy / far / soft;
    }
    return [across, down];
  };
  /** Dots as `vaekit.datasets.render_three_dots` draws them, ink counted as 1: x and y of each in turn, from 0 to 63. */
  const dots = (positions, size) => {
    const centres = Array.from({ length: positions.length / 2 }, (_, k) => [(positions[2 * k] * size) / 63, (positions[2 * k + 1] * size) / 63]);
    return discs(centres, 0.08 * size, size);
  };
  /** An image [h, w] turned by some degrees counter-clockwise, resampled bilinearly, 0 beyond the border. */
  const turned = (image, h, w, degrees) => {
    const out = new Float64Array(h * w), angle = (degrees * Math.PI) / 180, cos = Math.cos(angle), sin = Math.sin(angle);
    const at = (i, j) => (i >= 0 && i < h && j >= 0 && j < w ? image[i * w + j] : 0);
    for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) {
      const [x, y] = [j + 0.5 - w / 2, i + 0.5 - h / 2]; // where the pixel came from: the inverse turn
      const u = cos * x - sin * y + w / 2 - 0.5, v = sin * x + cos * y + h / 2 - 0.5;
      const [c, r] = [Math.floor(u), Math.floor(v)], [s, t] = [u - c, v - r];
      out[i * w + j] = (1 - t) * ((1 - s) * at(r, c) + s * at(r, c + 1)) + t * ((1 - s) * at(r + 1, c) + s * at(r + 1, c + 1));
    }
    return out;
  };
  return { discs, discSlopes, dots, turned };
});
