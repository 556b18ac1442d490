/**
 * The speaker in the audio thread: audio passes through the jitter buffer and the resampler to the device.
 *
 * Messages in: {samples, position}, {finish: true}, {clear: true} or {close: true}. Messages out: a Playback for every
 * 20 ms of sound, whose `position` of the stream is played at context time `time`; and {ended: true} once all audio
 * pushed before a `finish` or `clear` has been played or dropped.
 */

import { JitterBuffer } from "./jitter.js";
import { Resampler } from "./resampler.js";

const HEARD_RATE = 24000;

class SpeakerProcessor extends AudioWorkletProcessor {
  /** @param {{processorOptions: {live: boolean, rate: number}}} options */
  constructor({ processorOptions: { live, rate } }) {
    super();
    this._jitter = new JitterBuffer(rate, live);
    this._resampler = new Resampler(rate, sampleRate);
    this._toHeard = new Resampler(rate, HEARD_RATE);
    this._step = new Float32Array(rate / 500);
    this._ready = new Float32Array(0);
    this._heard = new Float32Array(HEARD_RATE / 50);
    this._filled = 0;
    this._pushed = 0;
    /** @type {number[]} samples pushed before each end that has not been reported */
    this._ends = [];
    this._open = true;
    this.port.onmessage = ({ data }) => this._obey(data);
  }

  /** @param {{samples?: Float32Array, position?: number, finish?: boolean, clear?: boolean, close?: boolean}} order */
  _obey({ samples, position = 0, finish, clear, close }) {
    if (samples) {
      this._pushed += samples.length;
      this._jitter.push(samples, position, currentTime);
    }
    if (finish) this._jitter.finish();
    if (clear) this._jitter.clear();
    if (close) this._open = false;
    if (finish || clear) this._ends.push(this._pushed);
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, outputs) {
    const channels = outputs[0];
    const count = channels[0].length;
    while (this._ready.length < count) {
      this._jitter.pull(this._step, currentTime);
      const more = this._resampler.feed(this._step);
      const ready = new Float32Array(this._ready.length + more.length);
      ready.set(this._ready);
      ready.set(more, this._ready.length);
      this._ready = ready;
      this._record();
    }
    // A copy, not a view: a view gives its array a buffer object, which Firefox frees only in a full collection.
    for (const channel of channels) channel.set(this._ready.slice(0, count));
    this._ready = this._ready.slice(count);
    while (this._ends[0] <= this._pushed - this._jitter.buffered) {
      this._ends.shift();
      this.port.postMessage({ ended: true });
    }
    return this._open;
  }

  _record() {
    for (const sample of this._toHeard.feed(this._step)) {
      this._heard[this._filled++] = sample;
      if (this._filled === this._heard.length) this._tell();
    }
  }

  _tell() {
    const { rate, position, buffered, slackMs, marginMs, underruns, removed, skipped, playing } = this._jitter;
    const heldBack = this._resampler.delay + (this._ready.length * rate) / sampleRate; // pulled, not yet played
    this.port.postMessage(
      {
        heard: this._heard,
        time: currentTime,
        position: position - heldBack,
        bufferedMs: (buffered * 1000) / rate,
        slackMs,
        marginMs,
        underruns,
        removed,
        skipped,
        playing,
      },
      [this._heard.buffer],
    );
    this._heard = new Float32Array(HEARD_RATE / 50);
    this._filled = 0;
  }
}

registerProcessor("neucodec-speaker", SpeakerProcessor);
