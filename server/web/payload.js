/** Audio and tokens as the wire carries them: little-endian, 16 bits a unit. */

/** Bytes of one sample or token. */
export const UNIT_BYTES = 2;
const FULL_SCALE = 32768;

/** @param {Float32Array} samples full scale 1; louder ones are clipped @returns {Uint8Array} s16le */
export function audioToBytes(samples) {
  const view = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, i) => {
    const value = Math.max(-FULL_SCALE, Math.min(FULL_SCALE - 1, Math.round(sample * FULL_SCALE)));
    view.setInt16(i * 2, value, true);
  });
  return new Uint8Array(view.buffer);
}

/** @param {Uint8Array} payload s16le @returns {Float32Array} */
export function audioFromBytes(payload) {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return Float32Array.from({ length: payload.byteLength / 2 }, (_, i) => view.getInt16(i * 2, true) / FULL_SCALE);
}

/** @param {Uint16Array} tokens @returns {Uint8Array} */
export function tokensToBytes(tokens) {
  const view = new DataView(new ArrayBuffer(tokens.length * 2));
  tokens.forEach((token, i) => view.setUint16(i * 2, token, true));
  return new Uint8Array(view.buffer);
}

/** @param {Uint8Array} payload @returns {Uint16Array} */
export function tokensFromBytes(payload) {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return Uint16Array.from({ length: payload.byteLength / 2 }, (_, i) => view.getUint16(i * 2, true));
}
