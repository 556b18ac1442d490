/** The speaker: 24 kHz audio goes in in bursts, an even flow comes out. The work is in speaker-worklet.js. */

import { demandSound, keepAwake } from "./sound.js";
import { addWorklet } from "./worklets.js";

/**
 * @typedef {{heard: Float32Array, time: number, position: number, bufferedMs: number, slackMs: number,
 *   marginMs: number, underruns: number, removed: number, skipped: number, playing: boolean}} Playback 20 ms of what
 *   goes to the device, at 24 kHz; `position` of the stream leaves at `time` of the context's clock. `removed` counts
 *   samples left out in small pieces, `skipped` those left out to return to the present.
 * @typedef {object} SpeakerOptions
 * @property {boolean} [live] audio comes at the pace at which it is played, so that a surplus in the buffer is a delay,
 *   which is removed, at once if it exceeds 0.3 s
 * @property {number} [rate] Hz of the audio, 24000
 * @property {(playback: Playback) => void} [onPlayback]
 * @property {string | URL} [workletUrl] of worklet.js, for pages whose policy forbids `blob:` scripts
 */

export class Speaker {
  /** Use `Speaker.open`. @param {AudioContext} context @param {AudioWorkletNode} node */
  constructor(context, node) {
    this._context = context;
    this._node = node;
    /** @type {(() => void) | null} */
    this._letSleep = null;
    this._isFlowing = false;
    /** @type {(() => void)[]} one for each end that has not been reached */
    this._ends = [];
    /** Where another sound may be connected, to be muted with this one. */
    this.output = new GainNode(context);
    node.connect(this.output).connect(context.destination);
  }

  /**
   * Rejects with SoundError on an insecure page and without Web Audio.
   * @param {AudioContext} context of `openContext`, or one of your own
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
   * Queues audio that begins at a position of the stream; the array is given away.
   * @param {Float32Array} samples
   * @param {number} position
   */
  push(samples, position) {
    this._letSleep ??= keepAwake(this._context);
    this._isFlowing = true;
    this._node.port.postMessage({ samples, position }, [samples.buffer]);
  }

  /**
   * The utterance is complete: everything is played, and the end does not count as an underrun. Resolves when it has
   * been played, or dropped by `clear` or `close`.
   * @returns {Promise<void>}
   */
  finish() {
    return this._expectEnd({ finish: true });
  }

  /** Silence within a few milliseconds; queued audio is dropped. */
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
