// The transformer of chapter 5 in plain JavaScript: it reads the exported weights and predicts one pixel at a time.
// Names are those of ar_helpers/models.py; shapes stand in comments. Nothing here knows about the page.
"use strict";

const FORMAT = 1; // tools/live.py writes the same number

// The weights as they were exported: signed bytes, one scale for each row of a matrix; the rest in float32.
function readWeights(file) {
  if (!file || !file.header || typeof file.payload !== "string") {
    throw new Error("The file of weights is damaged: it does not hold what it should.");
  }
  const { header, payload } = file;
  if (header.format !== FORMAT || header.architecture !== "PixelTransformer") {
    throw new Error(`The file of weights has version ${header.format} of ${header.architecture}, ` +
      `and this page reads version ${FORMAT} of PixelTransformer.`);
  }
  const binary = /^[\w+/=]*$/.test(payload) && payload.length % 4 === 0 ? atob(payload) : "";
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  if (bytes.length !== header.bytes || crc32(bytes) !== header.crc32) {
    throw new Error("The file of weights is damaged: its checksum is not what its header says.");
  }
  const floats = new Float32Array(bytes.buffer, 0, header.floats); // scales and vectors come first,
  const integers = new Int8Array(bytes.buffer, 4 * header.floats); // then all the matrices
  const tensors = {};
  let float = 0, integer = 0;
  for (const [name, rows, columns] of header.tensors) {
    if (columns === undefined) {
      tensors[name] = floats.subarray(float, float += rows);
      continue;
    }
    const matrix = tensors[name] = new Float32Array(rows * columns);
    for (let row = 0; row < rows; row++) {
      const scale = floats[float++];
      for (let i = row * columns; i < (row + 1) * columns; i++) matrix[i] = integers[integer++] * scale;
    }
  }
  return tensors;
}

function crc32(bytes) {
  const table = new Int32Array(256);
  for (let i = 0; i < 256; i++) {
    let value = i;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    table[i] = value;
  }
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = (crc >>> 8) ^ table[(crc ^ bytes[i]) & 255];
  return ~crc >>> 0;
}

// out (rows) = weight (rows, columns) times x (columns), plus bias. Four sums at once keep the processor busy.
function linear(weight, bias, x, out) {
  const columns = x.length;
  for (let row = 0, start = 0; row < out.length; row++, start += columns) {
    let a = 0, b = 0, c = 0, d = 0, i = 0;
    for (; i + 3 < columns; i += 4) {
      a += weight[start + i] * x[i];
      b += weight[start + i + 1] * x[i + 1];
      c += weight[start + i + 2] * x[i + 2];
      d += weight[start + i + 3] * x[i + 3];
    }
    for (; i < columns; i++) a += weight[start + i] * x[i];
    out[row] = bias[row] + (a + b) + (c + d);
  }
}

function layerNorm(x, weight, bias, out) {
  let mean = 0, variance = 0;
  for (let i = 0; i < x.length; i++) mean += x[i] / x.length;
  for (let i = 0; i < x.length; i++) variance += (x[i] - mean) ** 2 / x.length;
  const scale = 1 / Math.sqrt(variance + 1e-5);
  for (let i = 0; i < x.length; i++) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

// x times the probability that a standard normal number is below x, after Abramowitz and Stegun (1964), 7.1.26.
function gelu(x) {
  const z = Math.abs(x) * Math.SQRT1_2;
  const t = 1 / (1 + 0.3275911 * z);
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const tail = 0.5 * series * Math.exp(-z * z);
  return x > 0 ? x * (1 - tail) : x * tail;
}

// The distribution (K) that is really drawn from: sampling_probabilities of ar_helpers, without top-k.
function distribution(logits, temperature = 1, topP = 1) {
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const weights = Array.from(logits, (logit) => Math.exp((logit - highest) / temperature));
  const total = weights.reduce((a, b) => a + b);
  const probabilities = weights.map((weight) => weight / total);
  if (topP >= 1) return probabilities;
  const order = probabilities.map((_, token) => token).sort((a, b) => probabilities[b] - probabilities[a]);
  let before = 0;
  const kept = probabilities.map(() => 0);
  for (const token of order) {
    if (before >= topP) break;
    before += kept[token] = probabilities[token];
  }
  return kept.map((probability) => probability / before);
}

function entropy(probabilities) { // in bits
  return probabilities.reduce((sum, p) => sum - (p > 0 ? p * Math.log2(p) : 0), 0);
}

// Numbers from 0 to 1 that depend on the seed alone (Mulberry32, by Tommy Ettinger).
function randomNumbers(seed) {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function draw(probabilities, random) {
  let left = random();
  for (let token = 0; token < probabilities.length; token++) {
    left -= probabilities[token];
    if (left < 0 && probabilities[token] > 0) return token;
  }
  return probabilities.reduce((best, p, token) => (p > probabilities[best] ? token : best), 0); // sums are not exact
}

// One image on its way: the tokens so far, what was predicted for each pixel, and the cache.
class Picture {
  constructor(model, label) {
    const { image_size: size, num_levels: levels, width, depth } = model.config;
    this.label = label;
    this.length = 0; // how many tokens are known
    this.predicted = 0; // for how many pixels logits are known: as many, or one more
    this.tokens = new Uint8Array(size * size); // (N)
    this.logits = new Float32Array(size * size * levels); // (N, K)
    this.keys = Array.from({ length: depth }, () => new Float32Array(size * size * width)); // (N, D) for each block
    this.values = Array.from({ length: depth }, () => new Float32Array(size * size * width));
  }

  copy() {
    const twin = Object.assign(Object.create(Picture.prototype), this);
    for (const name of ["tokens", "logits"]) twin[name] = this[name].slice();
    for (const name of ["keys", "values"]) twin[name] = this[name].map((part) => part.slice());
    return twin;
  }

  append(token) {
    this.tokens[this.length++] = token;
  }

  rewind(length) { // what was predicted from the first `length` tokens still holds
    this.length = Math.min(this.length, length);
    this.predicted = Math.min(this.predicted, this.length + 1);
  }
}

class PixelTransformer {
  constructor(file) {
    this.weights = readWeights(file);
    this.config = file.header.config;
    this.neighbours = file.header.neighbours; // steps down and right to the pixels that the stem looks at
    const width = this.config.width;
    const vector = (length) => new Float32Array(length);
    this.room = { x: vector(width), normed: vector(width), joined: vector(3 * width), gathered: vector(width),
      added: vector(width), hidden: vector(4 * width), scores: vector(this.config.image_size ** 2) };
  }

  // Logits (K) of the picture's next pixel.
  predict(picture) {
    const { num_levels: levels, image_size: size, depth } = this.config;
    const slot = picture.length;
    const logits = picture.logits.subarray(slot * levels, (slot + 1) * levels);
    if (picture.predicted > slot) return logits;
    const { x, normed } = this.room;
    this.embed(picture, slot, x);
    if (this.weights["trunk.stem_mlp.norm.weight"]) this.mlp("trunk.stem_mlp", x);
    for (let block = 0; block < depth; block++) {
      this.attend(`trunk.blocks.${block}`, picture.keys[block], picture.values[block], slot, x);
      this.mlp(`trunk.blocks.${block}.mlp`, x);
    }
    layerNorm(x, this.weights["norm.weight"], this.weights["norm.bias"], normed);
    linear(this.weights["output.weight"], this.weights["output.bias"], normed, logits);
    picture.predicted = slot + 1;
    return logits;
  }

  // x (D): the class in the first slot, the pixels nearby in the others, and the place.
  embed(picture, slot, x) {
    const { image_size: size, num_levels: levels, width, positions } = this.config;
    const row = Math.floor(slot / size), column = slot % size;
    const add = (name, index) => {
      const table = this.weights[name];
      for (let i = 0; i < width; i++) x[i] += table[index * width + i];
    };
    x.fill(0);
    if (slot === 0) add("trunk.class_embedding.weight", picture.label);
    else {
      this.neighbours.forEach(([down, right], index) => {
        const previous = down === 0 && right === -1; // the pixel just before, on the row above if need be
        const inside = row + down >= 0 && column + right >= 0 && column + right < size;
        const token = previous || inside ? picture.tokens[slot + down * size + right] : levels; // levels: outside
        add("trunk.stem.token_embedding.weight", index * (levels + 1) + token);
      });
    }
    if (positions === "learned_2d") {
      add("trunk.row_embedding.weight", row);
      add("trunk.col_embedding.weight", column);
    }
  }

  // x (D) gathers from this slot and all before it, whose keys and values (N, D) are kept.
  attend(name, keys, values, slot, x) {
    const { width, heads } = this.config;
    const size = width / heads;
    const { normed, joined, gathered, added, scores } = this.room;
    layerNorm(x, this.weights[`${name}.norm.weight`], this.weights[`${name}.norm.bias`], normed);
    const part = `${name}.attention.`;
    linear(this.weights[part + "query_key_value.weight"], this.weights[part + "query_key_value.bias"], normed, joined);
    keys.set(joined.subarray(width, 2 * width), slot * width);
    values.set(joined.subarray(2 * width), slot * width);
    gathered.fill(0);
    for (let start = 0; start < width; start += size) { // one head after the other
      let highest = -Infinity, total = 0;
      for (let other = 0; other <= slot; other++) {
        let score = 0;
        for (let i = start, j = other * width + start; i < start + size; i++, j++) score += joined[i] * keys[j];
        scores[other] = score / Math.sqrt(size);
        if (scores[other] > highest) highest = scores[other];
      }
      for (let other = 0; other <= slot; other++) total += scores[other] = Math.exp(scores[other] - highest);
      for (let other = 0; other <= slot; other++) {
        const share = scores[other] / total;
        for (let i = start, j = other * width + start; i < start + size; i++, j++) gathered[i] += share * values[j];
      }
    }
    linear(this.weights[part + "output.weight"], this.weights[part + "output.bias"], gathered, added);
    for (let i = 0; i < width; i++) x[i] += added[i];
  }

  mlp(name, x) {
    const { normed, hidden, added } = this.room;
    const layer = `${name}.layers.`;
    layerNorm(x, this.weights[`${name}.norm.weight`], this.weights[`${name}.norm.bias`], normed);
    linear(this.weights[layer + "0.weight"], this.weights[layer + "0.bias"], normed, hidden);
    for (let i = 0; i < hidden.length; i++) hidden[i] = gelu(hidden[i]);
    linear(this.weights[layer + "2.weight"], this.weights[layer + "2.bias"], hidden, added);
    for (let i = 0; i < x.length; i++) x[i] += added[i];
  }
}
