/** The page's one AudioContext: it runs while somebody holds it, and sleeps otherwise. */

import { SoundError } from "../neucodec.js";

const SLEEP_AFTER_MS = 300;
const START_DEADLINE_MS = 3000;
const NO_WEB_AUDIO = "This browser has no Web Audio, so the page can neither play nor record here.";
const NOT_STARTED = "The browser does not let the page make sound yet. Click once more.";

export class Device {
  /** @param {(interrupted: boolean) => void} onInterruption the system took the sound away (a phone call), or gave it back */
  constructor(onInterruption) {
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {Set<string>} */
    this._holders = new Set();
    this._timer = 0;
    this._onInterruption = onInterruption;
    document.addEventListener("visibilitychange", () => this.wake());
  }

  /** The context, running. Rejects with SoundError. @param {string} holder */
  async hold(holder) {
    if (globalThis.AudioContext === undefined) throw new SoundError("missing", NO_WEB_AUDIO);
    clearTimeout(this._timer);
    this._holders.add(holder);
    if (this.context === null) {
      this.context = new AudioContext({ latencyHint: "interactive" });
      this.context.onstatechange = () => this._changed();
    }
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
    this._holders.delete(holder);
    clearTimeout(this._timer);
    if (this._holders.size === 0) this._timer = window.setTimeout(() => this.context?.suspend(), SLEEP_AFTER_MS);
  }

  /** Tries to go on after an interruption. */
  wake() {
    if (this._holders.size > 0 && this.context?.state !== "running") this.context?.resume().catch(() => {});
  }

  _changed() {
    this._onInterruption(this._holders.size > 0 && this.context?.state !== "running");
  }
}
