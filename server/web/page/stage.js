/**
 * The Speak tab: one take on a time axis, played as the original or through a codec. Everything that shows, plays,
 * records or damages a take goes through this class.
 */

import { decode, encode } from "./coding.js";
import { element, grouped, tell } from "./dom.js";
import { Figure, peaksOf } from "./figure.js";
import { equalised } from "./loudness.js";
import { Player } from "./player.js";
import { MAX_SECONDS, Recorder } from "./recorder.js";
import { MAX_FILE_SECONDS, readFile } from "./samples.js";
import { INPUT_RATE, OUTPUT_RATE, Take, bytesOf } from "./take.js";

export const TRACKS = ["original", "neucodec", "opus", "codec2"];
/** Lengths of the time axis while recording, in seconds. */
const AXES_S = [3, 6, 10, MAX_SECONDS];

/** @typedef {{tokens: Uint16Array, damage: Uint16Array, lost: Uint8Array}} Damaged */

export class Stage {
  /** @param {import("./device.js").Device} device @param {import("./server.js").Server} server */
  constructor(device, server) {
    /** @type {Take | null} */
    this.take = null;
    this.chosen = "neucodec";
    /** @type {() => void} called when another take is shown */
    this.onTake = () => {};
    /** @type {() => void} called when the take's output is complete */
    this.onOutput = () => {};
    this._server = server;
    /** @type {number[]} peaks of the recording in progress */
    this._heardPeaks = [];
    /** @type {Float32Array | null} output of the damaged tokens that is heard instead of the take's */
    this._damaged = null;
    this._work = new AbortController();
    this._breaking = new AbortController();
    /** @type {AbortSignal | null} of the decoding of the take in progress */
    this._decoding = null;
    /** Counts requests to show something: a take that loads slowly never replaces a newer one. */
    this._turn = 0;
    /** Counts calls of `halt`: a take that was asked for before is not played. */
    this._halts = 0;
    this.player = new Player(device, () => this._played());
    this.recorder = new Recorder(device, server, {
      onChange: () => this._recorded(),
      onTake: (take) => this._said(take),
      onFailure: (error) => {
        if (this.take) this._show(this.take);
        tell("speak", error.message);
      },
      onAllowed: (words) => tell("speak", words),
    });
    this.figure = new Figure("figure", (seconds) => this.seek(seconds));
  }

  /** Shows a take without playing it. @param {Take} take */
  show(take) {
    this._turn += 1;
    this._show(take);
  }

  /** Shows the result of an earlier request, which does not overtake a newer one. @param {Take} take */
  _show(take) {
    this._halt();
    this.take = take;
    this._damaged = null;
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
    this._showSeek();
    this.onTake();
    this.refresh();
    if (take.output !== null) this._compare(take);
  }

  /**
   * Shows a take once it is loaded, unless something else is asked for meanwhile. Rejects if it cannot be loaded.
   * @param {Promise<Take>} loading
   * @param {boolean} plays whether to play it, unless `halt` is called meanwhile
   */
  async showLoaded(loading, plays) {
    const [turn, halts] = [++this._turn, this._halts];
    try {
      const take = await loading;
      if (turn === this._turn) this._show(take);
    } catch (error) {
      if (turn === this._turn) throw error;
    }
    if (plays && turn === this._turn && halts === this._halts) await this.play();
  }

  /** Stops playback, the microphone and all sessions, and cancels a file that is being opened. */
  halt() {
    this._halts += 1;
    this._halt();
  }

  _halt() {
    this._work.abort();
    this._breaking.abort();
    this._work = new AbortController();
    this.recorder.cancel();
    this.player.stop();
  }

  /** Starts a recording; playback is off meanwhile. */
  record() {
    this._turn += 1;
    tell("speak");
    this._halt();
    this.recorder.start();
  }

  /** Plays the take from the current position; decodes its tokens first if they have not been decoded yet. */
  async play() {
    tell("play");
    if (this.take === null) return;
    try {
      if (this.take.output === null && this._damaged === null) {
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

  /** Selects the track to play. @param {string} name of a track */
  choose(name) {
    this.chosen = name;
    this.player.choose(name);
    this.refresh();
  }

  /** Opens a file and plays it; an invalid one changes nothing. @param {File} file */
  async open(file) {
    const state = element("file-state");
    const words = `Opening ${file.name}...`;
    tell("file");
    state.textContent = words;
    const [turn, halts] = [++this._turn, this._halts];
    const overtaken = () => turn !== this._turn || halts !== this._halts;
    try {
      const { tokens, audio, cut } = await readFile(file);
      if (overtaken()) return;
      this._halt();
      const { signal } = this._work;
      const title = cut ? `${file.name} (first ${MAX_FILE_SECONDS} s)` : file.name;
      const { model } = this._server;
      const take = audio
        ? new Take({ title, model, tokens: await encode(this._server, audio, signal), input: audio })
        : new Take({ title, model, tokens: /** @type {Uint16Array} */ (tokens) });
      if (overtaken()) return;
      this._show(take);
      await this.play();
    } catch (error) {
      if (!overtaken()) tell("file", /** @type {Error} */ (error).message);
    } finally {
      if (state.textContent === words) state.textContent = ""; // not that of a newer file
    }
  }

  /**
   * Makes the same take sound as its damaged tokens do; null restores it. Rejects if the server refuses to decode them.
   * @param {Damaged | null} damaged
   */
  async breakTokens(damaged) {
    const take = /** @type {Take} */ (this.take);
    this._breaking.abort();
    this._breaking = new AbortController();
    const { signal } = this._breaking;
    const isKnown = damaged === null && (take.output !== null || this._damaged === null);
    const output = isKnown ? take.output : await decode(this._server, damaged?.tokens ?? take.tokens, signal);
    signal.throwIfAborted();
    if (output === null) return;
    this._damaged = damaged && output;
    if (damaged === null && take.output === null) {
      take.output = output;
      this.onOutput();
    }
    this.figure.show({ output: peaksOf(output, OUTPUT_RATE) });
    this._level();
  }

  /** Updates buttons and labels. */
  refresh() {
    const { phase, isOn } = this.recorder;
    const button = element("speak");
    const end = button.dataset.held === "true" ? "Release to listen" : "Tap to listen";
    const words = { idle: "Hold to speak", opening: "Allow the microphone", recording: end, finishing: "Please wait" };
    element("speak-words").textContent = words[phase];
    button.setAttribute("aria-pressed", String(isOn));
    button.dataset.phase = phase;
    element("play").disabled = this.take === null || phase !== "idle";
    element("play-words").textContent = this.player.playing ? "Pause" : "Play";
    element("play").dataset.playing = String(this.player.playing);
    for (const name of TRACKS) element(name).checked = name === this.chosen;
  }

  /** Plays a new recording at once. @param {Take} take */
  _said(take) {
    this._show(take);
    this.choose("neucodec");
    this.play();
  }

  /** Decodes a take and plays it as it arrives; plays on if it is being decoded already. @param {Take} take */
  async _decode(take) {
    const { signal } = this._work;
    if (signal === this._decoding) return this.player.playSoon();
    this._decoding = signal;
    try {
      if (this.chosen !== "original" || take.input === null) this.choose("neucodec");
      await this.player.grow("neucodec", OUTPUT_RATE);
      if (signal.aborted) return;
      this.player.playSoon();
      const output = await decode(this._server, take.tokens, signal, (audio) => this.player.push(audio));
      if (signal.aborted) return;
      take.output = output;
    } finally {
      if (signal === this._decoding) this._decoding = null;
    }
    if (this._damaged === null) this.figure.show({ output: peaksOf(take.output, OUTPUT_RATE) });
    this._level();
    this.onOutput();
    this._compare(take);
  }

  /** Adds other codecs' versions of a take of the user. @param {Take} take */
  async _compare(take) {
    if (take.input === null || Object.keys(take.others).length > 0) return;
    const others = await this._server.compare(take.input);
    if (Object.keys(take.others).length > 0) return; // another call was faster
    take.others = others;
    if (this.take === take) this._level();
  }

  /** Loads all tracks into the player, equally loud, and shows them in the switch. */
  _level() {
    const { sounds } = /** @type {Take} */ (this.take);
    if (this._damaged) sounds.set("neucodec", { samples: this._damaged, rate: OUTPUT_RATE });
    const names = TRACKS.filter((name) => sounds.has(name));
    const tracks = names.map((name) => /** @type {import("./take.js").Sound} */ (sounds.get(name)));
    equalised(tracks).forEach((level, i) => this.player.put(names[i], tracks[i].samples, tracks[i].rate, level));
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

  /** Peaks of the recording so far; those of earlier frames are cached. @param {Float32Array[]} frames */
  _peaks(frames) {
    if (frames.length < 3) this._heardPeaks = [];
    const peaks = this._heardPeaks;
    for (let i = peaks.length / 4; i < frames.length; i++) peaks.push(...peaksOf(frames[i], INPUT_RATE));
    return Float32Array.from(peaks);
  }

  _played() {
    this.refresh();
    const step = () => {
      this.figure.point(this.player.position);
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

  /** Shows the sizes of the speech and of its tokens. @param {number} frames @param {number} tokens */
  _count(frames, tokens = frames) {
    element("pcm-bytes").textContent = grouped(bytesOf(frames).pcm);
    element("token-bytes").textContent = grouped(bytesOf(tokens).tokens);
    element("pcm-words").textContent = `${(frames / 50).toFixed(1)} s of speech, 16-bit at 16 kHz`;
    element("token-words").textContent = `${grouped(tokens)} tokens of 16 bits each`;
  }
}

/** @param {string} theirs model of the tokens @param {string} ours model of the server */
export const foreign = (theirs, ours) => `These are tokens of ${theirs}. The model of this server, ${ours}, cannot decode them.`;

/** Whether an error only means that the user has moved on. @param {unknown} error */
export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";
