/**
 * A client's replay log: its payload and requests since the start of the oldest unanswered utterance, and its voice.
 *
 * Payload beyond a limit is dropped from the front in whole frames; the log then holds only the tail of the utterance
 * (`whole` is false). Sans-I/O; owned by ClientSession in protocol.js. Its Python twin is streaming/protocol/replay.py.
 */

import { hopOf, unitBytesOf } from "./payload.js";

/**
 * An unanswered request, the `number`th of the session, sent at input position `at`. `isCut`: part of the input before
 * it was not sent. `isAgain`: it was answered, by a server that has lost the session.
 * @typedef {{request: import("./protocol.js").Request, number: number, at: number, isCut: boolean, isAgain: boolean}}
 *   Asked
 */

export class ReplayLog {
  /**
   * @param {import("./payload.js").StreamFormat} input
   * @param {import("./payload.js").StreamFormat} output
   * @param {number} maxUnits maximum units of payload kept
   */
  constructor(input, output, maxUnits) {
    this.whole = true;
    /** Input position of the first unit of payload, and its output position. */
    this.start = { input: 0, output: 0 };
    /** @type {Asked[]} */
    this.asked = [];
    this._unitBytes = unitBytesOf(input);
    this._inputHop = hopOf(input);
    this._outputHop = hopOf(output);
    this._maxUnits = maxUnits;
    this._end = 0;
    this._requests = 0;
    /** @type {{payload: Uint8Array, first: number}[]} `first`: position of its first unit */
    this._payload = [];
    /** @type {Asked | null} the voice in effect when the oldest utterance started */
    this._voice = null;
    /** @type {Asked[]} answered voices that came later */
    this._voices = [];
  }

  /** Appends payload. @param {Uint8Array} payload */
  addPayload(payload) {
    this._payload.push({ payload, first: this._end });
    this._end += this._count(payload);
    if (this._end - this.start.input > this._maxUnits) this._shorten();
  }

  /** Appends a request. @param {import("./protocol.js").Request} request */
  addRequest(request) {
    this.asked.push({ request, number: this._requests, at: this._end, isCut: false, isAgain: false });
    this._requests += 1;
  }

  /**
   * Returns the oldest unanswered request of a type; of a mark, the one with that id.
   * @param {string} type
   * @param {string | number} [id]
   */
  find(type, id) {
    return this.asked.find(({ request }) => request.type === type && (request.type !== "mark" || request.id === id));
  }

  /**
   * Marks a request as answered. All but a mark or a voice end an utterance; the next one's output starts at `output`.
   * @param {Asked} asked
   * @param {number} output
   */
  settle(asked, output) {
    const index = this.asked.indexOf(asked);
    const { type } = asked.request;
    if (type === "mark" || type === "prime") {
      this.asked.splice(index, 1);
      if (type === "prime") this._voices.push({ ...asked, isAgain: true });
      return;
    }
    this.asked.splice(0, index + 1);
    this.start = { input: asked.at, output };
    this.whole = true;
    this._beginInVoice();
    this._dropBefore(asked.at);
  }

  /**
   * Forgets `units` of payload from a position on; later payload moves down to it.
   * @param {number} position
   * @param {number} units
   */
  drop(position, units) {
    if (units === 0) return;
    const end = position + units;
    const kept = [];
    for (const { payload, first } of this._payload) {
      const before = payload.subarray(0, Math.max(0, position - first) * this._unitBytes);
      const after = payload.subarray(Math.max(0, end - first) * this._unitBytes);
      if (before.byteLength > 0) kept.push({ payload: before, first });
      if (after.byteLength > 0) kept.push({ payload: after, first: Math.max(first, end) - units });
    }
    this._payload = kept;
    const moved = (/** @type {Asked} */ asked) =>
      asked.at > position ? { ...asked, at: Math.max(position, asked.at - units), isCut: true } : asked;
    this.asked = this.asked.map(moved);
    this._voices = this._voices.map(moved);
    if (this.start.input > position) {
      // the log had been shortened
      const frames = Math.floor((this.start.input - position) / this._inputHop);
      this.start = { input: position, output: this.start.output - frames * this._outputHop };
    }
    this._end -= units;
  }

  /** The server counts input differently: adds `units` to every input position. @param {number} units */
  move(units) {
    const moved = (/** @type {Asked} */ asked) => ({ ...asked, at: asked.at + units });
    this.start = { ...this.start, input: this.start.input + units };
    this.asked = this.asked.map(moved);
    this._voices = this._voices.map(moved);
    this._payload = this._payload.map(({ payload, first }) => ({ payload, first: first + units }));
    this._end += units;
  }

  /** A new session counts requests from 0: first the needed voices, then the unanswered requests. */
  renumber() {
    const { input } = this.start;
    const again = this._voices.map((asked) => ({ ...asked, at: Math.max(asked.at, input + Number(!this.whole)) }));
    if (this._voice !== null) again.unshift({ ...this._voice, at: input });
    [this._voice, this._voices] = [null, []];
    const merged = [...again, ...this.asked].sort((one, other) => one.at - other.at); // stable: answered ones first
    this.asked = merged.map((asked, number) => ({ ...asked, number }));
    this._requests = this.asked.length;
  }

  /** A new session counts positions from 0: the log is its first input. */
  restart() {
    this.move(-this.start.input);
    this.start = { input: 0, output: 0 };
    this.whole = true;
  }

  /**
   * Returns payload from an input position on and the requests from a number on, in order.
   * @param {number} position
   * @param {number} requests
   */
  after(position, requests) {
    const waiting = this.asked.filter(({ number }) => number >= requests);
    const rest = [];
    for (const { payload, first } of this._payload) {
      while (waiting.length > 0 && waiting[0].at <= first) rest.push(/** @type {Asked} */ (waiting.shift()).request);
      const left = payload.subarray(Math.max(0, position - first) * this._unitBytes);
      if (left.byteLength > 0) rest.push(left);
    }
    return [...rest, ...waiting.map(({ request }) => request)];
  }

  /** The voice in effect is the last one set before the oldest utterance started. */
  _beginInVoice() {
    while (this._voices.length > 0 && this._voices[0].at <= this.start.input) {
      this._voice = /** @type {Asked} */ (this._voices.shift());
    }
  }

  /** Drops whole frames from the front of the oldest utterance. */
  _shorten() {
    const end = this.asked.find(({ request }) => request.type !== "mark" && request.type !== "prime")?.at ?? this._end;
    const excess = this._end - this.start.input - this._maxUnits;
    const most = Math.floor((end - this.start.input) / this._inputHop);
    const frames = Math.min(Math.ceil(excess / this._inputHop), most);
    if (frames === 0) return;
    if (this.whole) this._beginInVoice();
    const { input, output } = this.start;
    this.start = { input: input + frames * this._inputHop, output: output + frames * this._outputHop };
    this.whole = false;
    this._dropBefore(this.start.input);
  }

  /** @param {number} position */
  _dropBefore(position) {
    while (this._payload.length > 0) {
      const { payload, first } = this._payload[0];
      if (first + this._count(payload) > position) {
        const skipped = Math.max(0, position - first);
        this._payload[0] = { payload: payload.subarray(skipped * this._unitBytes), first: first + skipped };
        return;
      }
      this._payload.shift();
    }
  }

  /** @param {Uint8Array} payload */
  _count(payload) {
    return payload.byteLength / this._unitBytes;
  }
}
