/** One recording: the original, its tokens, and the output of the decoder and of other codecs. */

import { audioToBytes } from "../payload.js";

export const FRAME_S = 0.02;
export const INPUT_RATE = 16000;
export const INPUT_HOP = 320;
export const OUTPUT_RATE = 24000;
export const OUTPUT_HOP = 480;
const SAMPLE_BYTES = 2;

/** @typedef {{samples: Float32Array, rate: number}} Sound */

export class Take {
  /**
   * @param {object} parts
   * @param {string} parts.title
   * @param {string} parts.model model of the tokens
   * @param {Uint16Array} parts.tokens
   * @param {Float32Array | null} [parts.input] 16 kHz
   * @param {Float32Array | null} [parts.output] decoded tokens, 24 kHz; null until they are played
   * @param {Record<string, Sound>} [parts.others] output of other codecs by name
   * @param {string} [parts.credit]
   */
  constructor({ title, model, tokens, input = null, output = null, others = {}, credit = "" }) {
    this.title = title;
    this.model = model;
    this.tokens = tokens;
    this.input = input?.subarray(0, tokens.length * INPUT_HOP) ?? null;
    this.output = output;
    this.others = others;
    this.credit = credit;
  }

  get seconds() {
    return this.tokens.length * FRAME_S;
  }

  /** The playable tracks by name. @returns {Map<string, Sound>} */
  get sounds() {
    const sounds = new Map(Object.entries(this.others));
    if (this.output !== null) sounds.set("neucodec", { samples: this.output, rate: OUTPUT_RATE });
    if (this.input !== null) sounds.set("original", { samples: this.input, rate: INPUT_RATE });
    return sounds;
  }
}

/** Size in bytes as 16-bit samples at 16 kHz, and as tokens. @param {number} frames */
export const bytesOf = (frames) => ({ pcm: frames * INPUT_HOP * SAMPLE_BYTES, tokens: frames * SAMPLE_BYTES });

/** Returns a 16-bit WAV file. @param {Float32Array} samples mono @param {number} rate */
export function wavFile(samples, rate) {
  const data = audioToBytes(samples);
  const header = new DataView(new ArrayBuffer(44));
  const text = (/** @type {number} */ at, /** @type {string} */ letters) =>
    [...letters].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + data.byteLength, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channel
  header.setUint32(24, rate, true);
  header.setUint32(28, rate * 2, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, data.byteLength, true);
  return new Blob([header, data], { type: "audio/wav" });
}

/** Concatenates samples. @param {Float32Array[]} parts */
export function joined(parts) {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
