/** Loudness by ITU-R BS.1770-4: K-weighted, in blocks of 400 ms, gated at -70 LUFS and 10 LU below the mean. */

const BLOCK_S = 0.4;
const STEPS = 4;
const ABSOLUTE_LUFS = -70;
const RELATIVE_LU = -10;

/** The two stages of the K-weighting filter. */
const SHELF = { hz: 1681.974450955533, gainDb: 3.999843853973347, q: 0.7071752369554196 };
const HIGH_PASS = { hz: 38.13547087602444, q: 0.5003270373238773 };

/**
 * Integrated loudness in LUFS; -Infinity for silence.
 * @param {Float32Array} samples mono
 * @param {number} rate
 */
export function loudness(samples, rate) {
  const weighted = filtered(filtered(samples, shelf(rate)), highPass(rate));
  const step = Math.round((BLOCK_S / STEPS) * rate);
  const sums = [];
  for (let at = 0; at < weighted.length; at += step) {
    let sum = 0;
    for (const sample of weighted.subarray(at, at + step)) sum += sample * sample;
    sums.push(sum);
  }
  const blocks = [];
  for (let first = 0; first < Math.max(1, sums.length - STEPS + 1); first++) {
    const sum = sums.slice(first, first + STEPS).reduce((total, each) => total + each, 0);
    blocks.push(sum / Math.min(STEPS * step, weighted.length));
  }
  const loud = blocks.filter((power) => lufs(power) > ABSOLUTE_LUFS);
  const gate = lufs(mean(loud)) + RELATIVE_LU;
  return lufs(mean(loud.filter((power) => lufs(power) > gate)));
}

/**
 * Gains that make all tracks equally loud: as loud as the first one, or less if a peak would clip.
 * @param {{samples: Float32Array, rate: number}[]} tracks
 * @returns {number[]} factors
 */
export function equalised(tracks) {
  const levels = tracks.map(({ samples, rate }) => loudness(samples, rate));
  const target = levels.find((level) => Number.isFinite(level)) ?? 0;
  const factors = levels.map((level) => (Number.isFinite(level) ? 10 ** ((target - level) / 20) : 1));
  const highest = Math.max(1, ...tracks.map(({ samples }, i) => factors[i] * peak(samples)));
  return factors.map((factor) => factor / highest);
}

/** @param {Float32Array} samples */
const peak = (samples) => samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);

/** @param {number[]} values */
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** @param {number} power */
const lufs = (power) => (power > 0 ? -0.691 + 10 * Math.log10(power) : -Infinity);

/** @typedef {{b: [number, number, number], a: [number, number]}} Biquad */

/** @param {number} rate @returns {Biquad} */
function shelf(rate) {
  const k = Math.tan((Math.PI * SHELF.hz) / rate);
  const high = 10 ** (SHELF.gainDb / 20);
  const band = high ** 0.4996667741545416;
  const norm = 1 + k / SHELF.q + k * k;
  return {
    b: [
      (high + (band * k) / SHELF.q + k * k) / norm,
      (2 * (k * k - high)) / norm,
      (high - (band * k) / SHELF.q + k * k) / norm,
    ],
    a: [(2 * (k * k - 1)) / norm, (1 - k / SHELF.q + k * k) / norm],
  };
}

/** @param {number} rate @returns {Biquad} */
function highPass(rate) {
  const k = Math.tan((Math.PI * HIGH_PASS.hz) / rate);
  const norm = 1 + k / HIGH_PASS.q + k * k;
  return { b: [1, -2, 1], a: [(2 * (k * k - 1)) / norm, (1 - k / HIGH_PASS.q + k * k) / norm] };
}

/** @param {Float32Array} samples @param {Biquad} biquad */
function filtered(samples, { b, a }) {
  let [x1, x2, y1, y2] = [0, 0, 0, 0];
  return samples.map((x) => {
    const y = b[0] * x + b[1] * x1 + b[2] * x2 - a[0] * y1 - a[1] * y2;
    [x2, x1, y2, y1] = [x1, x, y1, y];
    return y;
  });
}
