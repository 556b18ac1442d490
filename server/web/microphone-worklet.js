/** The microphone in the audio thread: converts any rate and channel count to 20 ms frames of 16 kHz mono. */

import { Resampler } from "./resampler.js";

const MICROPHONE_RATE = 16000;
const FRAME_SAMPLES = 320;

class MicrophoneProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this._resampler = new Resampler(sampleRate, MICROPHONE_RATE);
    this._frame = new Float32Array(FRAME_SAMPLES);
    this._filled = 0;
    /** @type {number | null} context time of the first sample of the next frame */
    this._time = null;
    this._open = true;
    this.port.onmessage = () => {
      this._open = false;
    };
  }

  /**
   * Posts {samples: Float32Array (320), time}, where `time` is the context time of the frame's first sample. Any
   * message to the processor stops it.
   * @param {Float32Array[][]} inputs
   */
  process(inputs) {
    const channels = inputs[0];
    if (channels.length === 0) {
      this._time = null; // the device delivers nothing, so the time of the next sample is unknown
      return this._open;
    }
    this._time ??= currentTime - this._filled / MICROPHONE_RATE;
    const mono = channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
    for (const sample of this._resampler.feed(mono)) {
      this._frame[this._filled++] = sample;
      if (this._filled < FRAME_SAMPLES) continue;
      this.port.postMessage({ samples: this._frame, time: this._time }, [this._frame.buffer]);
      this._frame = new Float32Array(FRAME_SAMPLES);
      this._filled = 0;
      this._time += FRAME_SAMPLES / MICROPHONE_RATE;
    }
    return this._open;
  }
}

registerProcessor("neucodec-microphone", MicrophoneProcessor);
