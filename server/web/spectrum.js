/** Sound as columns of a picture: loudness in bands that are spaced as the ear hears, by a short Fourier transform. */

const SIZE = 1024;
const LOWEST_HZ = 50;
export const HIGHEST_HZ = 12000;
const QUIETEST_DB = -92;
const LOUDEST_DB = -28;

/** @param {number} hz */
const mel = (hz) => 2595 * Math.log10(1 + hz / 700);
/** @param {number} value */
const hertz = (value) => 700 * (10 ** (value / 2595) - 1);

/** Where a frequency lies in a picture, 0 at the bottom and 1 at the top. @param {number} hz */
export const heightOf = (hz) => (mel(hz) - mel(LOWEST_HZ)) / (mel(HIGHEST_HZ) - mel(LOWEST_HZ));

export class Spectrum {
  /** @param {number} rate of the sound @param {number} rows of the picture */
  constructor(rate, rows) {
    const length = Math.round(rate * 0.032);
    this._window = Float32Array.from({ length }, (_, i) => (1 - Math.cos((2 * Math.PI * i) / length)) / length);
    this._history = new Float32Array(length);
    this._real = new Float32Array(SIZE);
    this._imaginary = new Float32Array(SIZE);
    this._bins = Array.from({ length: rows }, (_, row) => {
      const [from, to] = [row, row + 1].map((edge) => {
        const share = edge / rows;
        return (hertz(mel(LOWEST_HZ) * (1 - share) + mel(HIGHEST_HZ) * share) * SIZE) / rate;
      });
      return { from: Math.floor(from), to: Math.max(Math.floor(from) + 1, Math.ceil(to)) };
    });
  }

  /**
   * One column: loudness of each row, 0 to 255, the lowest first.
   * @param {Float32Array} samples the newest, shorter than the window
   */
  column(samples) {
    const { _history: history, _real: real, _imaginary: imaginary } = this;
    history.copyWithin(0, samples.length);
    history.set(samples, history.length - samples.length);
    real.fill(0);
    imaginary.fill(0);
    for (let i = 0; i < history.length; i++) real[i] = history[i] * this._window[i];
    transform(real, imaginary);
    return Uint8Array.from(this._bins, ({ from, to }) => {
      if (from >= SIZE / 2) return 0;
      let power = 1e-12;
      for (let bin = from; bin < Math.min(to, SIZE / 2); bin++)
        power = Math.max(power, real[bin] ** 2 + imaginary[bin] ** 2);
      const share = (10 * Math.log10(power) - QUIETEST_DB) / (LOUDEST_DB - QUIETEST_DB);
      return Math.max(0, Math.min(255, Math.round(share * 255)));
    });
  }
}

const COSINE = Float32Array.from({ length: SIZE / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / SIZE));
const SINE = Float32Array.from({ length: SIZE / 2 }, (_, i) => Math.sin((2 * Math.PI * i) / SIZE));

/** In place, radix 2. @param {Float32Array} real @param {Float32Array} imaginary of SIZE */
function transform(real, imaginary) {
  for (let i = 1, j = 0; i < SIZE; i++) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j], imaginary[i], imaginary[j]] = [real[j], real[i], imaginary[j], imaginary[i]];
  }
  for (let width = 2; width <= SIZE; width *= 2) {
    const stride = SIZE / width;
    for (let start = 0; start < SIZE; start += width) {
      for (let k = 0; k < width / 2; k++) {
        const [a, b] = [start + k, start + k + width / 2];
        const [cosine, sine] = [COSINE[k * stride], SINE[k * stride]];
        const turnedReal = real[b] * cosine + imaginary[b] * sine;
        const turnedImaginary = imaginary[b] * cosine - real[b] * sine;
        [real[b], imaginary[b]] = [real[a] - turnedReal, imaginary[a] - turnedImaginary];
        [real[a], imaginary[a]] = [real[a] + turnedReal, imaginary[a] + turnedImaginary];
      }
    }
  }
}
