/** What the page knows of its server, the visitor's key, and how sessions are opened: errors say what to do. */

import { Refused, connect } from "../neucodec.js";
import { element } from "./dom.js";

const KEY_ITEM = "neucodec-access-token";
const READY_URL = new URL("../readyz", import.meta.url);
const LOOK_AGAIN_MS = { ready: 15000, wait: 3000, lost: 3000 };
const ASK_DEADLINE_MS = 10000;
const NO_KEY = "This server asks for a key.";

/**
 * @typedef {import("./latency.js").Profile} Profile
 * @typedef {"encode" | "decode"} Kind
 */

export class Server {
  /** @param {() => void} onChange what is known of the server has changed */
  constructor(onChange) {
    this.phase = /** @type {"wait" | "ready" | "lost"} */ ("wait");
    this.words = "connecting";
    this.model = "";
    /** @type {Record<string, Profile>} */
    this.profiles = {};
    /** @type {Kind[]} */
    this.kinds = ["encode", "decode"];
    this.profile = "";
    this._onChange = onChange;
    this._timer = 0;
  }

  /** Looks how the server is, now and from time to time while the page is seen. */
  async look() {
    clearTimeout(this._timer);
    if (!document.hidden) await this._look();
    this._timer = window.setTimeout(() => this.look(), LOOK_AGAIN_MS[this.phase]);
  }

  async _look() {
    try {
      const state = await ask();
      if (!state.ready) return this._be("wait", state.reason ?? "the server is not ready");
      this.model = shortName(state.model);
      this.profiles = state.profiles;
      if (!(this.profile in this.profiles)) {
        this.profile = "default" in this.profiles ? "default" : Object.keys(this.profiles)[0];
      }
      this.kinds = /** @type {Kind[]} */ (Object.keys(state.profiles[this.profile].capacity ?? { encode: 1, decode: 1 }));
      this._be("ready", `ready, ${this.model}`);
    } catch {
      this._be("lost", "the server does not answer");
    }
  }

  /** @param {Server["phase"]} phase @param {string} words */
  _be(phase, words) {
    Object.assign(this, { phase, words });
    this._onChange();
  }

  /**
   * Opens a session. A key is asked for where one is needed; rejects with an error whose message a visitor understands.
   * @template {Kind} K
   * @param {Omit<import("../connection.js").Options<K>, "profile" | "accessToken">} options
   * @param {() => void} [beforeAsking] for a key: lets go of a microphone, for instance
   * @returns {Promise<import("../connection.js").Connection<K>>}
   */
  async connect(options, beforeAsking = () => {}) {
    for (;;) {
      const accessToken = sessionStorage.getItem(KEY_ITEM);
      try {
        return await connect(/** @type {any} */ ({ ...options, profile: this.profile || null, accessToken }));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        if (error.code !== "unauthorized") {
          this.look();
          throw error;
        }
        beforeAsking();
        if (!(await this.askForKey())) throw new Refused("unauthorized", NO_KEY);
      }
    }
  }

  /** Whether the visitor gave another key. */
  async askForKey() {
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
      element("key-cancel").onclick = dialog.oncancel = () => resolve("");
    });
    dialog.close();
    if (key) sessionStorage.setItem(KEY_ITEM, key);
    return key !== "";
  }
}

/** What /readyz says. */
async function ask() {
  const answer = await fetch(READY_URL, { signal: AbortSignal.timeout(ASK_DEADLINE_MS) });
  return answer.json();
}

/** @param {string} model a name, a folder or a hub id */
const shortName = (model) => model.split("/").pop() ?? model;
