/**
 * What a client may have to send again: payload and requests since the start of the oldest utterance that has not been
 * answered wholly. Payload older than its limit is dropped from the front in whole frames; the log then holds only the
 * tail of that utterance (`whole` is false). Sans-I/O; owned by ClientSession in protocol.js.
 */

/**
 * @typedef {{payload: Uint8Array, position: number, units: number}} LoggedPayload
 * @typedef {{request: import("./protocol.js").Request, text: string, number: number}} LoggedRequest
 */

import { UNIT_BYTES } from "./protocol.js";

export class ReplayLog {
  /**
   * @param {number} inputHop units of input in a frame
   * @param {number} outputHop units of output in a frame
   * @param {number} mostUnits of payload that is kept
   */
  constructor(inputHop, outputHop, mostUnits) {
    this.whole = true;
    /** Positions of the first item: of the input, and of the output that belongs to it. */
    this.start = { input: 0, output: 0 };
    this._inputHop = inputHop;
    this._outputHop = outputHop;
    this._mostUnits = mostUnits;
    this._end = 0;
    this._requests = 0;
    /** @type {(LoggedPayload | LoggedRequest)[]} */
    this._items = [];
  }

  /** @param {Uint8Array} payload */
  addPayload(payload) {
    const units = payload.byteLength / UNIT_BYTES;
    this._items.push({ payload, position: this._end, units });
    this._end += units;
    this._shorten();
  }

  /** @param {import("./protocol.js").Request} request */
  addRequest(request) {
    this._items.push({ request, text: JSON.stringify(request), number: this._requests });
    this._requests += 1;
  }

  /**
   * The oldest unanswered request of a type (and id, for marks).
   * @param {string} type
   * @param {string | number} [id]
   * @returns {LoggedRequest | undefined}
   */
  find(type, id) {
    for (const item of this._items) {
      if (!("request" in item) || item.request.type !== type) continue;
      if (item.request.type !== "mark" || item.request.id === id) return item;
    }
    return undefined;
  }

  /** @param {LoggedRequest} request */
  remove(request) {
    this._items.splice(this._items.indexOf(request), 1);
  }

  /**
   * Everything up to `request` is answered; the next utterance's output begins at `output`.
   * @param {LoggedRequest} request
   * @param {number} output
   */
  dropThrough(request, output) {
    const dropped = this._items.splice(0, this._items.indexOf(request) + 1);
    const units = dropped.reduce((sum, item) => sum + ("payload" in item ? item.units : 0), 0);
    this.start = { input: this.start.input + units, output };
    this.whole = true;
  }

  /** A new session counts requests from 0: those that are here are its first. */
  renumber() {
    this._requests = 0;
    for (const item of this._items) {
      if ("request" in item) item.number = this._requests++;
    }
  }

  /**
   * What comes after an input position and a number of requests, payload cut to begin there.
   * @param {number} position
   * @param {number} requests
   */
  after(position, requests) {
    const rest = [];
    for (const item of this._items) {
      if ("request" in item) {
        if (item.number >= requests) rest.push(item);
      } else if (item.position + item.units > position) {
        const skipped = Math.max(0, position - item.position);
        rest.push({ ...item, payload: item.payload.subarray(skipped * UNIT_BYTES) });
      }
    }
    return rest;
  }

  _shorten() {
    const excess = this._end - this.start.input - this._mostUnits;
    if (excess <= 0) return;
    let frames = Math.ceil(excess / this._inputHop);
    const first = this._items[0];
    if ("request" in first) return;
    frames = Math.min(frames, Math.floor((first.position + first.units - this.start.input) / this._inputHop));
    if (frames === 0) return;
    this.start = {
      input: this.start.input + frames * this._inputHop,
      output: this.start.output + frames * this._outputHop,
    };
    this.whole = false;
    const skipped = this.start.input - first.position;
    if (skipped >= first.units) this._items.shift();
    else {
      first.payload = first.payload.subarray(skipped * UNIT_BYTES);
      first.position += skipped;
      first.units -= skipped;
    }
  }
}
