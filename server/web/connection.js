/**
 * One session with a server: a WebSocket, and another one whenever the connection is lost.
 *
 * The conversation itself is ClientSession in protocol.js. Payload and requests are kept while the connection is lost
 * and sent again from where the server has them. A `live` session does not catch up with the past: input that is more
 * than MAX_BEHIND_S late is skipped, and `onSkip` tells how much. No timer paces anything, since browsers slow timers
 * down in hidden tabs: `send` goes on whenever the server has answered.
 */

import { fromPayload, hopOf, toPayload } from "./payload.js";
import { ANSWERS, ClientSession, FRAME_MS, ProtocolError, SUBPROTOCOL, parse, target } from "./protocol.js";
import { Refused, why } from "./refused.js";

/** How far `send` runs ahead of the output. */
const MAX_AHEAD_S = 5;
/** A live session that is further behind drops to the present. */
const MAX_BEHIND_S = 0.3;
/** Growth of the usual number of pending frames with each message, for routes that become longer. */
const GROWTH_FRAMES = 0.2;
const LARGEST_PACKET_FRAMES = 25;
const OPEN_DEADLINE_MS = 10000;
/** Pauses between attempts to connect again, and for how long it is tried. */
const RETRY_MS = { first: 100, most: 3000, mostLive: 500, all: 120000 };
/** Status of a connection that comes back: the server goes away, no closing handshake, service restart. */
const LOSSES = [1001, 1006, 1012];
/** Refusals that may be over soon. */
const PASSING = ["unreachable", "full", "too_many", "device"];

/**
 * @typedef {import("./protocol.js").Kind} Kind
 * @typedef {import("./protocol.js").Message} Message
 * @typedef {{how: string, gap: number, position: number, droppedSeconds: number}} Resumed `how` as in docs/protocol.md;
 *   output continues at `position`, after `gap` lost units; a live session has dropped `droppedSeconds` of input
 */
/** @template {Kind} K @typedef {K extends "decode" ? Uint16Array : Float32Array} Input tokens, or audio up to 1.0 */
/** @template {Kind} K @typedef {K extends "encode" ? Uint16Array : Float32Array} Output */

/**
 * @template {Kind} K
 * @typedef {object} SessionOptions
 * @property {K} kind
 * @property {string | URL} [url] of the server, with any path prefix; by default where this module came from
 * @property {string | null} [profile]
 * @property {string | null} [voice] of the server's, in which the decoder starts
 * @property {string | null | (() => string | null | Promise<string | null>)} [accessToken] a key or a token of short
 *   life; a function is asked again for each connection
 * @property {boolean} [live] input is worthless when it is late, as a microphone's is
 * @property {AbortSignal} [signal] gives up opening, and later closes the session
 * @property {(output: Output<K>, position: number) => void} [onOutput] audio or tokens
 * @property {(state: "open" | "lost" | "resumed", resumed: Resumed) => void} [onState]
 * @property {(seconds: number) => void} [onSkip] a live session has skipped input
 * @property {(error: Error) => void} [onFailure] the session has ended before `end` was answered
 */
/** @template {Kind} K @typedef {SessionOptions<K> & import("./protocol.js").Formats} Options */

/**
 * Opens a session. Rejects with Refused, with ProtocolError if the server speaks another protocol, or with the reason
 * of `signal`.
 * @template {Kind} K
 * @param {Options<K>} options
 * @returns {Promise<Connection<K>>}
 */
export async function connect(options) {
  const connection = new Connection(options);
  await connection.open();
  return connection;
}

/** @template {Kind} K */
export class Connection {
  /** Use `connect`. @param {Options<K>} options */
  constructor({ kind, url, profile = null, voice = null, accessToken = null, live = false, signal, ...rest }) {
    const { onOutput = () => {}, onState = () => {}, onSkip = () => {}, onFailure = () => {}, ...formats } = rest;
    this.session = new ClientSession(kind, formats);
    this._url = serverUrl(url);
    this._query = { ...formatQuery(this.session), profile, voice };
    this._accessToken = accessToken;
    this._live = live;
    this._signal = signal;
    this._onOutput = onOutput;
    this._onState = onState;
    this._onSkip = onSkip;
    this._onFailure = onFailure;
    /** @type {WebSocket | null} */
    this._socket = null;
    /** @type {{type: string, id?: string | number, resolve: (m: Message) => void, reject: (e: Error) => void}[]} */
    this._waiting = [];
    /** @type {(() => void)[]} calls of `send` that wait for a message or another connection */
    this._paused = [];
    this._clears = 0;
    /** Pending frames right after output has come, in normal operation. */
    this._usualFrames = Infinity;
    /** @type {Error | null} */
    this.failure = null;
  }

  /** The latest `ready` of the server. */
  get ready() {
    return /** @type {Message} */ (this.session.ready);
  }

  /** Bytes that the socket has not sent yet. */
  get bufferedBytes() {
    return this._socket?.bufferedAmount ?? 0;
  }

  /**
   * Sends audio (at the input's rate) or tokens, and waits while the server is some seconds behind or the connection
   * lost. A `clear` ends it. Rejects when the session has ended.
   * @param {Input<K>} units
   */
  async send(units) {
    const largest = LARGEST_PACKET_FRAMES * hopOf(this.session.input);
    const clears = this._clears;
    for (let at = 0; at < units.length && clears === this._clears; at += largest) {
      while (this._isFull && clears === this._clears) await new Promise((go) => this._paused.push(() => go(undefined)));
      if (clears === this._clears) this.sendNow(/** @type {Input<K>} */ (units.subarray(at, at + largest)));
    }
  }

  /**
   * Sends audio or tokens without waiting: for a microphone, which cannot wait. While the connection is lost the last
   * minute is kept and sent later. A live session skips input while it is behind.
   * @param {Input<K>} units
   */
  sendNow(units) {
    if (this.failure) throw this.failure;
    if (this._isBehind) {
      this._onSkip(units.length / this.session.input.rate);
      return;
    }
    this._transmit(this.session.sendPayload(toPayload(units, this.session.input)));
  }

  /** End of the utterance: resolves when all of its output has come. */
  flush() {
    return this._ask({ type: "flush" });
  }

  /** Barge-in: drops what is pending; resolves with both positions. No earlier output follows this call. */
  clear() {
    this._clears += 1;
    this._goOn();
    return this._ask({ type: "clear" });
  }

  /** Resolves when the output of everything sent before has come. @param {string | number} id */
  mark(id) {
    return this._ask({ type: "mark", id });
  }

  /**
   * The decoder starts from this voice, one of the server's by its name or 100 to 750 tokens of it, now and after each
   * `flush` and `clear`; within an utterance from its end on. null: from none. Resolves with `tokens`, how many the
   * voice has. A name that the server does not know ends the session.
   * @param {string | Uint16Array | null} voice
   */
  prime(voice) {
    const named = typeof voice === "string";
    return this._ask(named ? { type: "prime", voice } : { type: "prime", tokens: Array.from(voice ?? []) });
  }

  /** Ends the session: resolves with the totals when all output has come. */
  end() {
    return this._ask({ type: "end" });
  }

  /** Leaves at once. */
  close() {
    this._fail(new Refused("closed", "The session was closed."), false);
  }

  /** Opens the first connection. */
  async open() {
    try {
      this._signal?.throwIfAborted();
      await this._attempt({});
    } catch (error) {
      this.failure = /** @type {Error} */ (error);
      throw error;
    }
    this._signal?.addEventListener("abort", () => this.close(), { once: true });
    this._onState("open", { how: "new", gap: 0, position: 0, droppedSeconds: 0 });
  }

  /** Whether `send` has to wait. */
  get _isFull() {
    if (this.failure !== null) return false;
    return this.session.isLost || (!this.session.clearing && this.session.pendingFrames > this._aheadFrames);
  }

  get _aheadFrames() {
    return (MAX_AHEAD_S * 1000 + this.ready.latency_ms) / FRAME_MS;
  }

  /** Whether a live session waits for output that should have come long ago. */
  get _isBehind() {
    if (!this._live || this.session.isLost || this.session.clearing) return false;
    const usual = this._usualFrames + this.ready.chunk_frames;
    return this.session.pendingFrames > usual + (MAX_BEHIND_S * 1000) / FRAME_MS;
  }

  /**
   * @param {import("./protocol.js").Request} request
   * @returns {Promise<Message>}
   */
  _ask(request) {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      const text = this.session.send(request);
      this._waiting.push({ type: request.type, id: "id" in request ? request.id : undefined, resolve, reject });
      this._transmit(text);
    });
  }

  /** @param {Uint8Array | string} data */
  _transmit(data) {
    if (!this.session.isLost) /** @type {WebSocket} */ (this._socket).send(/** @type {any} */ (data));
  }

  _goOn() {
    for (const go of this._paused.splice(0)) go();
  }

  /**
   * One connection, from its opening to `ready`.
   * @param {Record<string, string | number>} resume query fields
   */
  async _attempt(resume) {
    const { _accessToken: key } = this;
    const access_token = typeof key === "function" ? await key() : key;
    this._signal?.throwIfAborted();
    const path = target(this.session.kind, { ...this._query, ...resume, access_token });
    const address = new URL(`.${path}`, this._url);
    const socket = new WebSocket(address, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    let [timer, abort] = [0, () => {}];
    try {
      await new Promise((resolve, reject) => {
        const unreachable = () => reject(new Refused("unreachable"));
        timer = /** @type {any} */ (setTimeout(unreachable, OPEN_DEADLINE_MS));
        abort = () => reject(this._signal?.reason);
        this._signal?.addEventListener("abort", abort);
        socket.onclose = unreachable;
        socket.onmessage = ({ data }) => {
          try {
            this._adopt(socket, data);
            resolve(undefined);
          } catch (error) {
            reject(error);
          }
        };
      });
    } catch (error) {
      socket.onclose = socket.onmessage = null;
      socket.close();
      throw error instanceof Refused && error.code === "unreachable" ? await why(address) : error;
    } finally {
      clearTimeout(timer);
      this._signal?.removeEventListener("abort", abort);
    }
  }

  /** Goes on with a new connection by its first message. @param {WebSocket} socket @param {string} data */
  _adopt(socket, data) {
    if (this.failure !== null) throw this.failure;
    const message = parse(data);
    if (message.type === "error") throw new Refused(message.code, message.message);
    if (message.type !== "ready") throw new ProtocolError("The server's first message is no ready.");
    const { outputPosition: received, pendingFrames } = this.session;
    const isFirst = this.session.ready === null;
    this.session.receive(data);
    this._socket = socket;
    socket.onmessage = ({ data }) => this._receive(data);
    socket.onclose = ({ code, reason }) => this._lost(code, reason);
    if (!isFirst) this._resume(received, pendingFrames * hopOf(this.session.input));
    this._goOn();
  }

  /**
   * Sends everything that the server lacks, and reports the loss.
   * @param {number} received units of output
   * @param {number} unheard units of input without output: a live session sends no other to a server that has lost it
   */
  _resume(received, unheard) {
    const { session } = this;
    const kept = this._live ? Math.min(unheard, MAX_BEHIND_S * session.input.rate) : Infinity;
    const dropped = Math.min(session.dropStale(kept), unheard - kept);
    for (const item of session.unsent) this._transmit(item);
    const position = Math.max(session.outputPosition, session.staleUntil);
    const how = this.ready.resumed;
    const droppedSeconds = this._live ? dropped / session.input.rate : 0;
    this._onState("resumed", { how, gap: how === "new" ? 0 : position - received, position, droppedSeconds });
    if (droppedSeconds > 0) this._onSkip(droppedSeconds);
  }

  /** @param {string | ArrayBuffer} data */
  _receive(data) {
    try {
      const event = this.session.receive(typeof data === "string" ? data : new Uint8Array(data));
      const most = this._usualFrames + GROWTH_FRAMES;
      if (typeof data !== "string") this._usualFrames = Math.min(this.session.pendingFrames, most);
      if (event instanceof Uint8Array) this._give(event);
      else if (event?.type === "error") this._fail(new Refused(event.code, event.message));
      else if (event !== null) this._settle(event);
      this._goOn();
    } catch (error) {
      this._fail(/** @type {Error} */ (error));
    }
  }

  /** @param {Uint8Array} payload */
  _give(payload) {
    const units = /** @type {Output<K>} */ (fromPayload(payload, this.session.output));
    this._onOutput(units, this.session.outputPosition - units.length);
  }

  /** Resolves the request that this answers; `cleared` also answers the flushes before it. @param {Message} message */
  _settle(message) {
    const asked = ANSWERS[/** @type {keyof typeof ANSWERS} */ (message.type)];
    const index = this._waiting.findIndex(({ type, id }) => type === asked && id === message.id);
    if (index < 0) return;
    const overtaken = asked === "clear" ? index : 0;
    for (const { resolve } of this._waiting.splice(index - overtaken, overtaken + 1)) resolve(message);
  }

  /** @param {number} code @param {string} reason */
  async _lost(code, reason) {
    if (this.session.isOver) return;
    if (!LOSSES.includes(code)) {
      this._fail(new Refused("closed", `The server ended the session (${code} ${reason}).`));
      return;
    }
    this.session.lose();
    this._socket = null;
    this._usualFrames = Infinity;
    this._onState("lost", { how: "", gap: 0, position: this.session.outputPosition, droppedSeconds: 0 });
    const givesUpAt = performance.now() + RETRY_MS.all;
    let advisedMs = 0;
    for (let attempt = 0; this.session.isLost && this.failure === null; attempt++) {
      const most = this._live ? RETRY_MS.mostLive : RETRY_MS.most;
      const longest = Math.min(most, RETRY_MS.first * 2 ** attempt);
      await pause(Math.max(advisedMs, longest * (0.5 + Math.random() / 2)));
      if (this.failure !== null) return;
      try {
        await this._attempt(this.session.resuming(!this._live));
      } catch (error) {
        const passing = error instanceof Refused && PASSING.includes(error.code);
        if (!passing || performance.now() > givesUpAt) this._fail(/** @type {Error} */ (error));
        else advisedMs = error.retryAfterS * 1000;
      }
    }
  }

  /** @param {Error} error @param {boolean} tell */
  _fail(error, tell = true) {
    if (this.failure !== null) return;
    this.failure = error;
    if (this._socket) {
      this._socket.onmessage = this._socket.onclose = null;
      this._socket.close();
    }
    for (const { reject } of this._waiting.splice(0)) reject(error);
    this._goOn();
    if (tell) this._onFailure(error);
  }
}

/** The folder of the server's paths, for WebSockets. @param {string | URL | undefined} url */
function serverUrl(url) {
  const found = new URL(url ?? import.meta.url ?? "", globalThis.location?.href);
  if (url !== undefined && !found.pathname.endsWith("/")) found.pathname += "/";
  if (!["http:", "https:", "ws:", "wss:"].includes(found.protocol)) {
    throw new TypeError(`${found} is no address of a server: give its wss: or https: URL as \`url\``);
  }
  found.protocol = ["https:", "wss:"].includes(found.protocol) ? "wss:" : "ws:";
  return found;
}

/**
 * Formats and rates of the audio as query fields: all are named, since a server's own rate is its model's.
 * @param {ClientSession} session
 */
const formatQuery = ({ input, output }) => ({
  ...(input.kind === "audio" && { input_format: input.format, input_rate: input.rate }),
  ...(output.kind === "audio" && { output_format: output.format, output_rate: output.rate }),
});

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
