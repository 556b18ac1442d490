/** Audio and tokens as bytes, in the wire formats of docs/protocol.md. The Python twin is streaming/audio.py. */

/**
 * Format of the binary messages in one direction.
 * @typedef {"s16le" | "f32le" | "mulaw" | "alaw"} AudioFormat
 * @typedef {{kind: "audio" | "tokens", format: AudioFormat | "u16le", rate: number}} StreamFormat
 */

export const FRAME_MS = 20;
/** Bytes of one sample or token. */
const UNIT_BYTES = { s16le: 2, f32le: 4, mulaw: 1, alaw: 1, u16le: 2 };
const FULL_SCALE = 32768;

/** Units in one frame of 20 ms. @param {StreamFormat} format */
export const hopOf = ({ rate }) => (rate * FRAME_MS) / 1000;

/** Bytes of one sample or token. @param {StreamFormat} format */
export const unitBytesOf = ({ format }) => UNIT_BYTES[format];

/** @param {Float32Array | Uint16Array} units @param {StreamFormat} format */
export const toPayload = (units, { format }) =>
  format === "u16le" ? tokensToBytes(units) : audioToBytes(/** @type {Float32Array} */ (units), format);

/** @param {Uint8Array} payload @param {StreamFormat} format */
export const fromPayload = (payload, { format }) =>
  format === "u16le" ? tokensFromBytes(payload) : audioFromBytes(payload, format);

/**
 * Encodes audio.
 * @param {Float32Array} samples full scale is 1; louder samples are clipped, except in f32le
 * @param {AudioFormat} format
 */
export function audioToBytes(samples, format = "s16le") {
  const view = new DataView(new ArrayBuffer(samples.length * UNIT_BYTES[format]));
  if (format === "f32le") {
    samples.forEach((sample, i) => view.setFloat32(i * 4, sample, true));
    return new Uint8Array(view.buffer);
  }
  const law = format === "mulaw" || format === "alaw" ? g711(format) : null;
  samples.forEach((sample, i) => {
    const value = Math.max(-FULL_SCALE, Math.min(FULL_SCALE - 1, Math.round(sample * FULL_SCALE)));
    if (law === null) view.setInt16(i * 2, value, true);
    else view.setUint8(i, law.encoded[value & 0xffff]);
  });
  return new Uint8Array(view.buffer);
}

/** @param {Uint8Array} payload @param {AudioFormat} format */
export function audioFromBytes(payload, format = "s16le") {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const samples = new Float32Array(payload.byteLength / UNIT_BYTES[format]);
  const read = {
    s16le: (/** @type {number} */ i) => view.getInt16(i * 2, true) / FULL_SCALE,
    f32le: (/** @type {number} */ i) => view.getFloat32(i * 4, true),
    mulaw: (/** @type {number} */ i) => g711("mulaw").decoded[view.getUint8(i)],
    alaw: (/** @type {number} */ i) => g711("alaw").decoded[view.getUint8(i)],
  }[format];
  for (let i = 0; i < samples.length; i++) samples[i] = read(i);
  return samples;
}

/** @param {ArrayLike<number>} tokens */
export function tokensToBytes(tokens) {
  const view = new DataView(new ArrayBuffer(tokens.length * 2));
  for (let i = 0; i < tokens.length; i++) view.setUint16(i * 2, tokens[i], true);
  return new Uint8Array(view.buffer);
}

/** @param {Uint8Array} payload */
export function tokensFromBytes(payload) {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return Uint16Array.from({ length: payload.byteLength / 2 }, (_, i) => view.getUint16(i * 2, true));
}

/** @type {Partial<Record<"mulaw" | "alaw", {decoded: Float32Array, encoded: Uint8Array}>>} */
const G711 = {};

/** Tables of an ITU-T G.711 law: byte to sample, and 16-bit sample to byte. @param {"mulaw" | "alaw"} law */
const g711 = (law) => (G711[law] ??= g711Tables(law));

/** @param {"mulaw" | "alaw"} law */
function g711Tables(law) {
  const decoded = new Float32Array(256);
  const encoded = new Uint8Array(65536);
  const steps = Array.from({ length: 128 }, (_, step) => {
    const [segment, place] = [step >> 4, step & 15];
    if (law === "mulaw") {
      const value = ((8 * place + 132) << segment) - 132;
      return { value, from: Math.max(value - (4 << segment), 0), code: 0xff - step };
    }
    const double = Math.max(segment - 1, 0);
    const value = (16 * place + 8 + (segment > 0 ? 256 : 0)) << double;
    return { value, from: value - (8 << double), code: step ^ 0xd5 };
  });
  steps.forEach(({ value, from, code }, step) => {
    decoded[code] = value / FULL_SCALE;
    decoded[code ^ 0x80] = -value / FULL_SCALE;
    for (let sample = from; sample < (steps[step + 1]?.from ?? FULL_SCALE); sample++) {
      encoded[sample] = code;
      encoded[~sample & 0xffff] = code ^ 0x80; // as the reference software of ITU-T G.191
    }
  });
  return { decoded, encoded };
}
