/**
 * The visitor speaks: microphone to encoder, up to 15 s. The microphone is open from `start` to `stop`, and the encode
 * slot is held for as long; however it ends, both are given back.
 */

import { Microphone, SoundError } from "../neucodec.js";
import { Take, joined } from "./take.js";

export const MAX_SECONDS = 15;
const MAX_FRAMES = MAX_SECONDS * 50;
const HOLDER = "recorder";
const NOTHING = "That was too short. Hold the button while you speak, or tap it once to begin and once to end.";
const GONE = "The microphone has gone away.";
const ALLOWED = "The microphone is ready now. Hold the button and speak.";

export class Recorder {
  /**
   * @param {import("./device.js").Device} device
   * @param {import("./server.js").Server} server
   * @param {{onChange: () => void, onTake: (take: Take) => void, onFailure: (error: Error) => void}} callbacks
   */
  constructor(device, server, callbacks) {
    this.phase = /** @type {"idle" | "opening" | "recording" | "finishing"} */ ("idle");
    /** @type {Float32Array[]} frames of 20 ms that were said */
    this.frames = [];
    /** @type {number[]} */
    this.tokens = [];
    this._device = device;
    this._server = server;
    this._callbacks = callbacks;
    this._turn = 0;
    /** @type {Microphone | null} */
    this._microphone = null;
    /** @type {import("../neucodec.js").Connection | null} */
    this._connection = null;
  }

  get isOn() {
    return this.phase === "opening" || this.phase === "recording";
  }

  /** Opens the microphone and sends what it hears. */
  async start() {
    const turn = ++this._turn;
    const overtaken = () => turn !== this._turn;
    [this.frames, this.tokens] = [[], []];
    this._be("opening");
    try {
      const context = await this._device.hold(HOLDER);
      const microphone = await Microphone.open(context, {
        echoCancellation: false, // nothing sounds meanwhile
        onFrame: ({ samples }) => !overtaken() && this._hear(samples),
        onEnded: () => !overtaken() && this._fail(new SoundError("missing", GONE)),
      });
      if (overtaken()) {
        microphone.close(); // given up while the browser asked
        if (this.phase === "idle") this._device.release(HOLDER);
        return;
      }
      this._microphone = microphone;
      this._be("recording");
      const connection = await this._server.connect({
        kind: "encode",
        onOutput: (tokens) => !overtaken() && this._learn(/** @type {Uint16Array} */ (tokens)),
        onFailure: (error) => !overtaken() && this._fail(error),
      });
      if (overtaken()) return connection.close();
      this._connection = connection;
      for (const frame of this.frames) connection.sendNow(frame);
      if (this.phase === "finishing") await this._finish(turn);
    } catch (error) {
      if (!overtaken()) this._fail(/** @type {Error} */ (error));
    }
  }

  /** Enough was said: the take follows. @param {boolean} letGo the button was held, and let go */
  async stop(letGo = false) {
    if (this.phase === "opening") {
      this.cancel();
      if (letGo) this._tellWhenAllowed();
      return;
    }
    if (this.phase !== "recording") return;
    this._closeMicrophone();
    this._be("finishing");
    if (this._connection !== null) await this._finish(this._turn);
  }

  /** Forgets it all, at once. */
  cancel() {
    if (this.phase === "idle") return;
    this._turn += 1;
    this._close();
  }

  /** @param {Float32Array} samples */
  _hear(samples) {
    if (this.phase !== "recording") return;
    this.frames.push(samples);
    try {
      this._connection?.sendNow(samples);
    } catch {
      return; // onFailure tells why
    }
    if (this.frames.length >= MAX_FRAMES) this.stop();
    else this._callbacks.onChange();
  }

  /** @param {Uint16Array} tokens */
  _learn(tokens) {
    this.tokens.push(...tokens);
    this._callbacks.onChange();
  }

  /** @param {number} turn */
  async _finish(turn) {
    try {
      await this._connection?.end();
    } catch (error) {
      if (turn === this._turn) this._fail(/** @type {Error} */ (error));
      return;
    }
    if (turn !== this._turn) return;
    const tokens = Uint16Array.from(this.tokens);
    const input = joined(this.frames);
    this._close();
    if (tokens.length === 0) this._callbacks.onFailure(new SoundError("failed", NOTHING));
    else this._callbacks.onTake(new Take({ title: "You", model: this._server.model, tokens, input }));
  }

  /** @param {Error} error */
  _fail(error) {
    this._turn += 1;
    this._close();
    this._callbacks.onFailure(error);
  }

  _closeMicrophone() {
    this._microphone?.close();
    this._microphone = null;
  }

  _close() {
    this._closeMicrophone();
    this._connection?.close();
    this._connection = null;
    this._device.release(HOLDER);
    this._be("idle");
  }

  /** Browsers ask at the first time, and the hand leaves the button for the answer. */
  async _tellWhenAllowed() {
    try {
      const permission = await navigator.permissions.query({ name: /** @type {any} */ ("microphone") });
      if (permission.state !== "prompt") return;
      permission.onchange = () => {
        permission.onchange = null;
        if (permission.state === "granted" && this.phase === "idle") {
          this._callbacks.onFailure(new SoundError("ready", ALLOWED));
        }
      };
    } catch {
      // this browser does not tell
    }
  }

  /** @param {Recorder["phase"]} phase */
  _be(phase) {
    this.phase = phase;
    this._callbacks.onChange();
  }
}
