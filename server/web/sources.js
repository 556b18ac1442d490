/** What the page can be given to hear: microphone, recording, tokens, or the original for comparison. */

import { element } from "./panels.js";
import { Microphone, SoundError } from "./neucodec.js";
import { Pacer } from "./pacer.js";

const INPUT_HOP = 320;
const INPUT_RATE = 16000;
/** The page's policy lets no script come from a blob. */
export const WORKLET_URL = "worklet.js";

/**
 * What can be heard: what of it comes into the loop, and how it starts.
 * @typedef {import("./loop.js").Input} Input
 * @typedef {import("./page.js").Demo} Demo
 * @typedef {{name: string, input: Input, start: (demo: Demo) => Promise<{close: () => void}>}} Source
 */

/** @type {Source} */
export const MICROPHONE = {
  name: "microphone",
  input: "audio",
  start: (demo) =>
    Microphone.open(/** @type {AudioContext} */ (demo.context), {
      echoCancellation: !element("headphones").checked,
      workletUrl: WORKLET_URL,
      onFrame: ({ samples, time }) => demo.say(samples, time),
      onEnded: () => {
        demo.end();
        demo.fail(new SoundError("missing", "The microphone has gone away."), null);
      },
    }),
};

/** @param {Float32Array} samples @param {number} index of the frame */
const frameOf = (samples, index) => samples.slice(index * INPUT_HOP, (index + 1) * INPUT_HOP);

/** A recording at 16 kHz. @param {string} name @param {() => Promise<Float32Array>} load @returns {Source} */
export const recording = (name, load) => ({
  name,
  input: "audio",
  start: async (demo) => {
    const samples = await load();
    const frames = Math.floor(samples.length / INPUT_HOP);
    const say = (/** @type {number} */ index, /** @type {number} */ time) => demo.say(frameOf(samples, index), time);
    return new Pacer(/** @type {AudioContext} */ (demo.context), frames, say, () => demo.end());
  },
});

/** Tokens for the decoder alone. @param {string} name @param {Uint16Array} tokens @returns {Source} */
export const spoken = (name, tokens) => ({
  name,
  input: "tokens",
  start: async (demo) =>
    new Pacer(
      /** @type {AudioContext} */ (demo.context),
      tokens.length,
      (index) => demo.loop?.pass(tokens.slice(index, index + 1)),
      () => demo.end(),
    ),
});

/** The input as it was, straight to the speaker. @param {import("./take.js").Take} take @returns {Source} */
export const original = (take) => ({
  name: "original",
  input: "nothing",
  start: async (demo) => {
    const context = /** @type {AudioContext} */ (demo.context);
    const samples = take.inputAudio;
    const buffer = context.createBuffer(1, samples.length, INPUT_RATE);
    buffer.copyToChannel(samples, 0);
    const node = new AudioBufferSourceNode(context, { buffer });
    node.connect(/** @type {import("./speaker.js").Speaker} */ (demo.speaker).output);
    node.start();
    const show = (/** @type {number} */ index) => demo.show(frameOf(samples, index));
    const pacer = new Pacer(context, samples.length / INPUT_HOP, show, () => demo.end());
    return {
      close: () => {
        pacer.close();
        node.stop();
      },
    };
  },
});

/** @param {ArrayBuffer} bytes of an audio file @returns {Promise<Float32Array>} mono at 16 kHz */
export async function decodeAudio(bytes) {
  const buffer = await new OfflineAudioContext(1, 1, INPUT_RATE).decodeAudioData(bytes);
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i));
  return channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

/** A sentence that comes with the page. */
export const SAMPLE = recording("sample", async () => decodeAudio(await (await fetch("sample.flac")).arrayBuffer()));
