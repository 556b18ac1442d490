/**
 * Live audio to tokens to audio: an encode session, a decode session, and the speaker.
 *
 * The loop knows when each sample came in, so it can measure the latency of the sample that is heard now. Both sessions
 * are live: after an interruption they skip to the present.
 */

import { FRAME_MS } from "../neucodec.js";
import { Average, algorithmicMs, samplesNeeded, tokensNeeded } from "./latency.js";
import { INPUT_HOP, INPUT_RATE, OUTPUT_HOP } from "./take.js";

const MAX_REMEMBERED = 1024;
/** Limit of input waiting in the socket; beyond it, frames are lost and counted. */
const MAX_BUFFERED_BYTES = 0.5 * INPUT_RATE * 2;

/**
 * @typedef {object} Callbacks
 * @property {(tokens: Uint16Array) => void} onTokens
 * @property {(audio: Float32Array) => void} onAudio
 * @property {() => void} onLost a connection is lost and will be replaced
 * @property {(gapMs: number) => void} onReturn all connections are back; `gapMs` of output was lost
 * @property {(kind: "input" | "output", seconds: number) => void} onSkip sound was skipped and will not be played
 * @property {(error: Error) => void} onFailure
 */

export class Loop {
  /**
   * @param {AudioContext} context
   * @param {import("../speaker.js").Speaker} speaker
   * @param {import("./server.js").Server} server
   * @param {Callbacks} callbacks
   */
  constructor(context, speaker, server, callbacks) {
    this.lostFrames = 0;
    this._abort = new AbortController();
    this._context = context;
    this._speaker = speaker;
    this._server = server;
    this._callbacks = callbacks;
    /** @type {import("../connection.js").Connection<"encode"> | null} */
    this._encoder = null;
    /** @type {import("../connection.js").Connection<"decode"> | null} */
    this._decoder = null;
    /** Number of lost connections, and the output lost by the replaced ones. */
    this._away = 0;
    this._gapMs = 0;
    this._forget();
  }

  /** Opens both sessions, or neither; `drop` aborts it. @param {() => void} beforeAsking called before the user is asked for a key */
  async open(beforeAsking) {
    const onFailure = (/** @type {Error} */ error) => {
      this.drop(error);
      this._callbacks.onFailure(error);
    };
    try {
      const shared = { live: true, signal: this._abort.signal, onFailure };
      const decoder = {
        kind: /** @type {const} */ ("decode"),
        ...shared,
        onState: (/** @type {string} */ state, /** @type {any} */ resumed) => this._connectionIs(state, resumed, OUTPUT_HOP),
        onSkip: (/** @type {number} */ seconds) => this._callbacks.onSkip("output", seconds),
        onOutput: (/** @type {Float32Array} */ audio, /** @type {number} */ position) => this._onAudio(audio, position),
      };
      this._decoder = await this._server.connect(decoder, beforeAsking);
      const encoder = {
        kind: /** @type {const} */ ("encode"),
        ...shared,
        onState: (/** @type {string} */ state, /** @type {any} */ resumed) => {
          this._connectionIs(state, resumed, 1);
          if (resumed.droppedSeconds > 0) this._callbacks.onSkip("input", resumed.droppedSeconds);
        },
        onOutput: (/** @type {Uint16Array} */ tokens, /** @type {number} */ position) => this._onTokens(tokens, position),
      };
      this._encoder = await this._server.connect(encoder, beforeAsking);
    } catch (error) {
      this.drop();
      throw error;
    }
  }

  /** The server's `ready` message with model, profile, chunk and lookahead; null if no session is open. */
  get ready() {
    return this._decoder?.ready ?? null;
  }

  /**
   * Sends a frame that came in at `time`; returns false if it is lost.
   * @param {Float32Array} samples @param {number} time
   */
  speak(samples, time) {
    const encoder = this._encoder;
    if (encoder === null) return false;
    if (encoder.bufferedBytes > MAX_BUFFERED_BYTES) {
      this.lostFrames += 1;
      return false;
    }
    const position = encoder.session.inputPosition;
    this._clock = time - position / INPUT_RATE;
    encoder.sendNow(samples);
    return encoder.session.inputPosition > position; // a live session skips it if it is behind
  }

  /** Ends both sessions once all their output is in the speaker. */
  async finish() {
    const [encoder, decoder] = [this._encoder, this._decoder];
    try {
      await encoder?.end();
      await decoder?.end();
      this._speaker.finish();
    } finally {
      if (this._encoder === encoder && this._decoder === decoder) this._leave();
    }
  }

  /** Closes both sessions at once. @param {Error} [reason] with which an `open` in progress rejects */
  drop(reason) {
    this._abort.abort(reason);
    this._leave();
    this._speaker.finish();
    this._forget();
  }

  _leave() {
    this._encoder?.close();
    this._decoder?.close();
    this._encoder = this._decoder = null;
    this._away = 0;
  }

  /** The token at an output position; -1 if unknown. @param {number} position */
  tokenAt(position) {
    if (this._decoder === null) return -1;
    const number = Math.floor(this._fraction(position));
    const remembered = this._tokens[((number % MAX_REMEMBERED) + MAX_REMEMBERED) % MAX_REMEMBERED];
    return remembered?.number === number ? remembered.token : -1;
  }

  /** Measures the latency of the sound being played. @param {import("../speaker.js").Playback} playback */
  hear({ playing, position, time, slackMs }) {
    if (!playing || this._clock === null || this._encoder === null || this._decoder === null) return;
    const { input, output } = this._encoder.session.utterance;
    const sample = input + (this._fraction(position) + this._offset - output) * INPUT_HOP;
    this._totalMs.add((time - this._clock - sample / INPUT_RATE) * 1000, time);
    this._slackMs.add(slackMs, time);
  }

  /** Latency from microphone to device in milliseconds, and its parts, which sum to it; null before it is measured. */
  get latency() {
    const [totalMs, encodeMs, bufferMs] = [this._totalMs.value, this._encodeMs.value, this._slackMs.value];
    if (totalMs === null || encodeMs === null || bufferMs === null || this.ready === null) return null;
    const computingMs = encodeMs + (this._decodeMs.value ?? 0);
    const modelMs = algorithmicMs(/** @type {any} */ (this.ready));
    return { totalMs, modelMs, computingMs, bufferMs, restMs: totalMs - modelMs - computingMs - bufferMs };
  }

  /** @param {string} state @param {{gap: number}} resumed @param {number} hop units in a frame */
  _connectionIs(state, { gap }, hop) {
    if (state === "lost") {
      this._away += 1;
      if (this._away > 1) return;
      this._gapMs = 0;
      this._callbacks.onLost();
    } else if (state === "resumed") {
      this._away -= 1;
      this._gapMs += (gap / hop) * FRAME_MS;
      if (this._away === 0) this._callbacks.onReturn(this._gapMs);
    }
  }

  /** @param {Uint16Array} tokens @param {number} position */
  _onTokens(tokens, position) {
    if (this._encoder === null || this._decoder === null) return;
    const { session, ready } = this._encoder;
    const { input, output } = session.utterance;
    const needed = input + samplesNeeded(position + tokens.length - output, /** @type {any} */ (ready));
    const now = this._context.currentTime;
    if (this._clock !== null && needed <= session.inputPosition) {
      this._encodeMs.add((now - this._clock - needed / INPUT_RATE) * 1000, now);
    }
    const at = this._decoder.session.inputPosition;
    this._offset = position - at;
    tokens.forEach((token, i) => (this._tokens[(at + i) % MAX_REMEMBERED] = { number: at + i, token }));
    this._callbacks.onTokens(tokens);
    this._decoder.sendNow(tokens);
    this._passed.push({ position: at + tokens.length, time: now });
    if (this._passed.length > MAX_REMEMBERED) this._passed.shift();
  }

  /** @param {Float32Array} audio @param {number} position */
  _onAudio(audio, position) {
    if (this._decoder === null) return;
    const { session, ready } = this._decoder;
    const { input, output } = session.utterance;
    const frames = (position + audio.length - output) / OUTPUT_HOP;
    const needed = input + tokensNeeded(frames, /** @type {any} */ (ready));
    const passed = this._passed.find((burst) => burst.position >= needed);
    const now = this._context.currentTime;
    if (passed) this._decodeMs.add((now - passed.time) * 1000, now);
    this._callbacks.onAudio(audio);
    this._speaker.push(audio, position);
  }

  /** The decoder's input position, with fraction, of an output position. @param {number} position */
  _fraction(position) {
    const { input, output } = /** @type {any} */ (this._decoder).session.utterance;
    return input + (position - output) / OUTPUT_HOP;
  }

  /** Forgets all measurements. */
  _forget() {
    /** @type {number | null} */
    this._clock = null;
    /** @type {number} the encoder's output position less the token's number */
    this._offset = 0;
    /** @type {{position: number, time: number}[]} */
    this._passed = [];
    /** @type {{number: number, token: number}[]} */
    this._tokens = [];
    /** @type {Average} */
    this._totalMs = new Average();
    /** @type {Average} */
    this._encodeMs = new Average();
    /** @type {Average} */
    this._decodeMs = new Average();
    /** @type {Average} */
    this._slackMs = new Average();
  }
}
