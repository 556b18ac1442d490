/** The latency from the microphone to the speaker, and its algorithmic part. */

import { FRAME_MS } from "../protocol.js";

const MEL_OVERHANG_MS = 15;
const ISTFT_REACH = 2;
const AVERAGED_S = 1;

/** @typedef {{chunk_frames: number, lookahead_frames: number}} Profile */

/**
 * Algorithmic latency in milliseconds: the longest wait of a sample for later samples in encoder and decoder together.
 * The twin of `roundtrip_latency_ms` in streaming/config.py.
 * @param {Profile} profile
 */
export function algorithmicMs({ chunk_frames: chunk, lookahead_frames: lookahead }) {
  const lag = Math.max(0, ISTFT_REACH - lookahead);
  let longest = 0;
  for (let step = Math.floor(lag / chunk) + 1, end = step + chunk * chunk; step < end; step++) {
    const encoderSteps = Math.ceil(((step + 1) * chunk + lookahead) / chunk);
    const leaves = ((encoderSteps - 1) * chunk + chunk + lookahead) * FRAME_MS + MEL_OVERHANG_MS;
    longest = Math.max(longest, leaves - (step * chunk - lag) * FRAME_MS);
  }
  return longest;
}

/** Number of samples that the encoder needs for `tokens` tokens. @param {number} tokens @param {Profile} profile */
export const samplesNeeded = (tokens, { lookahead_frames: lookahead }) => (tokens + lookahead) * 320 + 240;

/** Number of tokens that the decoder needs for `frames` frames. @param {number} frames @param {Profile} profile */
export const tokensNeeded = (frames, { lookahead_frames: lookahead }) => frames + Math.max(lookahead, ISTFT_REACH);

/** An exponential average with a time constant of AVERAGED_S. */
export class Average {
  constructor() {
    /** @type {number | null} */
    this.value = null;
    this._time = 0;
  }

  /** @param {number} measured @param {number} time seconds */
  add(measured, time) {
    const weight = 1 - Math.exp((this._time - time) / AVERAGED_S);
    this.value = this.value === null ? measured : this.value + (measured - this.value) * weight;
    this._time = time;
  }
}
