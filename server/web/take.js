/** What was said last: input, tokens and output of the last two minutes, in memory that does not grow. */

import { audioToBytes } from "./payload.js";

const MOST_FRAMES = 2 * 60 * 50;

/** Units in frames, of which the last MOST_FRAMES are kept. */
class Track {
  /**
   * @param {typeof Int16Array | typeof Uint16Array} Store
   * @param {number} hop units in a frame
   */
  constructor(Store, hop) {
    this._units = new Store(MOST_FRAMES * hop);
    this.count = 0;
  }

  clear() {
    this.count = 0;
  }

  /** @param {ArrayLike<number>} units */
  add(units) {
    for (let i = 0; i < units.length; i++) this._units[this.count++ % this._units.length] = units[i];
  }

  /** All that is kept, oldest first. */
  get units() {
    const size = this._units.length;
    if (this.count <= size) return this._units.slice(0, this.count);
    const oldest = this.count % size;
    const whole = this._units.slice();
    whole.set(this._units.subarray(oldest));
    whole.set(this._units.subarray(0, oldest), size - oldest);
    return whole;
  }
}

export class Take {
  constructor() {
    this.input = new Track(Int16Array, 320);
    this.tokens = new Track(Uint16Array, 1);
    this.output = new Track(Int16Array, 480);
  }

  clear() {
    for (const track of [this.input, this.tokens, this.output]) track.clear();
  }

  /** @param {"input" | "output"} track @param {Float32Array} samples */
  addAudio(track, samples) {
    this[track].add(new Int16Array(audioToBytes(samples).buffer));
  }

  /** Float32Array at 16 kHz. */
  get inputAudio() {
    return Float32Array.from(this.input.units, (value) => value / 32768);
  }

  /** The output as a WAV file. */
  get wav() {
    return wavFile(/** @type {Int16Array} */ (this.output.units), 24000);
  }
}

/** @param {Int16Array} samples @param {number} rate mono */
export function wavFile(samples, rate) {
  const header = new DataView(new ArrayBuffer(44));
  const text = (/** @type {number} */ at, /** @type {string} */ letters) =>
    [...letters].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + samples.byteLength, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channel
  header.setUint32(24, rate, true);
  header.setUint32(28, rate * 2, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, samples.byteLength, true);
  return new Blob([header, samples], { type: "audio/wav" });
}
