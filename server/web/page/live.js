/** The Live tab: the user talks and hears the codec's output a fraction of a second later. */

import { Microphone, SoundError, Speaker } from "../neucodec.js";
import { WORKLET_URL } from "./device.js";
import { element, grouped, tell } from "./dom.js";
import { Figure, peaksOf } from "./figure.js";
import { History } from "./history.js";
import { algorithmicMs } from "./latency.js";
import { Loop } from "./loop.js";
import { INPUT_RATE, OUTPUT_RATE, bytesOf } from "./take.js";

const SECONDS = 6;
const FRAMES = SECONDS * 50;
const PEAKS_A_FRAME = 4;
const MAX_FRAMES_BEHIND = 10;
const HOLDER = "live";
const FIGURES_EVERY = 10;
const DASH = "\u2014";
const KEY = "This server requires a key. Enter it, then start again.";
const GONE = "The microphone was disconnected.";

export class Live {
  /** @param {import("./device.js").Device} device @param {import("./server.js").Server} server */
  constructor(device, server) {
    this.phase = /** @type {"idle" | "opening" | "talking" | "ending"} */ ("idle");
    this.history = new History();
    this.underruns = 0;
    /** @type {Loop | null} */
    this.loop = null;
    /** @type {Loop | null} the loop that is being opened */
    this._next = null;
    /** @type {{loop: Loop, finished: Promise<void>} | null} the loop of the previous profile */
    this._previous = null;
    /** @type {Speaker | null} */
    this.speaker = null;
    this.playing = false;
    /** @type {(playback: import("../speaker.js").Playback) => void} */
    this.onPlayback = () => {};
    this._device = device;
    this._server = server;
    this._turn = 0;
    this._given = new AbortController();
    this._ticks = 0;
    /** @type {Float32Array[]} input frames that have not been shown yet */
    this._said = [];
    this._strips = {
      input: new Float32Array(FRAMES * PEAKS_A_FRAME),
      tokens: new Int32Array(FRAMES).fill(-1),
      output: new Float32Array(FRAMES * PEAKS_A_FRAME),
    };
    this.figure = new Figure("live");
    this.figure.show({ seconds: SECONDS, ...this._strips });
    this.refresh();
  }

  get isOn() {
    return this.phase !== "idle";
  }

  /** Opens both sessions and the microphone. */
  async start() {
    const turn = ++this._turn;
    const overtaken = () => turn !== this._turn;
    this._given = new AbortController();
    const { signal } = this._given; // a change of profile keeps the microphone
    tell("live");
    this.history.clear();
    this._be("opening", "opening");
    try {
      const context = await this._device.hold(HOLDER);
      const onPlayback = (/** @type {import("../speaker.js").Playback} */ playback) => this._tick(playback);
      const options = { live: true, workletUrl: WORKLET_URL, onPlayback };
      const speaker = this.speaker ?? (await Speaker.open(context, options));
      if (overtaken()) {
        if (speaker !== this.speaker) speaker.close();
        return;
      }
      this.speaker = speaker;
      speaker.clear();
      await Microphone.open(context, {
        echoCancellation: false, // the user wears headphones
        live: true,
        workletUrl: WORKLET_URL,
        signal,
        onFrame: ({ samples, time }) => !signal.aborted && this._hear(samples, time),
        onEnded: () => !signal.aborted && this._fail(new SoundError("missing", GONE)),
      });
      if (overtaken()) return;
      await this._openLoop(turn);
    } catch (error) {
      if (!overtaken()) this._fail(/** @type {Error} */ (error));
    }
  }

  /** Closes the microphone and plays the rest, which a second call cuts off. */
  async stop() {
    if (this.phase === "opening") return this._drop();
    if (this.phase === "ending") return this.halt();
    const turn = ++this._turn;
    this._closeMicrophone();
    this._next?.drop();
    this._be("ending", "finishing");
    try {
      await (this.loop ? this.loop.finish() : this._previous?.finished);
    } catch {
      // onFailure has reported it
    }
    if (turn === this._turn) this._end();
  }

  /** Stops everything at once. */
  halt() {
    if (this.phase === "idle") return;
    this._drop();
    this.speaker?.clear();
  }

  /** Selects a profile; a recording in progress continues with it. @param {string} name */
  async choose(name) {
    this._server.profile = name;
    if (this.phase !== "talking") return;
    const turn = ++this._turn;
    this._next?.drop();
    if (this.loop) this._previous = { loop: this.loop, finished: this.loop.finish() };
    this.loop = null; // speech before the new sessions are open is dropped
    this._be("talking", `changing to ${name}`);
    try {
      await this._previous?.finished;
      await this.speaker?.finish();
      if (turn !== this._turn) return;
      this.speaker?.clear(); // the next sessions count positions from 0
      await this._openLoop(turn);
    } catch (error) {
      if (turn === this._turn) this._fail(/** @type {Error} */ (error));
    }
  }

  /** Updates the buttons and the figures that do not change while talking. */
  refresh() {
    const words = { idle: "Talk live", opening: "Cancel", talking: "Stop", ending: "Stop now" };
    element("talk").textContent = words[this.phase];
    element("talk").setAttribute("aria-pressed", String(this.isOn));
    element("live-compare").disabled = this.phase !== "idle" || this.history.seconds === 0;
    this._showLength();
    if (this.phase === "idle") this._showFigures(null);
  }

  /** Shows the profiles, lowest latency first. */
  showProfiles() {
    const { profiles, profile } = this._server;
    const byLatency = Object.entries(profiles).sort(([, a], [, b]) => algorithmicMs(a) - algorithmicMs(b));
    const names = byLatency.map(([name]) => name).join(" ");
    if (element("profiles").dataset.names !== names) {
      element("profiles").dataset.names = names;
      element("profiles").replaceChildren(...byLatency.map(([name, each]) => this._step(name, algorithmicMs(each))));
    }
    for (const radio of element("profiles").querySelectorAll("input")) radio.checked = radio.value === profile;
  }

  /** @param {string} name @param {number} ms */
  _step(name, ms) {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "profile", value: name });
    radio.onchange = () => this.choose(name);
    const cost = document.createElement("small");
    cost.textContent = `${ms} ms`;
    const words = document.createElement("span");
    words.append(name, " ", cost);
    label.append(radio, words);
    return label;
  }

  /** @param {number} turn */
  async _openLoop(turn) {
    const { profile } = this._server;
    const loop = new Loop(/** @type {AudioContext} */ (this._device.context), /** @type {Speaker} */ (this.speaker), this._server, {
      onTokens: (tokens) => this.history.tokens.add(tokens),
      onAudio: (audio) => this.history.addAudio("output", audio),
      onSkip: (kind, seconds) => this.history.skip(kind, seconds),
      onLost: () => this._say("lost", "connection lost, reconnecting"),
      onReturn: (gapMs) => this._say("live", `reconnected${gapMs > 0 ? `, ${(gapMs / 1000).toFixed(1)} s skipped` : ""}`),
      onFailure: (error) => loop === this.loop && this._fail(error),
    });
    this._next = loop;
    await loop.open(() => turn === this._turn && this._fail(new SoundError("key", KEY)));
    if (turn !== this._turn) return loop.drop();
    [this.loop, this._next] = [loop, null];
    this._be("talking", `live, ${this._server.model}, ${loop.ready?.profile}`);
    if (profile !== this._server.profile) await this.choose(this._server.profile); // selected meanwhile
  }

  /** @param {Float32Array} samples @param {number} time */
  _hear(samples, time) {
    this._said.push(samples);
    if (this._said.length > MAX_FRAMES_BEHIND) this._said.shift();
    try {
      if (this.loop?.speak(samples, time)) this.history.addAudio("input", samples);
    } catch {
      // the session has ended; onFailure reports why
    }
  }

  /** @param {Error} error */
  _fail(error) {
    this._drop();
    tell("live", error.message);
    this._server.look();
  }

  /** Ends the talk without its rest. */
  _drop() {
    this._turn += 1;
    this._closeMicrophone();
    for (const loop of [this.loop, this._next, this._previous?.loop]) loop?.drop();
    this._end();
  }

  _closeMicrophone() {
    this._given.abort(); // also closes the browser's pending prompt
    this._said = [];
  }

  _end() {
    this.loop = this._next = this._previous = null;
    this._be("idle", "");
    if (!this.playing) this._device.release(HOLDER);
  }

  /** @param {Live["phase"]} phase @param {string} words */
  _be(phase, words) {
    this.phase = phase;
    this._say(phase === "talking" ? "live" : "wait", words);
    this.refresh();
  }

  /** @param {string} state @param {string} words */
  _say(state, words) {
    element("live-state").dataset.state = state;
    element("live-state").textContent = words;
  }

  /** Handles 20 ms of playback. @param {import("../speaker.js").Playback} playback */
  _tick(playback) {
    const ended = this.playing && !playback.playing;
    this.playing = playback.playing;
    this.underruns = playback.underruns;
    this.onPlayback(playback);
    if (this.phase === "idle" && !playback.playing) {
      if (ended) this._device.release(HOLDER);
      return;
    }
    const said = this._said.shift();
    const token = this.loop && playback.playing ? this.loop.tokenAt(playback.position) : -1;
    this.loop?.hear(playback);
    push(this._strips.input, said ? peaksOf(said, INPUT_RATE) : new Float32Array(PEAKS_A_FRAME));
    push(this._strips.output, peaksOf(playback.heard, OUTPUT_RATE));
    push(this._strips.tokens, [token]);
    this.figure.show({});
    if (this._ticks++ % FIGURES_EVERY === 0) this._showFigures(playback);
  }

  /** @param {import("../speaker.js").Playback | null} playback null if nothing plays */
  _showFigures(playback) {
    const latency = playback?.playing ? (this.loop?.latency ?? null) : null;
    element("live-latency").textContent = latency === null ? DASH : sentenceOf(latency, this._device.latency);
    element("live-total").textContent = latency === null ? DASH : String(Math.round(latency.totalMs));
    element("live-rate").textContent = latency === null ? DASH : `${this._rate} tokens a second, ${(this._rate * 16) / 1000} kbit/s`;
    element("live-trouble").textContent = this._trouble;
    this._showLength();
  }

  _showLength() {
    const { seconds, tokens } = this.history;
    element("live-length").textContent =
      seconds === 0 ? DASH : `${seconds.toFixed(1)} s in ${grouped(bytesOf(tokens.count).tokens)} bytes`;
  }

  /** Tokens played per second, over the last two seconds. */
  get _rate() {
    const recent = this._strips.tokens.subarray(-100);
    return Math.round(recent.reduce((sum, token) => sum + Number(token >= 0), 0) / 2);
  }

  get _trouble() {
    const lostMs = (this.loop?.lostFrames ?? 0) * 20;
    const parts = [];
    if (this.underruns > 0) parts.push(`gaps in the sound: ${this.underruns}`);
    if (lostMs > 0) parts.push(`${lostMs} ms of input lost`);
    return parts.join(", ") || "none";
  }
}

/** Shifts a strip left and appends values. @param {Float32Array | Int32Array} strip @param {ArrayLike<number>} more */
function push(strip, more) {
  strip.copyWithin(0, more.length);
  strip.set(more, strip.length - more.length);
}

/**
 * Describes the parts of the latency, in whole milliseconds that sum to the total; the device's latency comes on top.
 * @param {NonNullable<Loop["latency"]>} latency @param {number | null} device seconds; null if unknown
 */
export function sentenceOf({ totalMs, modelMs, computingMs, bufferMs }, device) {
  const [total, model, buffer] = [totalMs, modelMs, bufferMs].map((ms) => Math.round(ms));
  const rest = Math.max(0, Math.round(totalMs - modelMs - bufferMs - computingMs));
  const computing = total - model - buffer - rest;
  return (
    `${model} ms model (algorithmic latency), ${computing} ms network and computing, ${buffer} ms playback buffer, ` +
    `${rest} ms packets and filters. The sound device adds ${device === null ? "some more" : `${Math.round(device * 1000)} ms`}.`
  );
}
