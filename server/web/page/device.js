/** The page's only AudioContext: it runs while a holder needs it, and is suspended otherwise. */

import { SoundError, keepAwake, openContext } from "../neucodec.js";

const START_DEADLINE_MS = 3000;
export const NO_WEB_AUDIO = "This browser does not support Web Audio, so the page can neither play nor record.";
const NOT_STARTED = "The browser does not allow the page to play sound yet. Please click once more.";
/** Firefox can block the page forever in `outputLatency` when its device starts or stops. */
const IS_GECKO = "mozInnerScreenX" in globalThis;
/** The page's content security policy forbids blob: scripts. */
export const WORKLET_URL = new URL("../worklet.js", import.meta.url);

export class Device {
  /** @param {(interrupted: boolean) => void} onInterrupted sound is interrupted (e.g. by a phone call), or is back */
  constructor(onInterrupted) {
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {Map<string, () => void>} */
    this._holders = new Map();
    this._onInterrupted = onInterrupted;
  }

  /** Seconds from the context to the ear; null if unknown. */
  get latency() {
    const { context } = this;
    if (context === null || IS_GECKO) return null;
    return (context.baseLatency || 0) + (context.outputLatency || 0);
  }

  /** Returns the context once it is running. Rejects with SoundError. @param {string} holder */
  async hold(holder) {
    if (globalThis.AudioContext === undefined) throw new SoundError("unsupported", NO_WEB_AUDIO);
    // An insecure page has no worklets, but it can play.
    this.context ??= isSecureContext ? openContext({ onInterrupted: this._onInterrupted }) : new AudioContext();
    if (!this._holders.has(holder)) this._holders.set(holder, keepAwake(this.context));
    const late = new Promise((_, reject) => {
      setTimeout(() => reject(new SoundError("failed", NOT_STARTED)), START_DEADLINE_MS);
    });
    try {
      await Promise.race([this.context.resume(), late]);
    } catch (error) {
      this.release(holder);
      throw error;
    }
    return this.context;
  }

  /** @param {string} holder */
  release(holder) {
    this._holders.get(holder)?.();
    this._holders.delete(holder);
  }
}
