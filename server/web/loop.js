/**
 * Audio in, tokens, audio out: an encoding and a decoding session with the channel between them, and the speaker.
 *
 * Sessions open at first use and stay for the next utterance until `close`. The loop knows when each sample came in, so
 * that it can say of the sample that is heard now how long it took.
 */

import { Average, algorithmicMs, samplesNeeded, tokensNeeded } from "./latency.js";
import { connect, FRAME_MS } from "./neucodec.js";

const INPUT_RATE = 16000;
const INPUT_HOP = 320;
const OUTPUT_HOP = 480;
const MOST_REMEMBERED = 1024;
/** Input that may wait in the socket; beyond that a microphone's frames are lost, and counted. */
const MOST_BUFFERED_BYTES = 5 * INPUT_RATE * 2;

/**
 * What comes in: audio to be encoded, tokens for the decoder alone, or nothing.
 * @typedef {"audio" | "tokens" | "nothing"} Input
 * @typedef {object} Callbacks
 * @property {(tokens: Uint16Array) => void} onTokens as the encoder gave them
 * @property {(audio: Float32Array, position: number) => void} onAudio
 * @property {() => void} onLost a connection is gone, and will come back
 * @property {(exactly: boolean, gapMs: number) => void} onReturn all connections are back; so much was lost meanwhile
 * @property {(error: Error) => void} onFailure
 */

export class Loop {
  /**
   * @param {AudioContext} context
   * @param {import("./speaker.js").Speaker} speaker
   * @param {import("./tokens.js").Channel} channel
   * @param {Callbacks} callbacks
   */
  constructor(context, speaker, channel, callbacks) {
    /** @type {string | null} */
    this.profile = null;
    /** @type {string | null} */
    this.accessToken = null;
    this.lostFrames = 0;
    this._context = context;
    this._speaker = speaker;
    this._channel = channel;
    this._callbacks = callbacks;
    /** @type {import("./neucodec.js").Connection | null} */
    this._encoder = null;
    /** @type {import("./neucodec.js").Connection | null} */
    this._decoder = null;
    /** Connections that are lost, and what the returned ones have lost. */
    this._away = 0;
    this._lost = { exactly: true, gapMs: 0 };
    this._utterance = 0;
    this._forget();
  }

  /** Opens what is not open yet and will be needed. @param {Input} input */
  async open(input) {
    if (input === "nothing") return;
    const { profile, accessToken } = this;
    const onFailure = (/** @type {Error} */ error) => {
      this.drop();
      this._callbacks.onFailure(error);
    };
    const shared = { profile, accessToken, onFailure };
    this._decoder ??= await connect({
      kind: "decode",
      ...shared,
      onState: (state, resumed) => this._connectionIs(state, resumed, OUTPUT_HOP),
      onOutput: (audio, position) => this._onAudio(/** @type {Float32Array} */ (audio), position),
    });
    if (input === "tokens") return;
    this._encoder ??= await connect({
      kind: "encode",
      ...shared,
      onState: (state, resumed) => this._connectionIs(state, resumed, 1),
      onOutput: (tokens, position) => this._onTokens(/** @type {Uint16Array} */ (tokens), position),
    });
  }

  /** What the server says of the sessions: model, profile, chunk and lookahead. */
  get ready() {
    return this._decoder?.ready ?? null;
  }

  /** A frame of audio that came in at `time`. @param {Float32Array} samples @param {number} time */
  speak(samples, time) {
    const encoder = this._encoder;
    if (encoder === null) return;
    if (encoder.bufferedBytes > MOST_BUFFERED_BYTES) {
      this.lostFrames += 1;
      return;
    }
    this._clock = time - encoder.session.inputPosition / INPUT_RATE;
    encoder.sendNow(samples);
  }

  /** Tokens on their way to the decoder. @param {Uint16Array} sent */
  pass(sent) {
    if (this._decoder === null) return;
    const { tokens, damage } = this._channel.pass(sent);
    const position = this._decoder.session.inputPosition;
    tokens.forEach((token, i) => this._remember(position + i, token, damage[i]));
    this._decoder.sendNow(tokens);
    this._passed.push({ position: position + tokens.length, time: this._context.currentTime });
    if (this._passed.length > MOST_REMEMBERED) this._passed.shift();
  }

  /** Drops what is under way, here and at the server; the next utterance may follow at once. */
  async interrupt() {
    this._speaker.clear();
    this._forget();
    await Promise.allSettled([this._encoder?.clear(), this._decoder?.clear()]); // onFailure tells of a failure
  }

  /** End of the utterance: resolves when the speaker has all of it, or it was interrupted. @param {Input} input */
  async finish(input) {
    const utterance = this._utterance;
    if (input === "audio") await this._encoder?.flush();
    if (input === "nothing" || utterance !== this._utterance) return;
    await this._decoder?.flush();
    if (utterance === this._utterance) this._speaker.finish();
  }

  /** Ends both sessions in good order. */
  async close() {
    const [encoder, decoder] = [this._encoder, this._decoder];
    this._encoder = this._decoder = null;
    await Promise.allSettled([encoder?.end(), decoder?.end()]);
    this._forget();
  }

  /** Leaves both sessions at once. */
  drop() {
    this._encoder?.close();
    this._decoder?.close();
    this._encoder = this._decoder = null;
    this._away = 0;
    this._speaker.finish();
    this._forget();
  }

  /**
   * The token at an output position, with the bits that the channel changed; null when there is none.
   * @param {number} position
   */
  tokenAt(position) {
    const number = this._tokenNumber(position);
    const remembered = this._tokens[((number % MOST_REMEMBERED) + MOST_REMEMBERED) % MOST_REMEMBERED];
    return remembered?.number === number ? remembered : null;
  }

  /** Notes what is heard, for `latency`. @param {import("./speaker.js").Playback} playback */
  hear({ playing, position, time, slackMs }) {
    if (!playing || this._clock === null || this._encoder === null) return;
    const { input, output } = this._encoder.session.utterance;
    const token = (this._decoder ? this._fraction(position) : 0) + this._offset;
    const sample = input + (token - output) * INPUT_HOP;
    this._totalMs.add((time - this._clock - sample / INPUT_RATE) * 1000, time);
    this._slackMs.add(slackMs, time);
  }

  /** Milliseconds from sample to sample and their parts, null before there is something to measure. */
  get latency() {
    const [totalMs, wireMs, bufferMs] = [this._totalMs.value, this._encodeMs.value, this._slackMs.value];
    if (totalMs === null || wireMs === null || bufferMs === null || this.ready === null) return null;
    const computingMs = wireMs + (this._decodeMs.value ?? 0);
    const modelMs = algorithmicMs(/** @type {any} */ (this.ready));
    return { totalMs, modelMs, computingMs, bufferMs, restMs: totalMs - modelMs - computingMs - bufferMs };
  }

  /** @param {string} state @param {{how: string, gap: number}} resumed @param {number} hop units in a frame */
  _connectionIs(state, { how, gap }, hop) {
    if (state === "lost") {
      this._away += 1;
      if (this._away > 1) return;
      this._lost = { exactly: true, gapMs: 0 };
      this._callbacks.onLost();
    } else if (state === "resumed") {
      this._away -= 1;
      this._lost.exactly &&= how === "exact";
      this._lost.gapMs += (gap / hop) * FRAME_MS;
      if (this._away === 0) this._callbacks.onReturn(this._lost.exactly, this._lost.gapMs);
    }
  }

  /** @param {Uint16Array} tokens @param {number} position */
  _onTokens(tokens, position) {
    if (this._encoder === null || this._decoder === null) return;
    const { session, ready } = this._encoder;
    const { input, output } = session.utterance;
    const needed = input + samplesNeeded(position + tokens.length - output, /** @type {any} */ (ready));
    if (this._clock !== null && needed <= session.inputPosition) {
      const now = this._context.currentTime;
      this._encodeMs.add((now - this._clock - needed / INPUT_RATE) * 1000, now);
    }
    this._offset = position - this._decoder.session.inputPosition;
    this._callbacks.onTokens(tokens);
    this.pass(tokens);
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
    this._callbacks.onAudio(audio, position);
    this._speaker.push(audio, position);
  }

  /** The decoder's input position that an output position stands for. @param {number} position */
  _fraction(position) {
    const { input, output } = /** @type {any} */ (this._decoder).session.utterance;
    return input + (position - output) / OUTPUT_HOP;
  }

  /** @param {number} position */
  _tokenNumber(position) {
    return this._decoder === null ? -1 : Math.floor(this._fraction(position));
  }

  /** @param {number} number @param {number} token @param {number} damage */
  _remember(number, token, damage) {
    this._tokens[number % MOST_REMEMBERED] = { number, token, damage };
  }

  /** The utterance is over, and with it what was measured. */
  _forget() {
    this._utterance += 1;
    /** @type {number | null} */
    this._clock = null;
    /** @type {number} from a token's number to the encoder's output position */
    this._offset = 0;
    /** @type {{position: number, time: number}[]} */
    this._passed = [];
    /** @type {{number: number, token: number, damage: number}[]} */
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
