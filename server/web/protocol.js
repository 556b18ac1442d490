/**
 * One conversation of `neucodec.v1` as a client sees it, without I/O: the states, the positions, and what is to be sent
 * again when a lost connection is resumed. The shell around it is Connection in neucodec.js; the Python twin is
 * streaming/protocol/session.py, and both are held to the same conversations (tests/data/protocol-vectors.json).
 */

import { UNIT_BYTES } from "./payload.js";
import { ReplayLog } from "./replay.js";
import { TRANSITIONS } from "./states.js";

export const SUBPROTOCOL = "neucodec.v1";
export const TOKENS_PER_SECOND = 50;
export const FRAME_MS = 20;

/**
 * What binary messages in one direction carry; `hop` is how many units one frame of 20 ms holds.
 * @typedef {{kind: "audio" | "tokens", format: string, rate: number}} StreamFormat
 * @typedef {"encode" | "decode" | "roundtrip"} Kind
 * @typedef {{type: "flush"} | {type: "clear"} | {type: "mark", id: string | number} | {type: "end"}} Request
 * @typedef {{type: string, [field: string]: any}} Message a message of the server, with the fields of docs/protocol.md
 */

/** @type {StreamFormat} */
export const TOKENS = { kind: "tokens", format: "u16le", rate: TOKENS_PER_SECOND };
/** @type {StreamFormat} */
export const INPUT_AUDIO = { kind: "audio", format: "s16le", rate: 16000 };
/** @type {StreamFormat} */
export const OUTPUT_AUDIO = { kind: "audio", format: "s16le", rate: 24000 };

/** @type {Record<Kind, {input: StreamFormat, output: StreamFormat}>} */
export const KINDS = {
  encode: { input: INPUT_AUDIO, output: TOKENS },
  decode: { input: TOKENS, output: OUTPUT_AUDIO },
  roundtrip: { input: INPUT_AUDIO, output: OUTPUT_AUDIO },
};

/** The server did what the protocol does not allow. */
export class ProtocolError extends Error {}

/** This side was asked to do what the protocol does not allow now. */
export class LocalProtocolError extends ProtocolError {}

const ANSWERS = { flushed: "flush", cleared: "clear", mark: "mark", done: "end" };
const KNOWN = ["ready", "stats", "error", ...Object.keys(ANSWERS)];

/** @param {StreamFormat} format */
export const hopOf = (format) => (format.rate * FRAME_MS) / 1000;

/**
 * Path and query of a session.
 * @param {Kind} kind
 * @param {Record<string, string | number | null | undefined>} query fields without a value are left out
 */
export function target(kind, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `/v1/${kind}${text && "?"}${text}`;
}

/**
 * The client's side. `inputPosition` counts units given to `sendPayload`, `outputPosition` units received, dropped ones
 * too. After `lose` the session can be resumed: requests and payload are still taken, `resumeQuery` says how to ask for
 * the rest, and after the new `ready` the caller sends what `unsent` gives.
 */
export class ClientSession {
  /** @param {Kind} kind */
  constructor(kind) {
    const { input, output } = KINDS[kind];
    this.kind = kind;
    this.input = input;
    this.output = output;
    /** @type {keyof typeof TRANSITIONS} */
    this.state = "opening";
    /** @type {Message | null} the latest `ready` */
    this.ready = null;
    this.inputPosition = 0;
    this.outputPosition = 0;
    this._log = new ReplayLog(hopOf(input), hopOf(output), 60 * input.rate);
    this._answers = 0;
  }

  /** Whether there is no connection, and there may be another. */
  get isLost() {
    return this.state === "lost" || this.state === "lost_ending";
  }

  /** Whether nothing comes any more. */
  get isOver() {
    return this.state === "done" || this.state === "closed";
  }

  /** Whether a `clear` waits for its `cleared`: payload that arrives now is of the old utterance. */
  get clearing() {
    return this._log.find("clear") !== undefined;
  }

  /** Where the utterance began that the server is answering: {input, output} positions that belong together. */
  get utterance() {
    return this._log.start;
  }

  /**
   * Counts payload and returns it.
   * @param {Uint8Array} payload whole little-endian units
   */
  sendPayload(payload) {
    const units = this._units(payload, this.input, LocalProtocolError);
    this._move("input", LocalProtocolError);
    this.inputPosition += units;
    this._log.addPayload(payload);
    return payload;
  }

  /**
   * The text to send for a request.
   * @param {Request} request
   */
  send(request) {
    this._move(request.type, LocalProtocolError);
    this._log.addRequest(request);
    return JSON.stringify(request);
  }

  /**
   * What a message of the server means: payload, a message, or null for what a client need not care about (an unknown
   * type, or payload that a `clear` under way has made worthless).
   * @param {Uint8Array | string} data
   * @returns {Uint8Array | Message | null}
   */
  receive(data) {
    if (typeof data !== "string") {
      const units = this._units(data, this.output, ProtocolError);
      this._move("output", ProtocolError);
      this.outputPosition += units;
      return this.clearing ? null : data;
    }
    const message = parse(data);
    if (!KNOWN.includes(message.type)) return null;
    this._move(message.type === "mark" ? "marked" : message.type, ProtocolError);
    if (message.type === "ready") this._open(message);
    else if (message.type in ANSWERS) this._settle(message);
    return message;
  }

  /** The connection is gone. */
  lose() {
    this._move("loss", ProtocolError);
  }

  /**
   * The query fields that ask for the rest of this session on a new connection.
   * @returns {Record<string, string | number>}
   */
  get resumeQuery() {
    if (this.ready === null) return {};
    const { input, output } = this._log.start;
    return {
      resume: this.ready.resume.token,
      received: this.outputPosition,
      answers: this._answers,
      [this._log.whole ? "utterance" : "tail"]: `${input},${output}`,
    };
  }

  /**
   * What the server of the latest `ready` has not got: payload and the texts of requests, in their order.
   * @returns {(Uint8Array | string)[]}
   */
  get unsent() {
    const { input_position: position = 0, requests = 0 } = /** @type {Message} */ (this.ready);
    return this._log.after(position, requests).map((item) => ("type" in item ? JSON.stringify(item) : item));
  }

  /** @param {Message} ready */
  _open(ready) {
    for (const [name, asked] of Object.entries({ input: this.input, output: this.output })) {
      const given = ready[name] ?? {};
      if (["kind", "format", "rate"].some((field) => given[field] !== asked[field])) {
        throw new ProtocolError(`asked for ${name} ${shown(asked)}, the server gives ${shown(given)}`);
      }
    }
    if (this.ready !== null) {
      if (ready.session !== this.ready.session) {
        this._answers = 0;
        this._log.renumber();
      }
      this.outputPosition = ready.output_position ?? 0;
    }
    this.ready = ready;
  }

  /** @param {Message} message an answer */
  _settle(message) {
    const wanted = ANSWERS[/** @type {keyof typeof ANSWERS} */ (message.type)];
    const request = this._log.find(wanted, message.id);
    if (request === undefined) throw new ProtocolError(`the server sent ${message.type}, which nothing asked for`);
    if ("output" in message && message.output !== this.outputPosition) {
      throw new ProtocolError(`the server says that it sent ${message.output}, but ${this.outputPosition} arrived`);
    }
    this._answers += 1;
    this._log.settle(request, this.outputPosition);
  }

  /**
   * @param {Uint8Array} payload
   * @param {StreamFormat} format
   * @param {typeof ProtocolError} Fault
   */
  _units(payload, format, Fault) {
    if (payload.byteLength % UNIT_BYTES) {
      throw new Fault(`${payload.byteLength} bytes are no whole number of ${format.format} units`);
    }
    return payload.byteLength / UNIT_BYTES;
  }

  /**
   * @param {string} move
   * @param {typeof ProtocolError} Fault
   */
  _move(move, Fault) {
    const allowed = /** @type {Record<string, keyof typeof TRANSITIONS>} */ (TRANSITIONS[this.state]);
    if (!Object.hasOwn(allowed, move)) {
      throw new Fault(`${move} is not allowed while the session is ${this.state}: only ${Object.keys(allowed)}`);
    }
    this.state = allowed[move];
  }
}

/**
 * @param {string} text
 * @returns {Message}
 */
export function parse(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    message = null;
  }
  if (typeof message?.type !== "string") {
    throw new ProtocolError(`${shown(text)} is no message of ${SUBPROTOCOL}: is this such a server?`);
  }
  return message;
}

/** @param {unknown} value */
function shown(value) {
  const text = JSON.stringify(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}
