/**
 * The first tab: one take on one axis of time, heard as it was or as codecs make it. Whatever shows, plays, records or
 * breaks a take goes through here.
 */

import { Refused } from "../neucodec.js";
import { decode, encode } from "./coding.js";
import { element, grouped, tell } from "./dom.js";
import { Figure, peaksOf } from "./figure.js";
import { equalised } from "./loudness.js";
import { Player } from "./player.js";
import { MAX_SECONDS, Recorder } from "./recorder.js";
import { MAX_FILE_SECONDS, readFile } from "./samples.js";
import { INPUT_RATE, OUTPUT_RATE, Take, bytesOf } from "./take.js";

export const TRACKS = ["original", "neucodec", "opus", "codec2"];
/** Time axes while somebody speaks, in seconds. */
const AXES_S = [3, 6, 10, MAX_SECONDS];

/** @typedef {{tokens: Uint16Array, damage: Uint16Array, lost: Uint8Array}} Damaged */

export class Stage {
  /** @param {import("./device.js").Device} device @param {import("./server.js").Server} server */
  constructor(device, server) {
    /** @type {Take | null} */
    this.take = null;
    this.chosen = "neucodec";
    /** @type {() => void} another take is shown */
    this.onTake = () => {};
    this._server = server;
    /** @type {number[]} of what is being said */
    this._heardPeaks = [];
    this._work = new AbortController();
    this.player = new Player(device, () => this._played());
    this.recorder = new Recorder(device, server, {
      onChange: () => this._recorded(),
      onTake: (take) => this._said(take),
      onFailure: (error) => {
        if (this.take) this.show(this.take);
        tell("speak", error.message);
      },
    });
    this.figure = new Figure("figure", (seconds) => this.seek(seconds));
  }

  /** Shows a take; nothing plays. @param {Take} take */
  show(take) {
    this.halt();
    this.take = take;
    this.player.load(take.seconds);
    this.figure.show({
      seconds: take.seconds,
      input: take.input && peaksOf(take.input, INPUT_RATE),
      tokens: take.tokens,
      damage: null,
      lost: null,
      output: take.output && peaksOf(take.output, OUTPUT_RATE),
    });
    this._level();
    this._count(take.tokens.length);
    element("take-title").textContent = take.title;
    element("take-credit").textContent = take.credit;
    this.figure.point(0);
    this._showSwitch();
    this._showSeek();
    this.onTake();
    this.refresh();
  }

  /** Stops what is under way: sound, microphone, and sessions. */
  halt() {
    this._work.abort();
    this._work = new AbortController();
    this.recorder.cancel();
    this.player.stop();
  }

  /** The visitor begins to speak: sound is off meanwhile. */
  record() {
    tell("speak");
    this._work.abort();
    this._work = new AbortController();
    this.player.stop();
    this.recorder.start();
  }

  /** Plays the take from where it is; tokens that nobody has decoded yet are decoded meanwhile. */
  async play() {
    tell("play");
    if (this.take === null) return;
    try {
      if (this.take.output === null) {
        const { model } = this._server;
        if (model && this.take.model && this.take.model !== model) throw new Error(foreign(this.take.model, model));
        await this._decode(this.take);
      } else {
        await this.player.play();
      }
    } catch (error) {
      if (!isAbort(error)) tell("play", /** @type {Error} */ (error).message);
    }
  }

  /** @param {number} seconds */
  seek(seconds) {
    if (this.recorder.phase !== "idle") return;
    this.player.seek(seconds);
    this.figure.point(this.player.position);
    this._showSeek();
  }

  /** What is heard. @param {string} name of a track */
  choose(name) {
    this.chosen = name;
    this.player.choose(name);
    this.refresh();
  }

  /** A file of the visitor's; a wrong one changes nothing. @param {File} file */
  async open(file) {
    tell("file");
    element("file-state").textContent = `opening ${file.name}`;
    try {
      const { tokens, audio, cut } = await readFile(file);
      this.halt();
      const { signal } = this._work;
      const title = cut ? `${file.name}, its first ${MAX_FILE_SECONDS} s` : file.name;
      const { model } = this._server;
      const take = audio
        ? new Take({ title, model, tokens: await encode(this._server, audio, signal), input: audio })
        : new Take({ title, model, tokens: /** @type {Uint16Array} */ (tokens) });
      signal.throwIfAborted();
      this.show(take);
      await this.play();
    } catch (error) {
      if (!isAbort(error)) tell("file", /** @type {Error} */ (error).message);
    } finally {
      element("file-state").textContent = "";
    }
  }

  /**
   * The same take with its tokens as they arrive somewhere; null: as they are.
   * @param {Damaged | null} damaged
   */
  async breakTokens(damaged) {
    const take = /** @type {Take} */ (this.take);
    this._work.abort();
    this._work = new AbortController();
    const { signal } = this._work;
    const output = damaged ? await decode(this._server, damaged.tokens, signal) : take.output;
    signal.throwIfAborted();
    if (output === null) return;
    this.figure.show({ output: peaksOf(output, OUTPUT_RATE) });
    this._level(output);
  }

  /** Buttons and words say what can be done now. */
  refresh() {
    const { phase, isOn } = this.recorder;
    const button = element("speak");
    const end = button.dataset.held === "true" ? "Let go to hear it" : "Tap to hear it";
    const words = { idle: "Hold to speak", opening: "Allow the microphone", recording: end, finishing: "One moment" };
    element("speak-words").textContent = words[phase];
    button.setAttribute("aria-pressed", String(isOn));
    button.dataset.phase = phase;
    element("play").disabled = this.take === null || phase !== "idle";
    element("play-words").textContent = this.player.playing ? "Pause" : "Play";
    element("play").dataset.playing = String(this.player.playing);
    for (const input of document.querySelectorAll("#switch input")) {
      /** @type {HTMLInputElement} */ (input).checked = /** @type {HTMLInputElement} */ (input).value === this.chosen;
    }
  }

  /** A take of the microphone: it is heard at once. @param {Take} take */
  _said(take) {
    this.show(take);
    this.choose("neucodec");
    this.play();
  }

  /** Decodes what nobody has decoded, and plays it as it comes. @param {Take} take */
  async _decode(take) {
    const { signal } = this._work;
    if (this.chosen !== "original" || take.input === null) this.choose("neucodec");
    await this.player.grow("neucodec", OUTPUT_RATE);
    if (signal.aborted) return;
    this.player.playSoon();
    const output = await decode(this._server, take.tokens, signal, (audio) => this.player.push(audio));
    if (signal.aborted) return;
    take.output = output;
    this.figure.show({ output: peaksOf(output, OUTPUT_RATE) });
    this._level();
    this.onTake();
  }

  /** Gives the player every track, all equally loud. @param {Float32Array | null} [output] in place of the take's */
  _level(output) {
    const take = /** @type {Take} */ (this.take);
    const sounds = take.sounds;
    if (output) sounds.set("neucodec", { samples: output, rate: OUTPUT_RATE });
    const names = TRACKS.filter((name) => sounds.has(name));
    const tracks = names.map((name) => /** @type {import("./take.js").Sound} */ (sounds.get(name)));
    equalised(tracks).forEach((level, i) => this.player.put(names[i], tracks[i].samples, tracks[i].rate, level));
    this._showSwitch();
  }

  /** Which tracks the switch offers. */
  _showSwitch() {
    const take = /** @type {Take} */ (this.take);
    const { sounds } = take;
    for (const name of TRACKS) element(`${name}-choice`).hidden = name !== "neucodec" && !sounds.has(name);
    if (this.chosen !== "neucodec" && !sounds.has(this.chosen)) this.chosen = "neucodec";
    this.player.choose(this.chosen);
  }

  _recorded() {
    const { phase, frames, tokens } = this.recorder;
    if (phase === "recording" || phase === "finishing") {
      const seconds = frames.length / 50;
      if (frames.length % 2 === 0 || phase === "finishing") {
        const input = this._peaks(frames);
        const axis = AXES_S.find((each) => each >= seconds) ?? MAX_SECONDS;
        this.figure.show({ seconds: axis, input, tokens, damage: null, lost: null, output: null });
        this.figure.point(seconds);
      }
      element("take-title").textContent = "You";
      element("take-credit").textContent = "";
      this._count(frames.length, tokens.length);
    }
    this.refresh();
  }

  /** Of what was said so far; those of earlier frames are kept. @param {Float32Array[]} frames */
  _peaks(frames) {
    if (frames.length < 3) this._heardPeaks = [];
    const peaks = this._heardPeaks;
    for (let i = peaks.length / 4; i < frames.length; i++) peaks.push(...peaksOf(frames[i], INPUT_RATE));
    return Float32Array.from(peaks);
  }

  _played() {
    this.refresh();
    const step = () => {
      const { position } = this.player;
      this.figure.point(position);
      this._showSeek();
      if (this.player.playing) requestAnimationFrame(step);
    };
    step();
  }

  _showSeek() {
    const seek = element("seek");
    const { position, seconds } = this.player;
    seek.max = seconds;
    seek.value = position;
    seek.setAttribute("aria-valuetext", `${position.toFixed(1)} of ${seconds.toFixed(1)} seconds`);
    element("time").textContent = `${position.toFixed(1)} / ${seconds.toFixed(1)} s`;
  }

  /** The bytes of so many frames as samples, and so many tokens. @param {number} frames @param {number} tokens */
  _count(frames, tokens = frames) {
    element("pcm-bytes").textContent = grouped(bytesOf(frames).pcm);
    element("token-bytes").textContent = grouped(bytesOf(tokens).tokens);
    element("pcm-words").textContent = `${(frames / 50).toFixed(1)} s of speech, 16 bits at 16 kHz`;
    element("token-words").textContent = `${grouped(tokens)} tokens of 16 bits`;
  }
}

/** @param {string} theirs @param {string} ours models */
export const foreign = (theirs, ours) => `These are tokens of ${theirs}; this server speaks ${ours}, to which they are noise.`;

/** @param {unknown} error whether it says that the visitor went on to something else */
export const isAbort = (error) =>
  (error instanceof DOMException && error.name === "AbortError") || (error instanceof Refused && error.code === "closed");
