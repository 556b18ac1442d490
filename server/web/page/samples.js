/** The recordings that come with the page, and the user's files. */

import { MODEL, SAMPLES } from "../samples/samples.js";
import { tokensFromBytes } from "../payload.js";
import { INPUT_RATE, OUTPUT_RATE, Take } from "./take.js";
import { bytesFromBase64, tokensFromFile } from "./tokens.js";

export { MODEL, SAMPLES };

/** Longer files are cut. */
export const MAX_FILE_SECONDS = 30;
const NARROW_RATE = 8000;
const TOKEN_FILE = /\.(tok|txt)$/i;

/** Loads a recording of the page. @param {typeof SAMPLES[number]} sample */
export async function sampleTake({ name, title, credit, tokens }) {
  const sound = (/** @type {string} */ track, /** @type {number} */ rate) => load(`${name}.${track}.flac`, rate);
  const [input, output, opus, codec2] = await Promise.all([
    sound("original", INPUT_RATE),
    sound("neucodec", OUTPUT_RATE),
    sound("opus", NARROW_RATE),
    sound("codec2", NARROW_RATE),
  ]);
  return new Take({
    title,
    credit,
    input,
    output,
    model: MODEL.name,
    tokens: tokensFromBytes(bytesFromBase64(tokens)),
    others: { opus: { samples: opus, rate: NARROW_RATE }, codec2: { samples: codec2, rate: NARROW_RATE } },
  });
}

/**
 * Reads tokens, or audio at 16 kHz, from a file. Rejects with an Error that says what is wrong with the file.
 * @param {File} file
 * @returns {Promise<{tokens?: Uint16Array, audio?: Float32Array, cut: boolean}>} `cut`: the file was longer
 */
export async function readFile(file) {
  const bytes = await file.arrayBuffer();
  const frames = MAX_FILE_SECONDS * 50;
  try {
    if (TOKEN_FILE.test(file.name)) {
      const tokens = tokensFromFile(new Uint8Array(bytes), file.name);
      return { tokens: tokens.slice(0, frames), cut: tokens.length > frames };
    }
    const audio = await decodeAudio(bytes, INPUT_RATE);
    if (audio.length < INPUT_RATE / 10) throw new RangeError("it is shorter than a tenth of a second");
    return { audio: audio.slice(0, frames * 320), cut: audio.length > frames * 320 };
  } catch (error) {
    const reason = error instanceof RangeError ? error.message : "this browser cannot read it as audio";
    throw new Error(`${file.name} could not be opened: ${reason}.`);
  }
}

/** @param {string} name @param {number} rate */
async function load(name, rate) {
  const answer = await fetch(new URL(`../samples/${name}`, import.meta.url));
  if (!answer.ok) throw new Error(`The server did not deliver ${name} (HTTP status ${answer.status}).`);
  return decodeAudio(await answer.arrayBuffer(), rate);
}

/** Decodes an audio file to mono at `rate`. @param {ArrayBuffer} bytes @param {number} rate */
async function decodeAudio(bytes, rate) {
  const buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i));
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}
