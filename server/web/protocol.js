/**
 * One conversation of `neucodec.v1` on the client's side, without I/O: states, positions, and the data to send again
 * when a lost connection is resumed. The I/O is in Connection (connection.js). The Python twin is
 * streaming/protocol/client_session.py; both are tested with the same conversations (tests/data/protocol-vectors.json).
 */

import { FRAME_MS, hopOf, unitBytesOf } from "./payload.js";
import { ReplayLog } from "./replay.js";
import { TRANSITIONS } from "./states.js";

export const SUBPROTOCOL = "neucodec.v1";
const TOKENS_PER_SECOND = 50;
/** Input kept for a server that has lost the session. */
const REPLAY_SECONDS = 60;

export { FRAME_MS };

/**
 * @typedef {import("./payload.js").AudioFormat} AudioFormat
 * @typedef {import("./payload.js").StreamFormat} StreamFormat
 * @typedef {"encode" | "decode" | "roundtrip"} Kind
 * @typedef {{type: "prime", voice: string} | {type: "prime", tokens: number[]}} Prime
 * @typedef {{type: "flush"} | {type: "clear"} | {type: "mark", id: string | number} | {type: "end"} | Prime} Request
 * @typedef {{type: string, [field: string]: any}} Message a server's message, with the fields of docs/protocol.md
 * @typedef {object} Formats audio formats on the wire; the server converts from and to the model's
 * @property {AudioFormat} [inputFormat]
 * @property {number} [inputRate]
 * @property {AudioFormat} [outputFormat]
 * @property {number} [outputRate]
 */

/** @type {StreamFormat} */
export const TOKENS = { kind: "tokens", format: "u16le", rate: TOKENS_PER_SECOND };
/**
 * Returns the input and output formats of a session of this kind. Throws TypeError for an unknown kind.
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

/** The server violated the protocol. */
export class ProtocolError extends Error {}

/** The caller tried something that the protocol does not allow at this point. */
export class LocalProtocolError extends ProtocolError {}

export const ANSWERS = { flushed: "flush", cleared: "clear", mark: "mark", primed: "prime", done: "end" };
const KNOWN = ["ready", "stats", "error", ...Object.keys(ANSWERS)];

/**
 * Returns the path and query of a session.
 * @param {Kind} kind
 * @param {Record<string, string | number | null | undefined>} query fields that are null or undefined are omitted
 */
export function target(kind, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `/v1/${kind}${text && "?"}${text}`;
}

/**
 * The client's side. `inputPosition` counts units passed to `sendPayload`, `outputPosition` units received (also
 * dropped ones). After `lose` it still accepts payload and requests: `resuming` gives the query that resumes the
 * session, and after the new `ready` the caller sends `unsent`.
 */
export class ClientSession {
  /**
   * @param {Kind} kind
   * @param {Formats} formats
   * @param {number} replaySeconds seconds of input kept for a server that has lost the session
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

  /** Whether the connection is lost and may be replaced. */
  get isLost() {
    return this.state === "lost" || this.state === "lost_ending";
  }

  /** Whether the conversation has ended. */
  get isOver() {
    return this.state === "done" || this.state === "closed";
  }

  /** Whether a `clear` is unanswered: payload that arrives now belongs to the old utterance. */
  get clearing() {
    return this._log.find("clear") !== undefined;
  }

  /** Start of the utterance that the server is answering, as corresponding positions {input, output}. */
  get utterance() {
    return this._log.start;
  }

  /** Frames of input whose output has not arrived yet. */
  get pendingFrames() {
    const { input, output } = this.utterance;
    return (this.inputPosition - input) / hopOf(this.input) - (this.outputPosition - output) / hopOf(this.output);
  }

  /**
   * Counts and returns payload. Throws LocalProtocolError if it may not be sent now or contains a partial unit.
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
   * Records a request and returns the text to send. Throws LocalProtocolError if it may not be sent now.
   * @param {Request} request
   */
  send(request) {
    if (request.type === "prime" && this.output.kind === "tokens") {
      throw new LocalProtocolError("an encode session has no voice: prime a decode or roundtrip session");
    }
    this._move(request.type, LocalProtocolError);
    this._log.addRequest(request);
    return JSON.stringify(request);
  }

  /**
   * Accepts a server's message and returns what concerns the user: payload, a message, or null. It returns null for an
   * unknown type, for payload that a pending `clear` has made worthless, and for the repeated answer to a voice that
   * was sent again. Throws ProtocolError if the server violates the protocol.
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

  /** The connection is lost. */
  lose() {
    this._move("loss", ProtocolError);
  }

  /**
   * Returns the query fields that resume this session on a new connection; without `replay`, a server that has lost it
   * starts a new one.
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
   * After a new `ready`: drops input before a `clear` that the server has not received, and of a live stream all but
   * the latest `maxAgeUnits`, with the output of older input.
   * @param {number} maxAgeUnits
   * @returns {number} number of dropped input units
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
   * Payload and texts of requests that the server of the latest `ready` lacks, in order.
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
        throw new ProtocolError(`requested ${name} ${shown(asked)}, but the server confirmed ${shown(given)}`);
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
    if (asked === undefined) throw new ProtocolError(`the server sent ${answer.type} without a matching request`);
    if ("output" in answer && answer.output !== this.outputPosition) {
      throw new ProtocolError(`the server sent ${answer.output} units of output, but ${this.outputPosition} arrived`);
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
      throw new Fault(`${payload.byteLength} bytes are not a whole number of ${format.format} units`);
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
      throw new Fault(`${move} is not allowed in state ${this.state}; allowed: ${Object.keys(allowed).join(", ")}`);
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
    throw new ProtocolError(`${shown(text)} is not a ${SUBPROTOCOL} message: is this a NeuCodec server?`);
  }
  return message;
}

/** @param {unknown} value */
function shown(value) {
  const text = JSON.stringify(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}
