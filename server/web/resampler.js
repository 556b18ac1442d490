/**
 * Streaming sample rate conversion with a polyphase Kaiser-windowed sinc. Flat within 0.02 dB up to 0.85 of the lower
 * Nyquist frequency, and at least 80 dB down beyond it (tests/server/web/modules/resampler.test.mjs). Output sample k
 * is aligned with input sample k * fromRate / toRate. Any partition of the input gives the same bits.
 */

const ATTENUATION_DB = 90;
/** Width of the transition band, as a fraction of the lower Nyquist frequency. */
const TRANSITION = 0.15;

export class Resampler {
  /**
   * @param {number} fromRate Hz, a whole number
   * @param {number} toRate Hz, a whole number
   */
  constructor(fromRate, toRate) {
    const common = gcd(fromRate, toRate);
    this._up = toRate / common;
    this._down = fromRate / common;
    const lower = Math.min(1, toRate / fromRate); // lower Nyquist frequency relative to the input's
    const beta = 0.1102 * (ATTENUATION_DB - 8.7);
    const taps = (ATTENUATION_DB - 7.95) / (2.285 * Math.PI * TRANSITION * lower);
    /** Input samples on each side of an output sample. */
    this._half = fromRate === toRate ? 0 : Math.ceil(taps / 2);
    this._filters = filters(this._up, this._half, lower * (1 - TRANSITION / 2), beta);
    /** @type {Float32Array} */
    this._input = new Float32Array(0);
    /** Index in this._input of the next output sample. */
    this._center = 0;
    this._phase = 0;
    this.clear();
  }

  /** Delay in input samples: how much later input an output sample depends on. */
  get delay() {
    return this._half;
  }

  /** Resets the state. */
  clear() {
    this._input = new Float32Array(this._half); // silence before the start
    this._center = this._half;
    this._phase = 0;
  }

  /**
   * Returns the output that `samples` completes.
   * @param {Float32Array} samples
   * @returns {Float32Array}
   */
  feed(samples) {
    if (this._half === 0) return samples.slice();
    const half = this._half;
    const input = new Float32Array(this._input.length + samples.length);
    input.set(this._input);
    input.set(samples, this._input.length);
    const usable = input.length - half - this._center; // centers with complete input
    const count = usable <= 0 ? 0 : Math.ceil((usable * this._up - this._phase) / this._down);
    const output = new Float32Array(count);
    for (let k = 0; k < count; k++) {
      const filter = this._filters[this._phase];
      let at = this._center - half + 1;
      let sum = 0;
      for (let tap = 0; tap < filter.length; tap++) sum += filter[tap] * input[at++];
      output[k] = sum;
      this._phase += this._down;
      this._center += Math.floor(this._phase / this._up);
      this._phase %= this._up;
    }
    const unneeded = Math.max(0, Math.min(this._center - half, input.length));
    this._input = input.slice(unneeded);
    this._center -= unneeded;
    return output;
  }

  /** Returns the remaining output, as if silence followed, and resets the state. */
  flush() {
    const rest = this.feed(new Float32Array(this._half));
    this.clear();
    return rest;
  }
}

/**
 * Returns one filter of 2 * half taps for each phase. Its taps sum to 1, so that a constant is preserved.
 * @param {number} up
 * @param {number} half
 * @param {number} cutoff relative to the input's Nyquist frequency
 * @param {number} beta of the Kaiser window
 */
function filters(up, half, cutoff, beta) {
  return Array.from({ length: half ? up : 0 }, (_, phase) => {
    const taps = new Float64Array(2 * half);
    for (let tap = 0; tap < taps.length; tap++) {
      const time = tap - half + 1 - phase / up; // in input samples from the center
      const inside = 1 - (time / half) ** 2;
      const window = inside > 0 ? bessel(beta * Math.sqrt(inside)) / bessel(beta) : 0;
      const angle = Math.PI * cutoff * time;
      taps[tap] = (angle === 0 ? 1 : Math.sin(angle) / angle) * window;
    }
    const sum = taps.reduce((total, tap) => total + tap, 0);
    return taps.map((tap) => tap / sum);
  });
}

/** Modified Bessel function of the first kind, order 0, as a power series. @param {number} x */
function bessel(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > sum * 1e-12; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** @param {number} a @param {number} b @returns {number} */
function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}
