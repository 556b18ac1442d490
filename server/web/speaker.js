/** The speaker: audio arrives in bursts and is played evenly. The work is done in speaker-worklet.js. */

import { demandSound, keepAwake } from "./sound.js";
import { addWorklet } from "./worklets.js";

/**
 * @typedef {{heard: Float32Array, time: number, position: number, bufferedMs: number, slackMs: number,
 *   marginMs: number, underruns: number, removed: number, skipped: number, playing: boolean}} Playback 20 ms of
 *   the sound that goes to the device, at 24 kHz; `position` of the stream leaves at context time `time`. `removed`
 *   counts samples removed in short pieces, `skipped` those skipped to return to the present.
 * @typedef {object} SpeakerOptions
 * @property {boolean} [live] audio arrives in real time, so that a surplus in the buffer is a delay; it is removed, at
 *   once if it exceeds 0.3 s
 * @property {number} [rate] sample rate of the audio in Hz, by default 24000
 * @property {(playback: Playback) => void} [onPlayback]
 * @property {string | URL} [workletUrl] URL of worklet.js, for pages whose policy forbids `blob:` scripts
 */

export class Speaker {
  /** Use `Speaker.open` instead. @param {AudioContext} context @param {AudioWorkletNode} node */
  constructor(context, node) {
    this._context = context;
    this._node = node;
    /** @type {(() => void) | null} */
    this._letSleep = null;
    this._isFlowing = false;
    /** @type {(() => void)[]} a resolver for each end that has not been reached */
    this._ends = [];
    /** Other sounds connected here are muted along with this one. */
    this.output = new GainNode(context);
    node.connect(this.output).connect(context.destination);
  }

  /**
   * Opens a speaker. Rejects with SoundError on an insecure page or without Web Audio.
   * @param {AudioContext} context from `openContext`, or one of your own
   * @param {SpeakerOptions} options
   */
  static async open(context, { live = false, rate = 24000, onPlayback = () => {}, workletUrl } = {}) {
    demandSound();
    await addWorklet(context, workletUrl);
    const node = new AudioWorkletNode(context, "neucodec-speaker", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { live, rate },
    });
    const speaker = new Speaker(context, node);
    node.port.onmessage = ({ data }) => (data.ended ? speaker._reachEnd() : onPlayback(data));
    return speaker;
  }

  /**
   * Queues audio that starts at `position` of the stream. The array is transferred, so the caller can no longer use it.
   * @param {Float32Array} samples
   * @param {number} position
   */
  push(samples, position) {
    this._letSleep ??= keepAwake(this._context);
    this._isFlowing = true;
    this._node.port.postMessage({ samples, position }, [samples.buffer]);
  }

  /**
   * Ends the utterance: everything queued is played, and its end does not count as an underrun. Resolves when it has
   * been played, or dropped by `clear` or `close`.
   * @returns {Promise<void>}
   */
  finish() {
    return this._expectEnd({ finish: true });
  }

  /** Drops queued audio; the speaker is silent within a few milliseconds. */
  clear() {
    this._expectEnd({ clear: true });
  }

  /** @param {boolean} muted */
  set muted(muted) {
    this.output.gain.value = muted ? 0 : 1;
  }

  close() {
    this._node.port.onmessage = null;
    this._node.port.postMessage({ close: true });
    this._node.disconnect();
    this.output.disconnect();
    this._isFlowing = false;
    while (this._ends.length > 0) this._reachEnd();
    this._letSleep?.();
  }

  /** @param {object} order @returns {Promise<void>} */
  _expectEnd(order) {
    this._isFlowing = false;
    this._node.port.postMessage(order);
    return new Promise((resolve) => this._ends.push(resolve));
  }

  _reachEnd() {
    this._ends.shift()?.();
    if (this._isFlowing || this._ends.length > 0) return;
    this._letSleep?.();
    this._letSleep = null;
  }
}
