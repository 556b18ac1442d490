/**
 * One conversation of `neucodec.v1` as a client sees it, without I/O: the states, the positions, and what is to be sent
 * again when a lost connection is resumed. The shell around it is Connection in connection.js; the Python twin is
 * streaming/protocol/client_session.py, and both are tested with the same conversations
 * (tests/data/protocol-vectors.json).
 */

import { FRAME_MS, hopOf, unitBytesOf } from "./payload.js";
import { ReplayLog } from "./replay.js";
import { TRANSITIONS } from "./states.js";

export const SUBPROTOCOL = "neucodec.v1";
const TOKENS_PER_SECOND = 50;
/** Input that is kept for a server that has lost the session. */
const REPLAY_SECONDS = 60;

export { FRAME_MS };

/**
 * @typedef {import("./payload.js").AudioFormat} AudioFormat
 * @typedef {import("./payload.js").StreamFormat} StreamFormat
 * @typedef {"encode" | "decode" | "roundtrip"} Kind
 * @typedef {{type: "prime", voice: string} | {type: "prime", tokens: number[]}} Prime
 * @typedef {{type: "flush"} | {type: "clear"} | {type: "mark", id: string | number} | {type: "end"} | Prime} Request
 * @typedef {{type: string, [field: string]: any}} Message a message of the server, with the fields of docs/protocol.md
 * @typedef {object} Formats of the audio on the wire; the server converts
 * @property {AudioFormat} [inputFormat]
 * @property {number} [inputRate]
 * @property {AudioFormat} [outputFormat]
 * @property {number} [outputRate]
 */

/** @type {StreamFormat} */
export const TOKENS = { kind: "tokens", format: "u16le", rate: TOKENS_PER_SECOND };
/**
 * What a session of a kind takes and gives.
 * @param {Kind} kind
 * @param {Formats} formats
 * @returns {{input: StreamFormat, output: StreamFormat}}
 */
export function formatsOf(kind, formats = {}) {
  if (!["encode", "decode", "roundtrip"].includes(kind)) {
    throw new TypeError(`kind ${shown(kind)} is unknown: choose encode, decode or roundtrip`);
  }
  const { inputFormat = "s16le", inputRate = 16000, outputFormat = "s16le", outputRate = 24000 } = formats;
  return {
    input: kind === "decode" ? TOKENS : { kind: "audio", format: inputFormat, rate: inputRate },
    output: kind === "encode" ? TOKENS : { kind: "audio", format: outputFormat, rate: outputRate },
  };
}

/** The server did what the protocol does not allow. */
export class ProtocolError extends Error {}

/** This side was asked to do what the protocol does not allow now. */
export class LocalProtocolError extends ProtocolError {}

export const ANSWERS = { flushed: "flush", cleared: "clear", mark: "mark", primed: "prime", done: "end" };
const KNOWN = ["ready", "stats", "error", ...Object.keys(ANSWERS)];

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
 * too. After `lose` the session can be resumed: requests and payload are still taken, `resuming` says how to ask for
 * the rest, and after the new `ready` the caller sends what `unsent` gives.
 */
export class ClientSession {
  /**
   * @param {Kind} kind
   * @param {Formats} formats
   * @param {number} replaySeconds of input are kept for a server that has lost the session
   */
  constructor(kind, formats = {}, replaySeconds = REPLAY_SECONDS) {
    const { input, output } = formatsOf(kind, formats);
    this.kind = kind;
    this.input = input;
    this.output = output;
    /** @type {keyof typeof TRANSITIONS} */
    this.state = "opening";
    /** @type {Message | null} the latest `ready` */
    this.ready = null;
    this.inputPosition = 0;
    this.outputPosition = 0;
    /** Output before this position is dropped. */
    this.staleUntil = 0;
    this._log = new ReplayLog(input, output, Math.floor(replaySeconds * input.rate));
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

  /** Frames of input of which no output has come yet. */
  get pendingFrames() {
    const { input, output } = this.utterance;
    return (this.inputPosition - input) / hopOf(this.input) - (this.outputPosition - output) / hopOf(this.output);
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
    if (request.type === "prime" && this.output.kind === "tokens") {
      throw new LocalProtocolError("a session that only encodes has no voice: prime one that decodes");
    }
    this._move(request.type, LocalProtocolError);
    this._log.addRequest(request);
    return JSON.stringify(request);
  }

  /**
   * What a message of the server means: payload, a message, or null for what a client need not care about (an unknown
   * type, payload that a `clear` under way has made worthless, or the answer for a voice that was primed once more).
   * @param {Uint8Array | string} data
   * @returns {Uint8Array | Message | null}
   */
  receive(data) {
    if (typeof data !== "string") {
      const units = this._units(data, this.output, ProtocolError);
      this._move("output", ProtocolError);
      this.outputPosition += units;
      const fresh = Math.min(units, this.outputPosition - this.staleUntil);
      return this.clearing || fresh <= 0 ? null : data.subarray((units - fresh) * unitBytesOf(this.output));
    }
    const message = parse(data);
    if (!KNOWN.includes(message.type)) return null;
    this._move(message.type === "mark" ? "marked" : message.type, ProtocolError);
    if (message.type === "ready") this._open(message);
    else if (message.type in ANSWERS) return this._settle(message);
    return message;
  }

  /** The connection is gone. */
  lose() {
    this._move("loss", ProtocolError);
  }

  /**
   * The query fields that ask for the rest of this session on a new connection; without `replay` a server that has lost
   * it starts a new session.
   * @param {boolean} replay
   * @returns {Record<string, string | number>}
   */
  resuming(replay = true) {
    if (this.ready === null) return {};
    const { input, output } = this._log.start;
    const query = { resume: this.ready.resume.token, received: this.outputPosition, answers: this._answers };
    return replay ? { ...query, [this._log.whole ? "utterance" : "tail"]: `${input},${output}` } : query;
  }

  /**
   * After a new `ready`: drops input that precedes a `clear` which the server has not got, and of a live stream all but
   * the latest `maxAgeUnits`, with the output of older input.
   * @param {number} maxAgeUnits
   * @returns {number} units of input that were dropped
   */
  dropStale(maxAgeUnits = Infinity) {
    const { input_position: begin = 0, requests = 0 } = /** @type {Message} */ (this.ready);
    const cleared = this._log.asked.filter(({ request, number }) => request.type === "clear" && number >= requests);
    let end = Math.max(begin, ...cleared.map(({ at }) => at));
    if (this.inputPosition - begin > maxAgeUnits) {
      end = Math.max(end, this.inputPosition - maxAgeUnits);
      const { input, output } = this._log.start;
      const frames = Math.floor((begin - input) / hopOf(this.input));
      this.staleUntil = Math.max(0, output + frames * hopOf(this.output));
    }
    this._log.drop(begin, end - begin);
    this.inputPosition -= end - begin;
    return end - begin;
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
      if (Object.entries(asked).some(([field, value]) => given[field] !== value)) {
        throw new ProtocolError(`asked for ${name} ${shown(asked)}, the server gives ${shown(given)}`);
      }
    }
    if (this.ready !== null) {
      if (ready.session !== this.ready.session) {
        this._answers = 0;
        this._log.renumber();
      }
      if (ready.resumed === "new") {
        this.inputPosition -= this._log.start.input;
        this._log.restart();
      }
      this.outputPosition = ready.output_position ?? 0;
    }
    this.ready = ready;
  }

  /**
   * @param {Message} answer
   * @returns {Message | null}
   */
  _settle(answer) {
    const wanted = ANSWERS[/** @type {keyof typeof ANSWERS} */ (answer.type)];
    const asked = this._log.find(wanted, answer.id);
    if (asked === undefined) throw new ProtocolError(`the server sent ${answer.type}, which nothing asked for`);
    if ("output" in answer && answer.output !== this.outputPosition) {
      throw new ProtocolError(`the server says that it sent ${answer.output}, but ${this.outputPosition} arrived`);
    }
    this._answers += 1;
    this._log.settle(asked, this.outputPosition);
    if (wanted === "clear") {
      this.staleUntil = 0;
      const moved = answer.input - asked.at; // a server that received less than was sent
      this.inputPosition += moved;
      this._log.move(moved);
    }
    if (asked.isAgain) return null;
    return wanted === "mark" && asked.isCut ? { ...answer, cleared: true } : answer;
  }

  /**
   * @param {Uint8Array} payload
   * @param {StreamFormat} format
   * @param {typeof ProtocolError} Fault
   */
  _units(payload, format, Fault) {
    const size = unitBytesOf(format);
    if (payload.byteLength % size) {
      throw new Fault(`${payload.byteLength} bytes are no whole number of ${format.format} units`);
    }
    return payload.byteLength / size;
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
