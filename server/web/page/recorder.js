/**
 * Records up to 15 s of speech: microphone to encoder. The microphone is open from `start` to `stop`. The microphone
 * and the encode session are always released, however the recording ends.
 */

import { Microphone, SoundError } from "../neucodec.js";
import { WORKLET_URL } from "./device.js";
import { Take, joined } from "./take.js";

export const MAX_SECONDS = 15;
const MAX_FRAMES = MAX_SECONDS * 50;
const HOLDER = "recorder";
const NOTHING = "That was too short. Hold the button while you speak, or tap it once to start and once to stop.";
const GONE = "The microphone was disconnected.";
const KEY = "This server requires a key. Enter it, then speak again.";
const ALLOWED = "The microphone is ready. Hold the button and speak.";

export class Recorder {
  /**
   * @param {import("./device.js").Device} device
   * @param {import("./server.js").Server} server
   * @param {{onChange: () => void, onTake: (take: Take) => void, onFailure: (error: Error) => void,
   *   onAllowed: (words: string) => void}} callbacks `onAllowed`: the user has allowed the microphone after a release
   */
  constructor(device, server, callbacks) {
    this.phase = /** @type {"idle" | "opening" | "recording" | "finishing"} */ ("idle");
    /** @type {Float32Array[]} recorded frames of 20 ms */
    this.frames = [];
    /** @type {number[]} */
    this.tokens = [];
    this._device = device;
    this._server = server;
    this._callbacks = callbacks;
    this._given = new AbortController();
    /** @type {Microphone | null} */
    this._microphone = null;
    /** @type {import("../connection.js").Connection<"encode"> | null} */
    this._connection = null;
  }

  get isOn() {
    return this.phase === "opening" || this.phase === "recording";
  }

  /** Opens the microphone and sends its frames to an encode session. */
  async start() {
    this._given = new AbortController();
    const { signal } = this._given;
    const overtaken = () => signal.aborted;
    [this.frames, this.tokens] = [[], []];
    this._be("opening");
    try {
      const context = await this._device.hold(HOLDER);
      this._microphone = await Microphone.open(context, {
        echoCancellation: false, // nothing plays meanwhile
        workletUrl: WORKLET_URL,
        signal,
        onFrame: ({ samples }) => !overtaken() && this._hear(samples),
        onEnded: () => !overtaken() && this._fail(new SoundError("missing", GONE)),
      });
      this._be("recording");
      const connection = await this._server.connect(
        {
          kind: "encode",
          signal,
          onOutput: (tokens) => !overtaken() && this._learn(/** @type {Uint16Array} */ (tokens)),
          onFailure: (error) => !overtaken() && this._fail(error),
        },
        () => !overtaken() && this._fail(new SoundError("key", KEY)),
      );
      if (overtaken()) return;
      this._connection = connection;
      for (const frame of this.frames) connection.sendNow(frame);
      if (this.phase === "finishing") await this._finish(signal);
    } catch (error) {
      if (!overtaken()) this._fail(/** @type {Error} */ (error));
    }
  }

  /** Ends the recording; `onTake` follows. @param {boolean} letGo the button was held and released */
  async stop(letGo = false) {
    if (this.phase === "opening") {
      this.cancel();
      if (letGo) this._tellWhenAllowed();
      return;
    }
    if (this.phase !== "recording") return;
    this._microphone?.close();
    this._be("finishing");
    if (this._connection !== null) await this._finish(this._given.signal);
  }

  /** Discards the recording at once. */
  cancel() {
    if (this.phase !== "idle") this._close();
  }

  /** @param {Float32Array} samples */
  _hear(samples) {
    if (this.phase !== "recording") return;
    this.frames.push(samples);
    try {
      this._connection?.sendNow(samples);
    } catch {
      return; // onFailure reports why
    }
    if (this.frames.length >= MAX_FRAMES) this.stop();
    else this._callbacks.onChange();
  }

  /** @param {Uint16Array} tokens */
  _learn(tokens) {
    this.tokens.push(...tokens);
    this._callbacks.onChange();
  }

  /** @param {AbortSignal} signal */
  async _finish(signal) {
    try {
      await this._connection?.end();
    } catch (error) {
      if (!signal.aborted) this._fail(/** @type {Error} */ (error));
      return;
    }
    if (signal.aborted) return;
    const tokens = Uint16Array.from(this.tokens);
    const input = joined(this.frames);
    this._close();
    if (tokens.length === 0) this._callbacks.onFailure(new SoundError("failed", NOTHING));
    else this._callbacks.onTake(new Take({ title: "You", model: this._server.model, tokens, input }));
  }

  /** @param {Error} error */
  _fail(error) {
    this._close();
    this._callbacks.onFailure(error);
  }

  _close() {
    this._given.abort(); // closes microphone and session, also those that are still opening
    this._microphone = this._connection = null;
    this._device.release(HOLDER);
    this._be("idle");
  }

  /** To answer the browser's first prompt, the user releases the button: reports when recording is possible. */
  async _tellWhenAllowed() {
    try {
      const permission = await navigator.permissions.query({ name: /** @type {any} */ ("microphone") });
      if (permission.state !== "prompt") return;
      permission.onchange = () => {
        permission.onchange = null;
        if (permission.state === "granted" && this.phase === "idle") this._callbacks.onAllowed(ALLOWED);
      };
    } catch {
      // this browser does not report it
    }
  }

  /** @param {Recorder["phase"]} phase */
  _be(phase) {
    this.phase = phase;
    this._callbacks.onChange();
  }
}
