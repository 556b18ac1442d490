/**
 * A client of a NeuCodec server for any web page: sessions, microphone and speaker. It has no dependencies.
 *
 *     import { connect, Microphone, Speaker } from "./neucodec.js";
 *     const context = new AudioContext();
 *     const speaker = await Speaker.open(context, { live: true });
 *     const onOutput = (audio, position) => speaker.push(audio, position);
 *     const session = await connect({ kind: "roundtrip", live: true, onOutput });
 *     await Microphone.open(context, { live: true, onFrame: ({ samples }) => session.sendNow(samples) });
 */

/** @template {Kind} K @typedef {import("./connection.js").Options<K>} Options */
/** @typedef {import("./connection.js").Resumed} Resumed */
/** @typedef {import("./protocol.js").Kind} Kind */
/** @typedef {import("./protocol.js").Message} Message */
/** @typedef {import("./microphone.js").Frame} Frame */
/** @typedef {import("./microphone.js").MicrophoneOptions} MicrophoneOptions */
/** @typedef {import("./speaker.js").Playback} Playback */
/** @typedef {import("./speaker.js").SpeakerOptions} SpeakerOptions */

export { connect, Connection } from "./connection.js";
export { Microphone } from "./microphone.js";
export { FRAME_MS, ProtocolError } from "./protocol.js";
export { Refused } from "./refused.js";
export { Resampler } from "./resampler.js";
export { SoundError, keepAwake, openContext } from "./sound.js";
export { Speaker } from "./speaker.js";
export { TokenReader, tokensFromText, tokensToText } from "./token-text.js";
