/** The live recording: input, tokens and output of the last two minutes, in memory of fixed size. */

import { audioToBytes } from "../payload.js";
import { FRAME_S, INPUT_HOP, INPUT_RATE, OUTPUT_HOP, Take } from "./take.js";

/** Input that a live session keeps when it skips to the present. */
const MAX_BEHIND_S = 0.3;
const MAX_FRAMES = 2 * 60 * 50;

/** The units of the last MAX_FRAMES frames. */
class Track {
  /**
   * @param {typeof Int16Array | typeof Uint16Array} Store
   * @param {number} hop units in a frame
   */
  constructor(Store, hop) {
    this._units = new Store(MAX_FRAMES * hop);
    this.count = 0;
  }

  /** @param {ArrayLike<number>} units */
  add(units) {
    for (let i = 0; i < units.length; i++) this._units[this.count++ % this._units.length] = units[i];
  }

  /**
   * Removes `count` units before the last `last` ones.
   * @param {number} count @param {number} last
   */
  cut(count, last) {
    const size = this._units.length;
    const taken = Math.min(count, this.count - last);
    for (let i = this.count - last; taken > 0 && i < this.count; i++) {
      this._units[(i - taken) % size] = this._units[i % size];
    }
    this.count -= Math.max(0, taken);
  }

  /** All kept units, oldest first. */
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

export class History {
  constructor() {
    this.input = new Track(Int16Array, INPUT_HOP);
    this.tokens = new Track(Uint16Array, 1);
    this.output = new Track(Int16Array, OUTPUT_HOP);
    /** Whether the output covers all tokens. */
    this._isWhole = true;
  }

  /**
   * A live session has skipped to the present: removes the skipped sound.
   * @param {"input" | "output"} kind @param {number} seconds
   */
  skip(kind, seconds) {
    if (kind === "input") this.input.cut(Math.round(seconds * INPUT_RATE), MAX_BEHIND_S * INPUT_RATE);
    else this._isWhole = false;
  }

  clear() {
    for (const track of [this.input, this.tokens, this.output]) track.count = 0;
    this._isWhole = true;
  }

  /** @param {"input" | "output"} track @param {Float32Array} samples */
  addAudio(track, samples) {
    this[track].add(new Int16Array(audioToBytes(samples).buffer));
  }

  get seconds() {
    return this.tokens.count * FRAME_S;
  }

  /** Returns the recording as a take. @param {string} model */
  take(model) {
    const tokens = /** @type {Uint16Array} */ (this.tokens.units);
    return new Take({
      title: "Your live recording",
      model,
      tokens,
      input: samplesOf(this.input.units, tokens.length * INPUT_HOP),
      output: this._isWhole ? samplesOf(this.output.units, tokens.length * OUTPUT_HOP) : null,
    });
  }
}

/** The last `count` 16-bit samples as floats. @param {Int16Array | Uint16Array} units @param {number} count */
function samplesOf(units, count) {
  const samples = new Float32Array(count);
  units.subarray(-count).forEach((unit, i) => (samples[i] = unit / 32768));
  return samples;
}
