/** The speaker: 24 kHz audio goes in in bursts, an even flow comes out. The work is in speaker-worklet.js. */

import { demandSecureOrigin } from "./sound.js";

/**
 * @typedef {{heard: Float32Array, time: number, position: number, bufferedMs: number, slackMs: number,
 *   marginMs: number, underruns: number, removed: number, playing: boolean}} Playback 20 ms of what goes to the device,
 *   at 24 kHz; `position` of the stream leaves at `time` of the context's clock
 */

export class Speaker {
  /**
   * @param {AudioContext} context
   * @param {AudioWorkletNode} node
   */
  constructor(context, node) {
    this._node = node;
    /** Where another sound may be connected, to be muted with this one. */
    this.output = new GainNode(context);
    node.connect(this.output).connect(context.destination);
  }

  /**
   * Rejects with SoundError on an insecure page.
   * @param {AudioContext} context
   * @param {{live?: boolean, onPlayback?: (playback: Playback) => void}} options `live`: audio comes at the pace at
   *   which it is played, so that a surplus in the buffer is a delay to be taken out
   */
  static async open(context, { live = false, onPlayback = () => {} } = {}) {
    demandSecureOrigin();
    await context.audioWorklet.addModule(new URL("speaker-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "neucodec-speaker", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { live },
    });
    node.port.onmessage = ({ data }) => onPlayback(data);
    return new Speaker(context, node);
  }

  /**
   * Queues audio that begins at a position of the stream; the array is given away.
   * @param {Float32Array} samples at 24 kHz
   * @param {number} position
   */
  push(samples, position) {
    this._node.port.postMessage({ samples, position }, [samples.buffer]);
  }

  /** No more is coming for now: all of it is played, and the end is no underrun. */
  finish() {
    this._node.port.postMessage({ finish: true });
  }

  /** Silence within a few milliseconds; what was queued is dropped. */
  clear() {
    this._node.port.postMessage({ clear: true });
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
  }
}
