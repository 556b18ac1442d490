/** Break it: bits flipped, or tokens lost, on the way from encoder to decoder. The same slider harms the same cells. */

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
    /** What is heard now, to go back to. */
    this._heard = "0";
    element("harm").addEventListener("input", () => this._turn());
    for (const kind of ["flip", "lose"]) element(kind).addEventListener("change", () => this._turn());
  }

  /** Another take: nothing is broken. */
  reset() {
    clearTimeout(this._timer);
    this._heard = "0";
    element("harm").value = "0";
    this._say();
    this.refresh();
    tell("break");
  }

  /** Whether the server can decode these tokens. */
  refresh() {
    const { take } = this._stage;
    const { model, kinds } = this._server;
    const isForeign = take !== null && model !== "" && take.model !== model;
    const able = take !== null && kinds.includes("decode") && !isForeign;
    element("harm").disabled = !able;
    element("break-why").textContent = isForeign
      ? foreign(take.model, model)
      : "The decoder hides what is lost as well as it can.";
  }

  /** The tokens as they arrive at the slider's value; null: as they are. */
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
    try {
      await this._stage.breakTokens(damaged);
      this._heard = value;
    } catch (error) {
      if (isAbort(error)) return;
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

/** Numbers from 0 to 1 that look random and are the same each time. @param {number} seed */
function numbers(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
