/** Encodes and decodes whole recordings, each in its own session. */

import { joined } from "./take.js";

/**
 * @typedef {import("./server.js").Server} Server
 */

/**
 * Encodes audio to tokens.
 * @param {Server} server
 * @param {Float32Array} samples 16 kHz
 * @param {AbortSignal} signal
 */
export async function encode(server, samples, signal) {
  /** @type {number[]} */
  const tokens = [];
  await through(server, "encode", samples, signal, (output) => tokens.push(...output));
  return Uint16Array.from(tokens);
}

/**
 * Decodes tokens to audio at 24 kHz; `onAudio` also gets it as it arrives.
 * @param {Server} server
 * @param {Uint16Array} tokens
 * @param {AbortSignal} signal
 * @param {(audio: Float32Array) => void} [onAudio]
 */
export async function decode(server, tokens, signal, onAudio = () => {}) {
  /** @type {Float32Array[]} */
  const parts = [];
  await through(server, "decode", tokens, signal, (output) => {
    const audio = /** @type {Float32Array} */ (output);
    parts.push(audio);
    onAudio(audio);
  });
  return joined(parts);
}

/**
 * @param {Server} server
 * @param {"encode" | "decode"} kind
 * @param {Float32Array | Uint16Array} units
 * @param {AbortSignal} signal
 * @param {(output: Float32Array | Uint16Array) => void} onOutput
 */
async function through(server, kind, units, signal, onOutput) {
  const connection = await server.connect({ kind, signal, onOutput });
  try {
    await connection.send(/** @type {any} */ (units));
    await connection.end();
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    connection.close();
  }
}
