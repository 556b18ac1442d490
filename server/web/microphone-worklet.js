/** The microphone's side of the audio thread: any rate and channel count in, frames of 20 ms at 16 kHz mono out. */

import { Resampler } from "./resampler.js";

const RATE = 16000;
const HOP = 320;

class MicrophoneProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this._resampler = new Resampler(sampleRate, RATE);
    this._frame = new Float32Array(HOP);
    this._filled = 0;
    this._frames = 0;
    this._startedAt = -1;
    this._open = true;
    this.port.onmessage = () => {
      this._open = false;
    };
  }

  /**
   * Posts {samples: Float32Array (320), time}: `time` is the context's clock when the frame's first sample came.
   * Any message to it ends it.
   * @param {Float32Array[][]} inputs
   */
  process(inputs) {
    const channels = inputs[0];
    if (channels.length === 0) return this._open; // the device gives nothing yet
    if (this._startedAt < 0) this._startedAt = currentTime;
    const mono = channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
    for (const sample of this._resampler.feed(mono)) {
      this._frame[this._filled++] = sample;
      if (this._filled < HOP) continue;
      const time = this._startedAt + (this._frames * HOP) / RATE;
      this.port.postMessage({ samples: this._frame, time }, [this._frame.buffer]);
      this._frame = new Float32Array(HOP);
      this._filled = 0;
      this._frames += 1;
    }
    return this._open;
  }
}

registerProcessor("neucodec-microphone", MicrophoneProcessor);
