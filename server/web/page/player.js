/**
 * Plays the tracks of one recording in sync: one is audible, and the choice may change at any time without a gap.
 *
 * A track is complete (`put`), or grows while it is decoded (`grow`) and is played as it arrives. Resampler converts
 * all samples to the device's rate, since browsers interpolate buffers of other rates linearly.
 */

import { Resampler } from "../resampler.js";

const FADE_S = 0.006;
const AHEAD_S = 0.02;
const HOLDER = "player";
/** Length of a growing track at which its playback starts. */
const HEAD_START_S = 0.2;
const CLOCK_RATE = 8000;

/**
 * @typedef {{at: number, buffer: AudioBuffer}} Part
 * @typedef {{samples: Float32Array, rate: number, level: number, buffer: AudioBuffer | null}} Track
 * @typedef {{name: string, parts: Part[], filled: number, resampler: Resampler, wanted: boolean}} Growth
 * @typedef {{at: number, time: number, fade: GainNode, gains: Map<string, GainNode>,
 *   sources: Map<string, AudioBufferSourceNode[]>}} Pass playback from `at` in the recording, since device time `time`
 */

export class Player {
  /**
   * @param {import("./device.js").Device} device
   * @param {() => void} onChange called when playback starts or stops
   */
  constructor(device, onChange) {
    this.seconds = 0;
    this.chosen = "";
    this._device = device;
    this._onChange = onChange;
    this._loop = false;
    this._at = 0;
    this._turn = 0;
    /** Number of calls of `play` that wait until the device runs. */
    this._waiting = 0;
    /** @type {Map<string, Track>} */
    this._tracks = new Map();
    /** @type {Growth | null} */
    this._growth = null;
    /** @type {Pass | null} what is playing */
    this._pass = null;
  }

  get playing() {
    return this._pass !== null;
  }

  /** Position of the sound that is heard now, in seconds from the start. */
  get position() {
    if (this._pass === null) return this._at;
    const now = Math.max(this._pass.at, this._now() - (this._device.latency ?? 0));
    return this._loop ? now % this.seconds : Math.min(now, this.seconds);
  }

  /** Prepares for another recording: stops playback and drops all tracks. @param {number} seconds */
  load(seconds) {
    this.stop();
    this._tracks = new Map();
    this._growth = null;
    this.seconds = seconds;
    this._at = 0;
  }

  /**
   * Adds a complete track, or replaces the one of that name, also during playback.
   * @param {string} name @param {Float32Array} samples @param {number} rate @param {number} level factor
   */
  put(name, samples, rate, level) {
    const old = this._tracks.get(name);
    if (old?.samples === samples) {
      old.level = level;
      this._balance();
      return;
    }
    this._tracks.set(name, { samples, rate, level, buffer: null });
    const wanted = this._growth?.name === name && this._growth.wanted;
    if (this._growth?.name === name) this._growth = null;
    if (wanted) this.play(0);
    else if (this.playing) this._join(name);
  }

  /** Starts a growing track, unless another recording is loaded meanwhile. @param {string} name @param {number} rate */
  async grow(name, rate) {
    const tracks = this._tracks;
    const context = await this._device.hold(HOLDER);
    this._letSleep();
    if (tracks !== this._tracks) return;
    this._growth = { name, parts: [], filled: 0, resampler: new Resampler(rate, context.sampleRate), wanted: false };
    const empty = new Float32Array(0);
    this._tracks.set(name, { samples: empty, rate, level: 1, buffer: null });
  }

  /** Appends samples to the growing track. @param {Float32Array} samples */
  push(samples) {
    const growth = this._growth;
    const context = /** @type {AudioContext} */ (this._device.context);
    if (growth === null) return;
    const output = growth.resampler.feed(samples);
    if (output.length === 0) return;
    const buffer = context.createBuffer(1, output.length, context.sampleRate);
    buffer.copyToChannel(output, 0);
    const part = { at: growth.filled / context.sampleRate, buffer };
    growth.parts.push(part);
    growth.filled += output.length;
    if (growth.wanted && this._hasHeadStart) {
      growth.wanted = false;
      this.play(0);
    } else if (this._pass !== null) {
      if (this._timeOf(part.at) < context.currentTime) this._begin(context, part.at);
      else this._schedule(growth.name, part.buffer, part.at, this._pass.at);
    }
  }

  /** Plays the growing track once HEAD_START_S of it has arrived. */
  async playSoon() {
    if (this._growth === null || this.playing) return;
    if (this._hasHeadStart) await this.play();
    else this._growth.wanted = true;
  }

  /** @param {number} [at] seconds from the start; by default the position when the device runs */
  async play(at) {
    const turn = ++this._turn;
    this._waiting += 1;
    let context;
    try {
      context = await this._device.hold(HOLDER);
    } finally {
      this._waiting -= 1;
    }
    if (turn !== this._turn) return this._letSleep();
    this._buffer(this.chosen);
    this._begin(context, at ?? (this._at >= this.seconds - 0.01 ? 0 : this._at));
    for (const name of this._tracks.keys()) {
      await new Promise((resolve) => setTimeout(resolve)); // yields, since converting a track takes a while
      if (turn !== this._turn || this._pass === null) return;
      if (name !== this.chosen) this._join(name);
    }
  }

  /** Stops playback; the position is kept. */
  stop() {
    this._turn += 1;
    if (this._growth !== null) this._growth.wanted = false;
    if (this._pass === null) return;
    this._at = this.position;
    this._end();
    this._letSleep();
    this._onChange();
  }

  /** @param {number} at seconds from the start */
  seek(at) {
    this._at = Math.max(0, Math.min(at, this.seconds));
    if (this._pass !== null) this._begin(/** @type {AudioContext} */ (this._device.context), this._at);
  }

  /** Selects the audible track. @param {string} name */
  choose(name) {
    this.chosen = name;
    if (this.playing && !this._pass?.sources.has(name)) this._join(name);
    this._balance();
  }

  /** The audible track at the device's rate and its level; null if it is not complete. */
  get heard() {
    const buffer = this._device.context && this._buffer(this.chosen);
    return buffer && { buffer, level: this._tracks.get(this.chosen)?.level ?? 1 };
  }

  get loop() {
    return this._loop;
  }

  set loop(loop) {
    const at = this._pass === null ? 0 : this._loop ? this._now() % this.seconds : this._now();
    this._loop = loop;
    if (this._pass === null) return;
    Object.assign(this._pass, { at, time: /** @type {AudioContext} */ (this._device.context).currentTime });
    for (const sources of this._pass.sources.values()) for (const source of sources) source.loop = loop;
  }

  /** The position in the recording at the device's present time, in seconds. */
  _now() {
    const { at, time } = /** @type {Pass} */ (this._pass);
    return at + Math.max(0, /** @type {AudioContext} */ (this._device.context).currentTime - time);
  }

  /** @param {number} at */
  _timeOf(at) {
    const pass = /** @type {Pass} */ (this._pass);
    return pass.time + at - pass.at;
  }

  /** Starts a pass; one under way fades out. @param {AudioContext} context @param {number} at */
  _begin(context, at) {
    const wasPlaying = this.playing;
    if (wasPlaying) this._end();
    const time = context.currentTime + AHEAD_S;
    const fade = new GainNode(context, { gain: 0 });
    fade.gain.setValueAtTime(0, time);
    fade.gain.linearRampToValueAtTime(1, time + FADE_S);
    fade.connect(context.destination);
    this._pass = { at, time, fade, gains: new Map(), sources: new Map() };
    const clock = context.createBuffer(1, Math.max(1, Math.round(this.seconds * CLOCK_RATE)), CLOCK_RATE);
    const pass = this._pass;
    const [source] = this._schedule("", clock, 0, at);
    source.onended = () => {
      if (this._pass !== pass) return;
      this._end();
      this._at = 0;
      this._letSleep();
      this._onChange();
    };
    for (const [name, track] of this._tracks) {
      if (track.buffer !== null) this._schedule(name, track.buffer, 0, at);
    }
    if (this._growth !== null) {
      for (const part of this._growth.parts) this._schedule(this._growth.name, part.buffer, part.at, at);
    }
    this._balance(true);
    if (!wasPlaying) this._onChange();
  }

  /** Ends the pass with a fade-out. */
  _end() {
    const { fade, sources } = /** @type {Pass} */ (this._pass);
    const { currentTime } = /** @type {AudioContext} */ (this._device.context);
    fade.gain.cancelScheduledValues(currentTime);
    fade.gain.setTargetAtTime(0, currentTime, FADE_S / 3);
    for (const source of [...sources.values()].flat()) {
      source.onended = null;
      source.stop(currentTime + 3 * FADE_S);
    }
    this._pass = null;
  }

  /** Adds a track to the current pass, or replaces its previous version. @param {string} name */
  _join(name) {
    const pass = /** @type {Pass} */ (this._pass);
    const buffer = this._buffer(name);
    if (buffer === null) return;
    const context = /** @type {AudioContext} */ (this._device.context);
    const time = Math.max(pass.time, context.currentTime + AHEAD_S);
    for (const source of pass.sources.get(name) ?? []) source.stop(time);
    pass.sources.delete(name);
    const at = pass.at + time - pass.time;
    this._schedule(name, buffer, 0, this._loop ? at % this.seconds : at, time);
    this._balance();
  }

  /**
   * Schedules a buffer that belongs at `start` in the recording, in playback from `from` on.
   * @param {string} name @param {AudioBuffer} buffer @param {number} start @param {number} from @param {number} [time] of `from`
   */
  _schedule(name, buffer, start, from, time) {
    const pass = /** @type {Pass} */ (this._pass);
    const sources = pass.sources.get(name) ?? [];
    pass.sources.set(name, sources);
    if (start + buffer.duration <= from) return sources;
    const isWhole = buffer.duration > this.seconds - 0.001;
    const source = new AudioBufferSourceNode(pass.fade.context, { buffer, loop: this._loop && isWhole });
    let gain = pass.gains.get(name);
    if (gain === undefined) {
      gain = new GainNode(pass.fade.context, { gain: 0 });
      gain.connect(pass.fade);
      pass.gains.set(name, gain);
    }
    source.connect(gain);
    source.start((time ?? pass.time) + Math.max(0, start - from), Math.max(0, from - start));
    sources.push(source);
    return sources;
  }

  /** Fades to the chosen track at its level. @param {boolean} [atOnce] without a fade */
  _balance(atOnce = false) {
    if (this._pass === null) return;
    const { currentTime } = /** @type {AudioContext} */ (this._device.context);
    for (const [name, gain] of this._pass.gains) {
      const wanted = name === this.chosen ? (this._tracks.get(name)?.level ?? 0) : 0;
      if (atOnce) gain.gain.value = wanted;
      else gain.gain.setTargetAtTime(wanted, currentTime, FADE_S / 3);
    }
  }

  /** Returns a complete track at the device's rate. @param {string} name @returns {AudioBuffer | null} */
  _buffer(name) {
    const track = this._tracks.get(name);
    const context = /** @type {AudioContext} */ (this._device.context);
    if (track === undefined || track.samples.length === 0) return null;
    if (track.buffer === null) {
      const size = Math.max(1, Math.round(this.seconds * context.sampleRate));
      track.buffer = context.createBuffer(1, size, context.sampleRate);
      const resampler = new Resampler(track.rate, context.sampleRate);
      const head = resampler.feed(track.samples);
      track.buffer.copyToChannel(head.subarray(0, size), 0);
      track.buffer.copyToChannel(resampler.flush().subarray(0, Math.max(0, size - head.length)), 0, head.length);
    }
    return track.buffer;
  }

  /** Whether enough of the growing track has arrived to play it. */
  get _hasHeadStart() {
    const { sampleRate } = /** @type {AudioContext} */ (this._device.context);
    return this._growth !== null && this._growth.filled >= HEAD_START_S * sampleRate;
  }

  _letSleep() {
    if (this._pass === null && this._waiting === 0) this._device.release(HOLDER);
  }
}
