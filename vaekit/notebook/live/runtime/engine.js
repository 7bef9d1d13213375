// Networks on typed arrays: layers with their derivatives. No DOM. A batch of n vectors is one flat Float64Array [n * size].
vaekitLive.part("engine", () => {
  // ---- what vaekit.notebook.live.export has written ----
  const bytes = (text) => {
    const letters = atob(text), found = new Uint8Array(letters.length);
    for (let i = 0; i < found.length; i++) found[i] = letters.charCodeAt(i);
    return found;
  };
  const half = (h) => {
    const [sign, exponent, fraction] = [h >> 15 ? -1 : 1, (h >> 10) & 31, h & 1023];
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  };
  /** An array: 32 or 16 bits a number, or a few bits and one scale for each row. */
  const array = ({ bits, shape, data, scale }) => {
    const size = shape.reduce((a, b) => a * b, 1), raw = bytes(data), values = new Float64Array(size);
    if (raw.length !== Math.ceil((size * bits) / 8)) throw new Error("its weights are damaged");
    const view = new DataView(raw.buffer);
    if (bits === 32) for (let i = 0; i < size; i++) values[i] = view.getFloat32(4 * i, true);
    else if (bits === 16) for (let i = 0; i < size; i++) values[i] = half(view.getUint16(2 * i, true));
    else {
      const steps = array(scale), row = size / shape[0], middle = 2 ** (bits - 1) - 1, mask = 2 ** bits - 1;
      for (let r = 0, i = 0, bit = 0; r < shape[0]; r++) for (const step = steps[r], end = i + row; i < end; i++, bit += bits) {
        const at = bit >> 3, three = raw[at] | (raw[at + 1] << 8) | (raw[at + 2] << 16); // beyond the end: undefined, taken as 0
        values[i] = (((three >> (bit & 7)) & mask) - middle) * step;
      }
    }
    let sum = 0;
    for (let i = 0; i < size; i++) sum += Math.abs(values[i]);
    if (!Number.isFinite(sum)) throw new Error("its weights are damaged");
    return values;
  };

  // ---- the two products that every layer with weights is made of ----
  const dot = (a, i, b, j, length) => {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0, k = 0;
    for (; k + 3 < length; k += 4) {
      s0 += a[i + k] * b[j + k];
      s1 += a[i + k + 1] * b[j + k + 1];
      s2 += a[i + k + 2] * b[j + k + 2];
      s3 += a[i + k + 3] * b[j + k + 3];
    }
    for (; k < length; k++) s0 += a[i + k] * b[j + k];
    return s0 + s1 + s2 + s3;
  };
  /** All inner products of rows of a [rows, length], from `at` on, and of b [columns, length]: c [rows, columns], from `to` on.
   *  Two rows by two columns at a time, so that each number is read half as often. */
  const products = (a, at, rows, b, columns, length, c, to) => {
    let r = 0;
    for (; r + 1 < rows; r += 2) {
      const i = at + r * length;
      let s = 0;
      for (; s + 1 < columns; s += 2) {
        const j = s * length;
        let p = 0, q = 0, u = 0, v = 0;
        for (let k = 0; k < length; k++) {
          const x = a[i + k], y = a[i + length + k], z = b[j + k], w = b[j + length + k];
          p += x * z; q += x * w; u += y * z; v += y * w;
        }
        const o = to + r * columns + s;
        c[o] = p; c[o + 1] = q; c[o + columns] = u; c[o + columns + 1] = v;
      }
      if (s < columns) for (let e = 0; e < 2; e++) c[to + (r + e) * columns + s] = dot(a, i + e * length, b, s * length, length);
    }
    if (r < rows) for (let s = 0; s < columns; s++) c[to + r * columns + s] = dot(a, at + r * length, b, s * length, length);
  };
  const transposed = (a, rows, columns, from = 0, into = new Float64Array(rows * columns)) => {
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) into[c * rows + r] = a[from + r * columns + c];
    return into;
  };

  // ---- layers: forward(x, n), tangent(x, y, t, n) = J t for n tangents at one x, backward(x, y, g, n) = J' g ----
  const linear = ({ weight, bias, sizes: [inputs, outputs] }) => {
    let back; // W', once it is needed
    const map = (x, n, b) => {
      const y = new Float64Array(n * outputs);
      products(x, 0, n, weight, outputs, inputs, y, 0);
      if (b) for (let r = 0; r < n; r++) for (let o = 0; o < outputs; o++) y[r * outputs + o] += b[o];
      return y;
    };
    return {
      forward: (x, n) => map(x, n, bias),
      tangent: (x, y, t, n) => map(t, n),
      backward(x, y, g, n) {
        const gx = new Float64Array(n * inputs);
        back ??= transposed(weight, outputs, inputs);
        products(g, 0, n, back, inputs, outputs, gx, 0);
        return gx;
      },
      inputs, outputs, weight, bias,
    };
  };

  /** The patches that a kernel sees in an image [channels, height, width], and the sum of patches back into an image. */
  const patches = (channels, [height, width], [high, wide], kernel, stride, padding) => {
    const size = channels * kernel * kernel;
    const each = (visit) => {
      for (let i = 0; i < high; i++) for (let j = 0; j < wide; j++) for (let c = 0; c < channels; c++) for (let u = 0; u < kernel; u++) {
        const row = i * stride - padding + u;
        if (row < 0 || row >= height) continue;
        for (let v = 0; v < kernel; v++) {
          const column = j * stride - padding + v;
          if (column >= 0 && column < width) visit((i * wide + j) * size + (c * kernel + u) * kernel + v, (c * height + row) * width + column);
        }
      }
    };
    const pairs = [];
    each((patch, pixel) => pairs.push(patch, pixel));
    const index = Int32Array.from(pairs);
    return {
      size, count: high * wide,
      cut(image, at, into) {
        for (let k = 0; k < index.length; k += 2) into[index[k]] = image[at + index[k + 1]];
      },
      paste(from, image, at) {
        for (let k = 0; k < index.length; k += 2) image[at + index[k + 1]] += from[index[k]];
      },
    };
  };

  // A convolution takes an image's patches times the weights; a transposed one adds up weighted patches: each the other's adjoint.
  const convolution = (upwards) => ({ weight, bias, channels: [many, few], from, to, kernel, stride, padding }) => {
    // `many` are the channels of the small side (one number a place), `few` those of the side that is cut into patches
    const [small, large] = upwards ? [from, to] : [to, from];
    const places = patches(few, large, small, kernel, stride, padding), { size, count } = places;
    const smallSize = many * count, largeSize = few * large[0] * large[1];
    let across; // the weights, transposed, once they are needed
    const gather = (x, n, b) => {
      const y = new Float64Array(n * smallSize), cut = new Float64Array(count * size);
      for (let r = 0; r < n; r++) {
        places.cut(x, r * largeSize, cut);
        products(weight, 0, many, cut, count, size, y, r * smallSize);
        if (b) for (let k = 0; k < smallSize; k++) y[r * smallSize + k] += b[Math.floor(k / count)];
      }
      return y;
    };
    const scatter = (x, n, b) => {
      const y = new Float64Array(n * largeSize), area = large[0] * large[1];
      if (b) for (let r = 0; r < n; r++) for (let c = 0; c < few; c++) y.fill(b[c], r * largeSize + c * area, r * largeSize + (c + 1) * area);
      const sum = new Float64Array(count * size), at = new Float64Array(smallSize);
      across ??= transposed(weight, many, size);
      for (let r = 0; r < n; r++) {
        transposed(x, many, count, r * smallSize, at);
        products(at, 0, count, across, size, many, sum, 0);
        places.paste(sum, y, r * largeSize);
      }
      return y;
    };
    const [ahead, back] = upwards ? [scatter, gather] : [gather, scatter];
    const [inputs, outputs] = upwards ? [smallSize, largeSize] : [largeSize, smallSize];
    return { forward: (x, n) => ahead(x, n, bias), tangent: (x, y, t, n) => ahead(t, n), backward: (x, y, g, n) => back(g, n), inputs, outputs };
  };

  /** Batch normalisation with fixed statistics: a factor and a shift for each channel. */
  const affine = ({ factor, shift, area }) => {
    const size = factor.length * area;
    const scaled = (x, b) => {
      const y = new Float64Array(x.length);
      for (let at = 0; at < x.length; at += size) for (let c = 0, i = at; c < factor.length; c++) for (const end = i + area; i < end; i++) y[i] = x[i] * factor[c] + (b ? b[c] : 0);
      return y;
    };
    return { forward: (x) => scaled(x, shift), tangent: (x, y, t) => scaled(t), backward: (x, y, g) => scaled(g) };
  };

  const softplus = (v) => (v > 30 ? v + Math.exp(-v) : Math.log1p(Math.exp(v)));
  const sigmoid = (v) => (v >= 0 ? 1 / (1 + Math.exp(-v)) : Math.exp(v) / (1 + Math.exp(v)));
  const pointwise = (f, slope) => {
    const chain = (x, y, g) => {
      const out = new Float64Array(g.length), size = x.length;
      for (let at = 0; at < g.length; at += size) for (let i = 0; i < size; i++) out[at + i] = g[at + i] * slope(x[i], y[i]);
      return out;
    };
    return { forward: (x) => x.map(f), tangent: chain, backward: chain };
  };
  /** The second half of the outputs r becomes log softplus(r). */
  const softplusScale = ({ size }) => {
    const spread = (i) => i % size >= size / 2;
    const chain = (x, y, g) => g.map((v, i) => { const at = x[i % x.length]; return spread(i) ? (v * sigmoid(at)) / softplus(at) : v; });
    return { forward: (x) => x.map((v, i) => (spread(i) ? Math.log(softplus(v)) : v)), tangent: chain, backward: chain };
  };
  const makers = {
    linear, affine, softplusScale, conv: convolution(false), convTransposed: convolution(true),
    relu: () => pointwise((v) => (v > 0 ? v : 0), (x) => (x > 0 ? 1 : 0)),
    leakyRelu: ({ slope }) => pointwise((v) => (v > 0 ? v : slope * v), (x) => (x > 0 ? 1 : slope)),
    elu: ({ alpha }) => pointwise((v) => (v > 0 ? v : alpha * Math.expm1(v)), (x) => (x > 0 ? 1 : alpha * Math.exp(x))),
    silu: () => pointwise((v) => v * sigmoid(v), (x) => { const s = sigmoid(x); return s * (1 + x * (1 - s)); }),
    softplus: () => pointwise(softplus, sigmoid),
    sigmoid: () => pointwise(sigmoid, (x, y) => y * (1 - y)),
    tanh: () => pointwise(Math.tanh, (x, y) => 1 - y * y),
  };

  /** A network from its layers; `run` keeps what every layer took and gave. */
  const network = (described) => {
    const layers = described.map(({ type, ...rest }) => {
      if (!makers[type]) throw new Error(`it has a layer of an unknown type, ${type}`);
      return makers[type](Object.fromEntries(Object.entries(rest).map(([key, value]) => [key, value?.bits ? array(value) : value])));
    });
    const run = (x, n) => layers.reduce((values, layer) => [...values, layer.forward(values.at(-1), n)], [Float64Array.from(x)]);
    return {
      layers, run,
      forward: (x, n = 1) => layers.reduce((value, layer) => layer.forward(value, n), Float64Array.from(x)),
      /** J t for n tangents at the one point that `values` was run at. */
      tangent: (values, t, n) => layers.reduce((moving, layer, k) => layer.tangent(values[k], values[k + 1], moving, n), Float64Array.from(t)),
      /** J' g for n points; `note(k, g)` sees the gradient at the output of layer k. */
      backward: (values, g, n, note) => layers.reduceRight((gradient, layer, k) => {
        note?.(k, gradient);
        return layer.backward(values[k], values[k + 1], gradient, n);
      }, g),
    };
  };

  return { array, dot, network, sigmoid, softplus };
});
