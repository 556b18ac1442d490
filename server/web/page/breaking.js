/** The "Break it" panel: flips bits or loses tokens between encoder and decoder. Damage is deterministic. */

import { element, tell } from "./dom.js";
import { foreign, isAbort } from "./stage.js";
import { Channel } from "./tokens.js";

const SEED = 20;
const CALM_MS = 200;

export class Breaking {
  /** @param {import("./stage.js").Stage} stage @param {import("./server.js").Server} server */
  constructor(stage, server) {
    this._stage = stage;
    this._server = server;
    this._timer = 0;
    /** Slider value of the damage that is heard now, to return to after an error. */
    this._heard = "0";
    element("harm").addEventListener("input", () => this._turn());
    for (const kind of ["flip", "lose"]) element(kind).addEventListener("change", () => this._turn());
  }

  /** Resets the slider for another take. */
  reset() {
    clearTimeout(this._timer);
    this._heard = "0";
    element("harm").value = "0";
    this._say();
    this.refresh();
    tell("break");
  }

  /** Enables the slider if the server can decode the take's tokens. */
  refresh() {
    const { take } = this._stage;
    const { model, kinds } = this._server;
    const isForeign = take !== null && model !== "" && take.model !== model;
    const able = take !== null && kinds.includes("decode") && !isForeign;
    element("harm").disabled = !able;
    element("break-why").textContent = isForeign
      ? foreign(take.model, model)
      : "The decoder conceals lost tokens as well as it can.";
  }

  /** The tokens damaged according to the slider; null if undamaged. */
  get _damaged() {
    const channel = new Channel(numbers(SEED));
    const share = Number(element("harm").value) / 100;
    const take = this._stage.take;
    if (share === 0 || take === null) return null;
    channel[element("flip").checked ? "flip" : "lose"] = share;
    return channel.pass(take.tokens);
  }

  _turn() {
    tell("break");
    this._say();
    const damaged = this._damaged;
    const { take, figure } = this._stage;
    if (take === null) return;
    figure.show({ tokens: damaged?.tokens ?? take.tokens, damage: damaged?.damage ?? null, lost: damaged?.lost ?? null });
    clearTimeout(this._timer);
    this._timer = window.setTimeout(() => this._hear(damaged), CALM_MS);
  }

  /** @param {ReturnType<Channel["pass"]> | null} damaged */
  async _hear(damaged) {
    const { value } = element("harm");
    const timer = this._timer;
    try {
      await this._stage.breakTokens(damaged);
      this._heard = value;
    } catch (error) {
      if (isAbort(error) || timer !== this._timer) return; // the slider has moved on
      element("harm").value = this._heard;
      this._turn();
      clearTimeout(this._timer);
      tell("break", /** @type {Error} */ (error).message);
    }
  }

  _say() {
    const value = Number(element("harm").value);
    const what = element("flip").checked ? "bits flipped" : "tokens lost";
    element("harm-value").textContent = `${value} %`;
    element("harm").setAttribute("aria-valuetext", `${value} percent of ${what}`);
  }
}

/** Returns a generator of pseudo-random numbers from 0 to 1. @param {number} seed */
function numbers(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
