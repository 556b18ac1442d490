/**
 * The microphone as 20 ms frames at 16 kHz, from a device of any rate. It needs a secure origin (https or localhost)
 * and the user's permission; `open` rejects with a SoundError that says what is missing. It never opens by itself.
 */

import { SoundError, demandSound, keepAwake } from "./sound.js";
import { addWorklet } from "./worklets.js";

/** A live microphone drops later frames. */
const MAX_LATE_S = 0.3;
const FRAME_S = 0.02;

/**
 * @typedef {{samples: Float32Array, time: number}} Frame 320 samples; `time` is the context time of the first one
 * @typedef {object} MicrophoneOptions
 * @property {(frame: Frame) => void} onFrame
 * @property {() => void} [onEnded] called when the device has disappeared and the microphone is closed
 * @property {boolean} [live] drops frames that the page handles more than 0.3 s late, and reports them to `onSkip`
 * @property {(seconds: number) => void} [onSkip]
 * @property {boolean} [echoCancellation] off by default: it degrades the sound, so enable it only without headphones
 * @property {boolean} [noiseSuppression] off by default
 * @property {boolean} [autoGainControl] off by default
 * @property {string} [deviceId] one of `Microphone.devices()`
 * @property {MediaStream} [stream] used instead of a device; the caller stops it
 * @property {AbortSignal} [signal] aborts the opening, and later closes the microphone
 * @property {string | URL} [workletUrl] URL of worklet.js, for pages whose policy forbids `blob:` scripts
 */

const REASONS = {
  NotAllowedError: ["refused", "The microphone was refused. Allow it in your browser's site settings and try again."],
  NotFoundError: ["missing", "No microphone was found. Connect one and try again."],
  OverconstrainedError: ["missing", "That microphone is no longer available. Choose another one."],
  NotReadableError: ["busy", "The microphone cannot be used: another program may be using it."],
};

export class Microphone {
  /**
   * Use `Microphone.open` instead.
   * @param {AudioContext} context
   * @param {MediaStream} stream
   * @param {MicrophoneOptions} options
   */
  constructor(context, stream, { onFrame, onEnded = () => {}, live = false, onSkip = () => {}, stream: given }) {
    this._source = context.createMediaStreamSource(stream);
    this._node = new AudioWorkletNode(context, "neucodec-microphone", { numberOfOutputs: 0 });
    this._own = given === undefined ? stream : null;
    this._letSleep = keepAwake(context);
    /** Whether frames are replaced with silence. */
    this.muted = false;
    /** Root mean square of the latest frame; full scale is 1. */
    this.level = 0;
    this._node.port.onmessage = ({ data }) => {
      const { samples, time } = /** @type {Frame} */ (data);
      if (live && context.currentTime - time - FRAME_S > MAX_LATE_S) return onSkip(FRAME_S);
      if (this.muted) samples.fill(0);
      this.level = Math.hypot(...samples) / Math.sqrt(samples.length);
      onFrame({ samples, time });
    };
    this._source.connect(this._node);
    const [track] = stream.getAudioTracks();
    this.label = track.label;
    this._closed = new AbortController();
    const lost = () => {
      this.close();
      onEnded();
    };
    track.addEventListener("ended", lost, { signal: this._closed.signal });
  }

  /** Lists the audio inputs; browsers reveal their labels only after the user has allowed one. */
  static async devices() {
    const all = await navigator.mediaDevices.enumerateDevices();
    return all.filter(({ kind }) => kind === "audioinput").map(({ deviceId, label }) => ({ deviceId, label }));
  }

  /**
   * Asks for the microphone and starts it; releases the device on failure or abort. Rejects with SoundError, or with
   * the abort reason of `signal`.
   * @param {AudioContext} context from `openContext`, or one of your own
   * @param {MicrophoneOptions} options
   */
  static async open(context, options) {
    const { signal, workletUrl } = options;
    demandSound();
    signal?.throwIfAborted();
    await addWorklet(context, workletUrl);
    signal?.throwIfAborted();
    const stream = options.stream ?? (await ask(options));
    try {
      signal?.throwIfAborted();
      const microphone = new Microphone(context, stream, options);
      signal?.addEventListener("abort", () => microphone.close(), { signal: microphone._closed.signal });
      return microphone;
    } catch (error) {
      if (stream !== options.stream) letGo(stream);
      throw signal?.aborted ? error : failed(error);
    }
  }

  /** Releases the device. */
  close() {
    this._closed.abort();
    this._node.port.onmessage = null;
    this._node.port.postMessage("close");
    this._source.disconnect();
    this._letSleep();
    if (this._own) letGo(this._own);
  }
}

/** @param {MediaStream} stream */
function letGo(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/** @param {MicrophoneOptions} options */
async function ask({ echoCancellation = false, noiseSuppression = false, autoGainControl = false, deviceId, signal }) {
  const device = deviceId === undefined ? {} : { deviceId: { exact: deviceId } };
  const audio = { channelCount: 1, echoCancellation, noiseSuppression, autoGainControl, ...device };
  const asked = navigator.mediaDevices.getUserMedia({ audio }).catch((error) => Promise.reject(failed(error)));
  // The browser's prompt stays open after an abort: a stream that it returns later is released at once.
  const aborted = new Promise((_, reject) => {
    signal?.addEventListener("abort", () => {
      asked.then(letGo, () => {});
      reject(signal.reason);
    });
  });
  return Promise.race([asked, /** @type {Promise<never>} */ (aborted)]);
}

/** @param {unknown} error */
function failed(error) {
  const { name, message } = /** @type {DOMException} */ (error);
  const known = REASONS[/** @type {keyof typeof REASONS} */ (name)];
  const [reason, said] = known ?? ["failed", `The microphone could not be started: ${message}`];
  return new SoundError(reason, said);
}
