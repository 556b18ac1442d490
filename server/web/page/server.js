/** The page's server: its state, the user's key, and the opening of sessions. */

import { Refused, connect } from "../neucodec.js";
import { audioFromBytes, audioToBytes } from "../payload.js";
import { element } from "./dom.js";
import { INPUT_RATE } from "./take.js";
import { bytesFromBase64 } from "./tokens.js";

const KEY_ITEM = "neucodec-access-token";
const READY_URL = new URL("../readyz", import.meta.url);
const COMPARE_URL = new URL("../v1/compare", import.meta.url);
const MAX_COMPARED_SECONDS = 15;
const LOOK_AGAIN_MS = { ready: 15000, wait: 3000, lost: 3000 };
const ASK_DEADLINE_MS = 10000;
const COMPARE_DEADLINE_MS = 30000;
const NO_KEY = "This server requires a key.";

/**
 * @typedef {import("./latency.js").Profile} Profile
 * @typedef {"encode" | "decode"} Kind
 */

export class Server {
  /** @param {() => void} onChange called when the known state of the server changes */
  constructor(onChange) {
    this.phase = /** @type {"wait" | "ready" | "lost"} */ ("wait");
    this.words = "connecting";
    this.model = "";
    /** @type {Record<string, Profile>} */
    this.profiles = {};
    /** @type {Kind[]} */
    this.kinds = ["encode", "decode"];
    /** @type {string[]} other codecs that the server can compare with */
    this.codecs = [];
    this.profile = "";
    this._onChange = onChange;
    this._timer = 0;
    this._turn = 0;
    /** @type {Promise<boolean> | null} */
    this._asking = null;
  }

  /** Checks the server now, and then periodically while the page is visible. */
  async look() {
    const turn = ++this._turn;
    clearTimeout(this._timer);
    if (!document.hidden) await this._look(() => turn !== this._turn);
    if (turn === this._turn) this._timer = window.setTimeout(() => this.look(), LOOK_AGAIN_MS[this.phase]);
  }

  /** @param {() => boolean} overtaken whether a newer check has begun */
  async _look(overtaken) {
    try {
      const answer = await fetch(READY_URL, { signal: AbortSignal.timeout(ASK_DEADLINE_MS) });
      const state = await answer.json();
      if (overtaken()) return;
      if (!state.ready) return this._be("wait", state.reason ?? "the server is not ready");
      this.model = shortName(state.model);
      this.profiles = state.profiles;
      this.codecs = state.compare ?? [];
      if (!(this.profile in this.profiles)) {
        this.profile = "default" in this.profiles ? "default" : Object.keys(this.profiles)[0];
      }
      this.kinds = /** @type {Kind[]} */ (Object.keys(state.profiles[this.profile].capacity ?? { encode: 1, decode: 1 }));
      this._be("ready", `ready, ${this.model}`);
    } catch {
      if (!overtaken()) this._be("lost", "the server does not answer");
    }
  }

  /** @param {Server["phase"]} phase @param {string} words */
  _be(phase, words) {
    Object.assign(this, { phase, words });
    this._onChange();
  }

  /**
   * Opens a session; asks the user for a key if the server requires one. Rejects with an error whose message can be
   * shown to the user.
   * @template {Kind} K
   * @param {Omit<import("../connection.js").Options<K>, "profile" | "accessToken">} options
   * @param {() => void} [beforeAsking] called before the user is asked for a key, for example to close a microphone
   * @returns {Promise<import("../connection.js").Connection<K>>}
   */
  async connect(options, beforeAsking = () => {}) {
    for (;;) {
      const accessToken = sessionStorage.getItem(KEY_ITEM);
      try {
        return await connect(/** @type {any} */ ({ ...options, profile: this.profile || null, accessToken }));
      } catch (error) {
        if (!(error instanceof Refused) || options.signal?.aborted) throw error;
        if (error.code !== "unauthorized") {
          this.look();
          throw error;
        }
        beforeAsking();
        if (!(await this.askForKey())) throw new Refused("unauthorized", NO_KEY);
      }
    }
  }

  /**
   * Returns speech as other codecs render it, by name; nothing if it is too long or the server cannot do it now.
   * @param {Float32Array} samples 16 kHz
   * @returns {Promise<Record<string, import("./take.js").Sound>>}
   */
  async compare(samples) {
    if (this.codecs.length === 0 || samples.length > MAX_COMPARED_SECONDS * INPUT_RATE) return {};
    const key = sessionStorage.getItem(KEY_ITEM);
    try {
      const answer = await fetch(COMPARE_URL, {
        method: "POST",
        body: audioToBytes(samples, "mulaw"),
        headers: key === null ? {} : { Authorization: `Bearer ${key}` },
        signal: AbortSignal.timeout(COMPARE_DEADLINE_MS),
      });
      if (!answer.ok) return {};
      const { rate, audio } = await answer.json();
      const sounds = Object.entries(audio).map(([name, base64]) => [
        name,
        { samples: audioFromBytes(bytesFromBase64(base64)), rate },
      ]);
      return Object.fromEntries(sounds);
    } catch {
      return {};
    }
  }

  /** Asks the user for a key; returns whether one was entered. Several callers share one question. */
  askForKey() {
    this._asking ??= this._askForKey().finally(() => (this._asking = null));
    return this._asking;
  }

  async _askForKey() {
    const known = sessionStorage.getItem(KEY_ITEM) !== null;
    element("key-notice").hidden = !known;
    element("key").value = "";
    const dialog = element("key-dialog");
    dialog.showModal();
    const key = await new Promise((resolve) => {
      element("key-form").onsubmit = (/** @type {Event} */ event) => {
        event.preventDefault();
        resolve(element("key").value);
      };
      element("key-cancel").onclick = () => resolve("");
      dialog.onclose = () => dialog.open || resolve(""); // open: the event of an earlier question, which came late
    });
    dialog.close();
    if (key) sessionStorage.setItem(KEY_ITEM, key);
    return key !== "";
  }
}

/** @param {string} model a name, a folder or an id on the Hugging Face Hub */
const shortName = (model) => model.split("/").pop() ?? model;
