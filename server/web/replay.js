/**
 * What a client may have to send again: its payload and requests since the oldest utterance not wholly answered began.
 * Payload beyond a limit is dropped from the front in whole frames; the log then holds only the tail of that utterance
 * (`whole` is false). Sans-I/O; owned by ClientSession in protocol.js, the twin of streaming/protocol/replay.py.
 */

import { UNIT_BYTES } from "./payload.js";

/**
 * A request that waits for its answer: the `number`th of the session, sent at input position `at`.
 * @typedef {{request: import("./protocol.js").Request, number: number, at: number}} Asked
 */

export class ReplayLog {
  /**
   * @param {number} inputHop units of input in a frame
   * @param {number} outputHop units of output in a frame
   * @param {number} mostUnits of payload that is kept
   */
  constructor(inputHop, outputHop, mostUnits) {
    this.whole = true;
    /** Positions of the first unit of payload: of the input, and of the output that belongs to it. */
    this.start = { input: 0, output: 0 };
    this._inputHop = inputHop;
    this._outputHop = outputHop;
    this._mostUnits = mostUnits;
    this._end = 0;
    this._requests = 0;
    /** @type {Asked[]} */
    this._asked = [];
    /** @type {{payload: Uint8Array, first: number}[]} `first`: position of its first unit */
    this._payload = [];
  }

  /** Payload that was given to be sent. @param {Uint8Array} payload */
  addPayload(payload) {
    this._payload.push({ payload, first: this._end });
    this._end += payload.byteLength / UNIT_BYTES;
    if (this._end - this.start.input > this._mostUnits) this._shorten();
  }

  /** A request that was given to be sent. @param {import("./protocol.js").Request} request */
  addRequest(request) {
    this._asked.push({ request, number: this._requests, at: this._end });
    this._requests += 1;
  }

  /**
   * The oldest request of a type that waits, of marks the one with that id.
   * @param {string} type
   * @param {string | number} [id]
   */
  find(type, id) {
    return this._asked.find(({ request }) => request.type === type && (request.type !== "mark" || request.id === id));
  }

  /**
   * A request is answered; what is no mark ends an utterance, and the next one's output begins at `output`.
   * @param {Asked} asked
   * @param {number} output
   */
  settle(asked, output) {
    const index = this._asked.indexOf(asked);
    if (asked.request.type === "mark") {
      this._asked.splice(index, 1);
      return;
    }
    this._asked.splice(0, index + 1);
    this.start = { input: asked.at, output };
    this.whole = true;
    this._dropBefore(asked.at);
  }

  /** A new session counts requests from 0: those that wait are its first. */
  renumber() {
    this._asked.forEach((asked, number) => Object.assign(asked, { number }));
    this._requests = this._asked.length;
  }

  /**
   * What comes after an input position and so many requests, in order: payload, and requests.
   * @param {number} position
   * @param {number} requests
   */
  after(position, requests) {
    const waiting = this._asked.filter(({ number }) => number >= requests);
    const rest = [];
    for (const { payload, first } of this._payload) {
      while (waiting.length > 0 && waiting[0].at <= first) rest.push(/** @type {Asked} */ (waiting.shift()).request);
      const left = payload.subarray(Math.max(0, position - first) * UNIT_BYTES);
      if (left.byteLength > 0) rest.push(left);
    }
    return [...rest, ...waiting.map(({ request }) => request)];
  }

  /** Drops whole frames from the front, as far as the oldest utterance goes. */
  _shorten() {
    const end = this._asked.find(({ request }) => request.type !== "mark")?.at ?? this._end;
    const excess = this._end - this.start.input - this._mostUnits;
    const most = Math.floor((end - this.start.input) / this._inputHop);
    const frames = Math.min(Math.ceil(excess / this._inputHop), most);
    if (frames === 0) return;
    const { input, output } = this.start;
    this.start = { input: input + frames * this._inputHop, output: output + frames * this._outputHop };
    this.whole = false;
    this._dropBefore(this.start.input);
  }

  /** @param {number} position */
  _dropBefore(position) {
    while (this._payload.length > 0) {
      const { payload, first } = this._payload[0];
      if (first + payload.byteLength / UNIT_BYTES > position) {
        const skipped = Math.max(0, position - first);
        this._payload[0] = { payload: payload.subarray(skipped * UNIT_BYTES), first: first + skipped };
        return;
      }
      this._payload.shift();
    }
  }
}
