/** The figures on the page: latency and its parts, rates, counts, and the server's profiles. */

import { algorithmicMs } from "./latency.js";
import { FRAME_MS } from "./protocol.js";
import { TOKEN_BITS } from "./tokens.js";

const PCM_BITS = 16 * 16000;
const WINDOW_S = 2;
const LONGEST_SHOWN_MS = 800;

/** @param {string} id @returns {any} */
export const element = (id) => document.getElementById(id);

/** Tokens a second, over the last two seconds. */
export class TokenRate {
  constructor() {
    /** @type {{count: number, time: number}[]} */
    this._arrivals = [];
  }

  /** @param {number} count @param {number} time seconds */
  add(count, time) {
    this._arrivals.push({ count, time });
  }

  /** @param {number} time seconds */
  at(time) {
    while (this._arrivals.length && this._arrivals[0].time <= time - WINDOW_S) this._arrivals.shift();
    if (this._arrivals.length < 2) return 0;
    // the first burst began before its arrival, so it only marks the time from which the others are counted
    const [first, ...others] = this._arrivals;
    const seconds = this._arrivals[this._arrivals.length - 1].time - first.time;
    return seconds > 0 ? others.reduce((sum, { count }) => sum + count, 0) / seconds : 0;
  }
}

/** @param {number} tokensPerSecond */
export function showRate(tokensPerSecond) {
  const bits = tokensPerSecond * TOKEN_BITS;
  element("tokens-a-second").textContent = Math.round(tokensPerSecond);
  element("token-rate").textContent = ((bits || 800) / 1000).toFixed(1);
  element("ratio").textContent = `1 : ${Math.round(PCM_BITS / (bits || 800))}`;
}

/** @param {import("./loop.js").Loop["latency"]} latency @param {number} deviceMs */
export function showLatency(latency, deviceMs) {
  element("device").textContent = `${Math.round(deviceMs)} ms`;
  if (latency === null) return;
  element("total").textContent = Math.round(latency.totalMs);
  for (const [part, ms] of Object.entries(latency)) {
    const bar = element("parts").querySelector(`[data-part=${part}]`);
    const figure = document.querySelector(`.legend [data-part=${part}] dd`);
    if (bar) bar.style.width = `${(Math.max(0, ms) / LONGEST_SHOWN_MS) * 100}%`;
    if (figure) figure.textContent = `${Math.round(Math.max(0, ms))} ms`;
  }
}

/** @param {import("./speaker.js").Playback} playback @param {number} lostFrames */
export function showPlayback({ bufferedMs, underruns, removed }, lostFrames) {
  element("buffered").textContent = `${Math.round(bufferedMs)} ms`;
  element("underruns").textContent = underruns;
  element("removed").textContent = `${Math.round(removed / 24)} ms`;
  element("lost-input").textContent = `${lostFrames * 20} ms`;
}

/** @param {import("./take.js").Take} take */
export function showTake(take) {
  const tokens = take.tokens.count;
  element("take-seconds").textContent = Math.max(tokens / 50, take.input.count / 16000).toFixed(1);
  element("take-bytes").textContent = (tokens * 2).toLocaleString("en");
}

/**
 * The profiles as a group of radio buttons, each with a bar as long as its latency.
 * @param {Record<string, import("./latency.js").Profile>} profiles
 * @param {string} chosen
 * @param {(name: string) => void} onChoice
 */
export function showProfiles(profiles, chosen, onChoice) {
  const byLatency = Object.entries(profiles).sort(([, a], [, b]) => algorithmicMs(a) - algorithmicMs(b));
  element("profiles").replaceChildren(
    ...byLatency.map(([name, profile]) => {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "profile", value: name });
      radio.checked = name === chosen;
      radio.onchange = () => onChoice(name);
      const bar = document.createElement("i");
      bar.style.width = `${(algorithmicMs(profile) / LONGEST_SHOWN_MS) * 100}%`;
      const cost = document.createElement("b");
      cost.textContent = `${algorithmicMs(profile)} ms`;
      const chunk = document.createElement("small");
      chunk.textContent = `${profile.chunk_frames * FRAME_MS} + ${profile.lookahead_frames * FRAME_MS}`;
      label.append(radio, name, chunk, cost, bar);
      return label;
    }),
  );
}

/** @param {string} state "wait", "ready", "live" or "lost" @param {string} words */
export function showStatus(state, words) {
  const status = element("status");
  status.dataset.state = state;
  status.textContent = words;
}

/** What the visitor must know, or nothing. @param {string} [words] */
export function showNotice(words = "") {
  element("notice").textContent = words;
  element("notice").hidden = words === "";
}
