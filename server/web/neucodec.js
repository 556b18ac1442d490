/**
 * A browser's client of a NeuCodec server, for any page: sessions, microphone and speaker. No dependency.
 *
 *     import { connect, Microphone, Speaker } from "./neucodec.js";
 *     const context = new AudioContext();
 *     const speaker = await Speaker.open(context, { live: true });
 *     const onOutput = (audio, position) => speaker.push(audio, position);
 *     const session = await connect({ kind: "roundtrip", onOutput });
 *     await Microphone.open(context, { onFrame: ({ samples }) => session.send(samples), ... });
 *
 * The conversation itself is ClientSession in protocol.js. A connection that is lost comes back by itself: payload and
 * requests are kept meanwhile and sent again from where the server has them.
 */

import { ClientSession, FRAME_MS, ProtocolError, SUBPROTOCOL, hopOf, parse, target } from "./protocol.js";
import { audioFromBytes, audioToBytes, tokensFromBytes, tokensToBytes } from "./payload.js";

export { Microphone } from "./microphone.js";
export { Resampler } from "./resampler.js";
export { SoundError } from "./sound.js";
export { Speaker } from "./speaker.js";

/** More than this in the socket, and `send` waits: half a second of audio. */
const MOST_BUFFERED_BYTES = 16000;
const POLL_MS = 5;
const LARGEST_PACKET_FRAMES = 25;
const OPEN_DEADLINE_MS = 10000;
const RETRY_MS = { first: 100, most: 3000, tries: 40 };
/** Status of a connection that comes back: the server goes away, no closing handshake, service restart. */
const LOSSES = [1001, 1006, 1012];
/** Refusals that may be over soon. */
const PASSING = ["unreachable", "full", "too_many", "device"];

/**
 * @typedef {import("./protocol.js").Kind} Kind
 * @typedef {import("./protocol.js").Message} Message
 * @typedef {object} Options
 * @property {Kind} kind
 * @property {string | URL} [url] of the server; by default where this module came from
 * @property {string | null} [profile]
 * @property {string | null} [accessToken]
 * @property {(output: Float32Array | Uint16Array, position: number) => void} [onOutput] audio or tokens
 * @property {(state: "open" | "lost" | "resumed", resumed: {how: string, gap: number}) => void} [onState] `gap`: units
 *   of output that were lost
 * @property {(error: Error) => void} [onFailure] the session has ended before `end` was answered
 */

/** The server will not have this session. `code` as in docs/protocol.md or docs/security.md, or "unreachable". */
export class Refused extends Error {
  /** @param {string} code @param {string} message @param {number} [retryAfterS] how long the server says to wait */
  constructor(code, message, retryAfterS = 0) {
    super(message);
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * Opens a session. Rejects with Refused, or with ProtocolError when what answers is no such server.
 * @param {Options} options
 */
export async function connect(options) {
  const connection = new Connection(options);
  await connection.open();
  return connection;
}

/** One session with a server, made by `connect`. */
export class Connection {
  /** @param {Options} options */
  constructor({ kind, url = import.meta.url, profile = null, accessToken = null, ...callbacks }) {
    this.session = new ClientSession(kind);
    this._url = new URL(url);
    this._query = { profile, access_token: accessToken };
    this._onOutput = callbacks.onOutput ?? (() => {});
    this._onState = callbacks.onState ?? (() => {});
    this._onFailure = callbacks.onFailure ?? (() => {});
    /** @type {WebSocket | null} */
    this._socket = null;
    /** @type {{type: string, id?: string | number, resolve: (m: Message) => void, reject: (e: Error) => void}[]} */
    this._waiting = [];
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
   * Sends audio (at the input's rate) or tokens, and waits while the socket is full or the connection lost. Rejects
   * when the session has ended.
   * @param {Float32Array | Uint16Array} units
   */
  async send(units) {
    const largest = LARGEST_PACKET_FRAMES * hopOf(this.session.input);
    for (let at = 0; at < units.length; at += largest) {
      while (this.session.isLost || this.bufferedBytes > MOST_BUFFERED_BYTES) await pause(POLL_MS);
      this.sendNow(units.subarray(at, at + largest));
    }
  }

  /**
   * Sends audio or tokens without waiting: for a microphone, which cannot wait. `bufferedBytes` tells how full the
   * socket is. While the connection is lost, the last minute is kept, and sent when it is back.
   * @param {Float32Array | Uint16Array} units
   */
  sendNow(units) {
    if (this.failure) throw this.failure;
    const payload = units instanceof Uint16Array ? tokensToBytes(units) : audioToBytes(units);
    this._transmit(this.session.sendPayload(payload));
  }

  /** End of the utterance: resolves when all of its output has come. */
  flush() {
    return this._ask({ type: "flush" });
  }

  /** Barge-in: drops what is pending; resolves with both positions. Nothing of before comes out after this call. */
  clear() {
    return this._ask({ type: "clear" });
  }

  /** Resolves when the output of everything sent before has come. @param {string | number} id */
  mark(id) {
    return this._ask({ type: "mark", id });
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
      await this._attempt({});
    } catch (error) {
      this.failure = /** @type {Error} */ (error);
      throw error;
    }
    this._onState("open", { how: "new", gap: 0 });
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
    if (!this.session.isLost) /** @type {WebSocket} */ (this._socket).send(data);
  }

  /**
   * One connection, from its opening to `ready`.
   * @param {Record<string, string | number>} resume query fields
   */
  async _attempt(resume) {
    const path = target(this.session.kind, { ...this._query, ...resume });
    const address = new URL(`.${path}`, this._url);
    address.protocol = ["https:", "wss:"].includes(address.protocol) ? "wss:" : "ws:";
    const socket = new WebSocket(address, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    let timer;
    try {
      await new Promise((resolve, reject) => {
        const unreachable = () => reject(new Refused("unreachable", UNREACHABLE));
        timer = setTimeout(unreachable, OPEN_DEADLINE_MS);
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
      throw error instanceof Refused && error.code === "unreachable" ? await whyRefused(address) : error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Goes on with a new connection by its first message. @param {WebSocket} socket @param {string} data */
  _adopt(socket, data) {
    if (this.failure !== null) throw this.failure;
    const message = parse(data);
    if (message.type === "error") throw new Refused(message.code, message.message);
    if (message.type !== "ready") throw new ProtocolError("The server's first message is no ready.");
    this.session.receive(data);
    this._socket = socket;
    socket.onmessage = ({ data }) => this._receive(data);
    socket.onclose = ({ code, reason }) => this._lost(code, reason);
    for (const item of this.session.unsent) this._transmit(item);
  }

  /** @param {string | ArrayBuffer} data */
  _receive(data) {
    try {
      const position = this.session.outputPosition;
      const event = this.session.receive(typeof data === "string" ? data : new Uint8Array(data));
      if (event instanceof Uint8Array) this._onOutput(this._decoded(event), position);
      else if (event?.type === "error") this._fail(new Refused(event.code, event.message));
      else if (event !== null) this._settle(event);
    } catch (error) {
      this._fail(/** @type {Error} */ (error));
    }
  }

  /** @param {Uint8Array} payload */
  _decoded(payload) {
    return this.session.output.kind === "tokens" ? tokensFromBytes(payload) : audioFromBytes(payload);
  }

  /** Answers whoever waits for this message; a `cleared` answers the flushes before it too. @param {Message} message */
  _settle(message) {
    const asked = { flushed: "flush", cleared: "clear", mark: "mark", done: "end" }[message.type];
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
    this._onState("lost", { how: "", gap: 0 });
    const received = this.session.outputPosition;
    let advisedMs = 0;
    for (let attempt = 0; this.session.isLost && this.failure === null; attempt++) {
      const longest = Math.min(RETRY_MS.most, RETRY_MS.first * 2 ** attempt);
      await pause(Math.max(advisedMs, longest * (0.5 + Math.random() / 2)));
      try {
        await this._attempt(this.session.resumeQuery);
      } catch (error) {
        const passing = error instanceof Refused && PASSING.includes(error.code);
        if (!passing || attempt >= RETRY_MS.tries) this._fail(/** @type {Error} */ (error));
        else advisedMs = error.retryAfterS * 1000;
      }
    }
    if (this.failure !== null) return;
    this._onState("resumed", { how: this.ready.resumed, gap: this.session.outputPosition - received });
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
    if (tell) this._onFailure(error);
  }
}

const UNREACHABLE = "The server does not answer.";
/** What a session's address answers to plain HTTP when nothing is wrong with the request. */
const UPGRADE_REQUIRED = 426;
const FULL =
  "The server is full just now: try again when somebody has left. If it stays so, a proxy may keep WebSockets from it.";

/**
 * Why the server refused: a browser tells nothing of a refused WebSocket, so the same address is asked in plain HTTP.
 * @param {URL} address
 */
async function whyRefused(address) {
  const plain = new URL(address);
  plain.protocol = plain.protocol === "wss:" ? "https:" : "http:";
  try {
    const response = await fetch(plain, { signal: AbortSignal.timeout(OPEN_DEADLINE_MS) });
    if (response.status === UPGRADE_REQUIRED) return new Refused("full", FULL);
    const { code, message } = parse(await response.text());
    return new Refused(code, message, Number(response.headers.get("Retry-After")));
  } catch {
    return new Refused("unreachable", UNREACHABLE);
  }
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export { ClientSession, FRAME_MS, ProtocolError };
