/**
 * One session with a server over a WebSocket, which is replaced when the connection is lost.
 *
 * The protocol itself is ClientSession in protocol.js. While the connection is lost, payload and requests are kept; the
 * part that the server lacks is sent again. A `live` session does not catch up: input that is more than MAX_BEHIND_S
 * late is skipped and reported to `onSkip`. No timer paces the sending, since browsers throttle timers in hidden tabs:
 * `send` continues whenever the server has answered.
 */

import { fromPayload, hopOf, toPayload } from "./payload.js";
import { ANSWERS, ClientSession, FRAME_MS, ProtocolError, SUBPROTOCOL, parse, target } from "./protocol.js";
import { Refused, reach, why } from "./refused.js";

/** How far `send` may run ahead of the output. */
const MAX_AHEAD_S = 5;
/** A live session that is further behind skips to the present. */
const MAX_BEHIND_S = 0.3;
/** Growth of the usual number of pending frames with each message, to adapt when the network delay increases. */
const GROWTH_FRAMES = 0.2;
const LARGEST_PACKET_FRAMES = 25;
const OPEN_DEADLINE_MS = 10000;
/** Back-off between attempts to reconnect (`all`: when to give up). */
const RETRY_MS = { first: 100, most: 3000, mostLive: 500, all: 120000 };
/** Attempts that skip the HTTP request before, which a page's security policy may block. */
const BLIND_ATTEMPTS = [0, 1, 4, 16, 64];
/** Close codes after which the client reconnects: going away, no closing handshake, service restart. */
const LOSSES = [1001, 1006, 1012];
/** Temporary refusals. */
const PASSING = ["unreachable", "full", "too_many", "device"];

/**
 * @typedef {import("./protocol.js").Kind} Kind
 * @typedef {import("./protocol.js").Message} Message
 * @typedef {{how: string, gap: number, position: number, droppedSeconds: number}} Resumed `how`: `resumed` of
 *   docs/protocol.md; output continues at `position`, after `gap` lost units; a live session has dropped
 *   `droppedSeconds` of input
 */
/** @template {Kind} K @typedef {K extends "decode" ? Uint16Array : Float32Array} Input tokens, or audio in [-1, 1] */
/** @template {Kind} K @typedef {K extends "encode" ? Uint16Array : Float32Array} Output */

/**
 * @template {Kind} K
 * @typedef {object} SessionOptions
 * @property {K} kind
 * @property {string | URL} [url] URL of the server, with any path prefix; by default, where this module was loaded from
 * @property {string | null} [profile]
 * @property {string | null} [voice] name of a voice of the server, in which the decoder starts
 * @property {string | null | (() => string | null | Promise<string | null>)} [accessToken] an API key or a short-lived
 *   token; a function is called for each connection
 * @property {boolean} [live] late input is worthless, as from a microphone
 * @property {AbortSignal} [signal] aborts the opening, and later closes the session
 * @property {(output: Output<K>, position: number) => void} [onOutput] receives audio or tokens
 * @property {(state: "open" | "lost" | "resumed", resumed: Resumed) => void} [onState]
 * @property {(seconds: number) => void} [onSkip] called when a live session skips input
 * @property {(error: Error) => void} [onFailure] called if the session ends before `end` is answered
 */
/** @template {Kind} K @typedef {SessionOptions<K> & import("./protocol.js").Formats} Options */

/**
 * Opens a session. Rejects with Refused, with ProtocolError if the server speaks another protocol, or with the abort
 * reason of `signal`.
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
  /** Use `connect` instead. @param {Options<K>} options */
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
    /** @type {(() => void)[]} calls of `send` that wait for a message or a new connection */
    this._paused = [];
    this._clears = 0;
    /** Pending frames just after output has arrived, in normal operation. */
    this._usualFrames = Infinity;
    /** @type {Error | null} */
    this.failure = null;
  }

  /** The server's latest `ready` message. */
  get ready() {
    return /** @type {Message} */ (this.session.ready);
  }

  /** Bytes that the socket has not sent yet. */
  get bufferedBytes() {
    return this._socket?.bufferedAmount ?? 0;
  }

  /**
   * Sends audio (at the input's rate) or tokens; waits while the server is more than MAX_AHEAD_S behind or the
   * connection is lost. A `clear` ends it early. Rejects if the session has ended.
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
   * Sends audio or tokens without waiting, as a microphone needs. While the connection is lost, the last minute is kept
   * and sent later. A live session skips input while it is behind. Throws if the session has ended.
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

  /** Ends the utterance; resolves when all of its output has arrived. */
  flush() {
    return this._ask({ type: "flush" });
  }

  /** Barge-in: drops pending input and output; resolves with both positions. No earlier output follows this call. */
  clear() {
    this._clears += 1;
    this._goOn();
    return this._ask({ type: "clear" });
  }

  /** Resolves when the output of everything sent before has arrived. @param {string | number} id */
  mark(id) {
    return this._ask({ type: "mark", id });
  }

  /**
   * Sets the voice in which the decoder starts now and after each `flush` and `clear`; during an utterance, it takes
   * effect at its end. `voice` is a name known to the server, or 100 to 750 tokens; null is none. Resolves with
   * `tokens`, the voice's number of tokens. An unknown name ends the session.
   * @param {string | Uint16Array | null} voice
   */
  prime(voice) {
    const named = typeof voice === "string";
    return this._ask(named ? { type: "prime", voice } : { type: "prime", tokens: Array.from(voice ?? []) });
  }

  /** Ends the session; resolves with the totals when all output has arrived. */
  end() {
    return this._ask({ type: "end" });
  }

  /** Closes the session at once. */
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
    const aheadFrames = (MAX_AHEAD_S * 1000 + this.ready.latency_ms) / FRAME_MS;
    return this.session.isLost || (!this.session.clearing && this.session.pendingFrames > aheadFrames);
  }

  /** Whether the output of a live session is overdue. */
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
   * Opens one connection, up to `ready`.
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
      if (!(error instanceof Refused && error.code === "unreachable")) throw error;
      const reason = await why(address);
      this._signal?.throwIfAborted(); // aborted meanwhile
      throw reason;
    } finally {
      clearTimeout(timer);
      this._signal?.removeEventListener("abort", abort);
    }
  }

  /** Switches to a new connection, given its first message. @param {WebSocket} socket @param {string} data */
  _adopt(socket, data) {
    if (this.failure !== null) throw this.failure;
    const message = parse(data);
    if (message.type === "error") throw new Refused(message.code, message.message);
    if (message.type !== "ready") throw new ProtocolError("The first message of the server is not `ready`.");
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
   * Sends everything that the server lacks, and reports the lost units.
   * @param {number} received units of output
   * @param {number} unheard units of input without output; a live session sends no older input
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

  /** Resolves the answered request; `cleared` also resolves all earlier ones. @param {Message} message */
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
      try {
        if (!BLIND_ATTEMPTS.includes(attempt)) await reach(this._url);
        if (this.failure !== null) return;
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

/** Returns the base URL of the server's paths, as ws: or wss:. @param {string | URL | undefined} url */
function serverUrl(url) {
  const found = new URL(url ?? import.meta.url ?? "", globalThis.location?.href);
  if (url !== undefined && !found.pathname.endsWith("/")) found.pathname += "/";
  if (!["http:", "https:", "ws:", "wss:"].includes(found.protocol)) {
    throw new TypeError(`${found} is not the URL of a server: pass its wss: or https: URL as \`url\``);
  }
  found.protocol = ["https:", "wss:"].includes(found.protocol) ? "wss:" : "ws:";
  return found;
}

/**
 * Formats and rates of the audio as query fields. All are explicit, since a server's defaults depend on its model.
 * @param {ClientSession} session
 */
const formatQuery = ({ input, output }) => ({
  ...(input.kind === "audio" && { input_format: input.format, input_rate: input.rate }),
  ...(output.kind === "audio" && { output_format: output.format, output_rate: output.rate }),
});

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
