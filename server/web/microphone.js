/**
 * The microphone as frames of 20 ms at 16 kHz, whatever rate the device has. Needs a secure origin (https or localhost)
 * and the user's leave; `open` says in a SoundError what is missing.
 */

import { SoundError, demandSecureOrigin } from "./sound.js";

/**
 * @typedef {{samples: Float32Array, time: number}} Frame 320 samples; `time` is the context's clock at the first one
 */

const REASONS = {
  NotAllowedError: ["refused", "The microphone was refused. Allow it in the browser's site settings, then try again."],
  NotFoundError: ["missing", "There is no microphone. Plug one in, or open a file instead."],
  NotReadableError: ["busy", "The microphone cannot be read: another program may hold it."],
};
export class Microphone {
  /**
   * @param {AudioContext} context
   * @param {MediaStream} stream
   * @param {(frame: Frame) => void} onFrame
   * @param {() => void} onEnded the device has gone away
   */
  constructor(context, stream, onFrame, onEnded) {
    this._stream = stream;
    this._source = context.createMediaStreamSource(stream);
    this._node = new AudioWorkletNode(context, "neucodec-microphone", { numberOfOutputs: 0 });
    this._node.port.onmessage = ({ data }) => onFrame(data);
    this._source.connect(this._node);
    const [track] = stream.getAudioTracks();
    track.onended = onEnded;
    this.label = track.label;
  }

  /**
   * Asks for the microphone and starts it.
   * @param {AudioContext} context running
   * @param {{echoCancellation: boolean, onFrame: (frame: Frame) => void, onEnded: () => void}} options
   */
  static async open(context, { echoCancellation, onFrame, onEnded }) {
    demandSecureOrigin();
    await context.audioWorklet.addModule(new URL("microphone-worklet.js", import.meta.url));
    const audio = { channelCount: 1, echoCancellation, noiseSuppression: false, autoGainControl: false };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      const { name, message } = /** @type {DOMException} */ (error);
      const known = REASONS[/** @type {keyof typeof REASONS} */ (name)];
      const [reason, said] = known ?? ["failed", `The microphone does not start: ${message}`];
      throw new SoundError(reason, said);
    }
    return new Microphone(context, stream, onFrame, onEnded);
  }

  /** Lets go of the device. */
  close() {
    this._node.port.onmessage = null;
    this._node.port.postMessage("close");
    this._source.disconnect();
    for (const track of this._stream.getTracks()) track.stop();
  }
}
