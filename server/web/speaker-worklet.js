/**
 * The speaker's side of the audio thread: 24 kHz audio goes through the jitter buffer and the resampler to the device.
 *
 * In: {samples, position}, {finish: true}, {clear: true} or {close: true}. Out, every 20 ms of sound: {heard:
 * Float32Array (480), time, position, bufferedMs, slackMs, marginMs, underruns, removed, playing}; `position` of the
 * stream leaves for the device at `time` of the context's clock.
 */

import { JitterBuffer } from "./jitter.js";
import { Resampler } from "./resampler.js";

const RATE = 24000;
const HOP = 480;
const STEP = 48;

class SpeakerProcessor extends AudioWorkletProcessor {
  /** @param {{processorOptions: {live: boolean}}} options */
  constructor({ processorOptions }) {
    super();
    this._jitter = new JitterBuffer(RATE, processorOptions.live);
    this._resampler = new Resampler(RATE, sampleRate);
    this._ready = new Float32Array(0);
    this._heard = new Float32Array(HOP);
    this._filled = 0;
    this._open = true;
    this.port.onmessage = ({ data }) => this._obey(data);
  }

  /** @param {{samples?: Float32Array, position?: number, finish?: boolean, clear?: boolean, close?: boolean}} order */
  _obey({ samples, position = 0, finish, clear, close }) {
    if (samples) this._jitter.push(samples, position, currentTime);
    if (finish) this._jitter.finish();
    if (clear) this._jitter.clear();
    if (close) this._open = false;
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, outputs) {
    const channels = outputs[0];
    const count = channels[0].length;
    const step = new Float32Array(STEP);
    while (this._ready.length < count) {
      this._jitter.pull(step, currentTime);
      const more = this._resampler.feed(step);
      const ready = new Float32Array(this._ready.length + more.length);
      ready.set(this._ready);
      ready.set(more, this._ready.length);
      this._ready = ready;
      this._record(step);
    }
    for (const channel of channels) channel.set(this._ready.subarray(0, count));
    this._ready = this._ready.slice(count);
    return this._open;
  }

  /** @param {Float32Array} step */
  _record(step) {
    this._heard.set(step, this._filled);
    this._filled += STEP;
    if (this._filled < HOP) return;
    const { position, buffered, slackMs, marginMs, underruns, removed, playing } = this._jitter;
    const heldBack = this._resampler.delay + (this._ready.length * RATE) / sampleRate; // not yet out of the resampler
    this.port.postMessage(
      {
        heard: this._heard,
        time: currentTime,
        position: position - heldBack,
        bufferedMs: (buffered * 1000) / RATE,
        slackMs,
        marginMs,
        underruns,
        removed,
        playing,
      },
      [this._heard.buffer],
    );
    this._heard = new Float32Array(HOP);
    this._filled = 0;
  }
}

registerProcessor("neucodec-speaker", SpeakerProcessor);
