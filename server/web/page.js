/** The page: what the buttons, keys and files do, around one Loop. Everything that is heard goes through it. */

import { Loop } from "./loop.js";
import { Refused, SoundError, Speaker } from "./neucodec.js";
import * as panels from "./panels.js";
import { element } from "./panels.js";
import { Pictures } from "./pictures.js";
import { demandSecureOrigin } from "./sound.js";
import { MICROPHONE, SAMPLE, WORKLET_URL, decodeAudio, original, recording, spoken } from "./sources.js";
import { Take } from "./take.js";
import { Channel, levelsOf, tokensFromFile } from "./tokens.js";

/** @typedef {import("./sources.js").Source} Source */

const KEY_ITEM = "neucodec-access-token";
const IDLE_S = 20;
const ASK_AGAIN_MS = 3000;
const MOST_FRAMES_BEHIND = 10;

export class Demo {
  constructor() {
    this.take = new Take();
    this.channel = new Channel();
    this.pictures = new Pictures();
    this.rate = new panels.TokenRate();
    /** @type {AudioContext | null} */
    this.context = null;
    /** @type {Loop | null} */
    this.loop = null;
    /** @type {Speaker | null} */
    this.speaker = null;
    /** @type {(playback: import("./speaker.js").Playback) => void} */
    this.onPlayback = () => {};
    this.profile = "";
    this.playing = false;
    /** @type {Source | null} */
    this.source = null;
    /** @type {{close: () => void} | null} */
    this._started = null;
    this._turn = 0;
    this._opened = Promise.resolve();
    /** @type {Float32Array[]} frames that came in and have not been shown */
    this._said = [];
    this._idleSince = Infinity;
  }

  /** Learns of the server's profiles, and again until it is ready. */
  async greet() {
    try {
      const answer = await fetch("readyz");
      const { ready, model, profiles, reason } = await answer.json();
      if (!ready) {
        panels.showStatus("wait", reason ?? "the server is not ready");
      } else {
        this.profile ||= "default" in profiles ? "default" : Object.keys(profiles)[0];
        panels.showProfiles(profiles, this.profile, (name) => this.choose(name));
        panels.showStatus("ready", `ready, model ${shortName(model)}`);
        return;
      }
    } catch {
      panels.showStatus("lost", "the server does not answer");
    }
    setTimeout(() => this.greet(), ASK_AGAIN_MS);
  }

  /** Lets one source be heard; whatever was being heard is interrupted. @param {Source} source */
  async hear(source) {
    const turn = ++this._turn;
    const overtaken = () => turn !== this._turn;
    panels.showNotice();
    this._release();
    const before = this._opened.catch(() => {}); // its own `hear` has told
    this._opened = before.then(() => (overtaken() ? undefined : this._open(source.input)));
    try {
      await this._opened;
      if (overtaken()) return;
      this.source = source;
      element("source").textContent = source.name;
      if (source.input === "audio") this.take.clear();
      if (source.input === "tokens") this.take.output.clear();
      const started = await source.start(this);
      if (overtaken()) return started.close();
      this._started = started;
      const ready = this.loop?.ready;
      if (source.input !== "nothing") panels.showStatus("live", `live, ${shortName(ready?.model)}, ${ready?.profile}`);
    } catch (error) {
      if (!overtaken()) this.fail(/** @type {Error} */ (error), source);
    }
    this._show();
  }

  /** Makes ready for a source; what was under way is dropped. @param {import("./loop.js").Input} input */
  async _open(input) {
    await this._wake();
    const loop = /** @type {Loop} */ (this.loop);
    if (loop.profile !== this.profile) loop.drop();
    await loop.interrupt();
    loop.profile = this.profile;
    loop.accessToken = sessionStorage.getItem(KEY_ITEM);
    await loop.open(input);
    this._idleSince = /** @type {AudioContext} */ (this.context).currentTime;
  }

  /** The source has nothing more: its tail is still heard. */
  async end() {
    const { source } = this;
    if (source === null) return;
    this._release();
    try {
      await this.loop?.finish(source.input);
    } catch {
      // what went wrong has been told by onFailure
    }
    if (this.source === null && this.loop?.ready) panels.showStatus("ready", "ready");
    this._show();
  }

  /** Silence at once: what is under way is dropped, here and at the server. A microphone goes on. */
  async interrupt() {
    if (this.source !== null && this.source !== MICROPHONE) this._release();
    await this.loop?.interrupt();
    this._show();
  }

  /** @param {string} name of a profile */
  async choose(name) {
    this.profile = name;
    if (this.source !== null) await this.hear(this.source);
  }

  /** A frame that came in, to be seen. @param {Float32Array} samples */
  show(samples) {
    this._said.push(samples);
    if (this._said.length > MOST_FRAMES_BEHIND) this._said.shift();
  }

  /** A frame that came in, to be encoded. @param {Float32Array} samples @param {number} time */
  say(samples, time) {
    this.take.addAudio("input", samples);
    this.show(samples);
    try {
      this.loop?.speak(samples, time);
    } catch {
      // the session has ended, and onFailure has told why
    }
  }

  /** Says what went wrong, and how to go on. @param {Error} error @param {Source | null} source */
  fail(error, source) {
    this._release();
    if (error instanceof Refused && error.code === "unauthorized") {
      if (sessionStorage.getItem(KEY_ITEM)) panels.showNotice("The server does not know this key.");
      askForKey((key) => {
        sessionStorage.setItem(KEY_ITEM, key);
        if (source !== null) this.hear(source);
      });
      return;
    }
    panels.showNotice(error.message);
    if (error instanceof SoundError) return;
    this.loop?.drop();
    panels.showStatus("lost", "not connected");
    setTimeout(() => this.greet(), ASK_AGAIN_MS);
  }

  /** The sound device, which browsers start after a gesture of the visitor only. */
  async _wake() {
    if (this.context === null) {
      demandSecureOrigin();
      this.context = new AudioContext({ latencyHint: "interactive" });
      this.speaker = await Speaker.open(this.context, {
        live: true,
        workletUrl: WORKLET_URL,
        onPlayback: (playback) => this._tick(playback),
      });
      this.speaker.muted = element("mute").checked;
      this.loop = new Loop(this.context, this.speaker, this.channel, {
        onTokens: (tokens) => this.take.tokens.add(tokens),
        onAudio: (audio) => this.take.addAudio("output", audio),
        onLost: () => panels.showStatus("lost", "connection lost, coming back"),
        onReturn: (exactly, gapMs) => panels.showStatus("live", welcome(exactly, gapMs)),
        onFailure: (error) => this.fail(error, this.source),
      });
    }
    await this.context.resume();
  }

  /** Twenty milliseconds of playback. @param {import("./speaker.js").Playback} playback */
  _tick(playback) {
    const loop = /** @type {Loop} */ (this.loop);
    const context = /** @type {AudioContext} */ (this.context);
    this.playing = playback.playing;
    const said = this._said.shift();
    const active = this.source !== null || playback.playing;
    if (active) {
      const token = playback.playing ? loop.tokenAt(playback.position) : null;
      if (token) {
        this.rate.add(1, playback.time);
        element("token").textContent = `${token.token} = ${levelsOf(token.token).join(" ")}`;
      }
      loop.hear(playback);
      this.pictures.add(said, playback.heard, token);
      this._idleSince = playback.time;
    } else if (playback.time > this._idleSince + IDLE_S) {
      this._idleSince = Infinity;
      loop.close();
    }
    if (Math.round(playback.time * 50) % 10 === 0) this._showFigures(playback, context);
    this.onPlayback(playback);
  }

  /** @param {import("./speaker.js").Playback} playback @param {AudioContext} context */
  _showFigures(playback, context) {
    const loop = /** @type {Loop} */ (this.loop);
    panels.showRate(this.rate.at(playback.time));
    panels.showLatency(loop.latency, ((context.baseLatency ?? 0) + (context.outputLatency ?? 0)) * 1000);
    panels.showPlayback(playback, loop.lostFrames);
    panels.showTake(this.take);
    this._show();
  }

  _release() {
    this._started?.close();
    this._started = null;
    this.source = null;
    this._said = [];
    this._show();
  }

  _show() {
    const talking = this.source === MICROPHONE;
    element("talk").textContent = talking ? "Stop" : "Talk";
    element("talk").setAttribute("aria-pressed", String(talking));
    const { input, tokens, output } = this.take;
    element("replay").disabled = element("save-tokens").disabled = tokens.count === 0;
    element("original").disabled = input.count === 0;
    element("save-wav").disabled = output.count === 0;
    element("interrupt").disabled = this.source === null && !this.playing;
  }
}

/** @param {string | undefined} model a name, a folder or a hub id */
const shortName = (model) => model?.split("/").pop();

/** @param {boolean} exactly @param {number} gapMs */
function welcome(exactly, gapMs) {
  if (gapMs > 0) return `back, ${(gapMs / 1000).toFixed(1)} s lost`;
  return exactly ? "back, nothing lost" : "back, from another start";
}

/** @param {Demo} demo @param {File} file */
async function openFile(demo, file) {
  const bytes = await file.arrayBuffer();
  if (!/\.(tok|txt)$/i.test(file.name)) {
    const unreadable = () => {
      throw new Error(`${file.name} is no audio that this browser can read.`);
    };
    return demo.hear(recording(file.name, () => decodeAudio(bytes).catch(unreadable)));
  }
  try {
    const tokens = tokensFromFile(new Uint8Array(bytes));
    demo.take.clear();
    demo.take.tokens.add(tokens);
    await demo.hear(spoken(file.name, tokens));
  } catch (error) {
    panels.showNotice(`${file.name} cannot be played: ${/** @type {Error} */ (error).message}.`);
  }
}

/** @param {(key: string) => void} onKey */
function askForKey(onKey) {
  element("key-form").onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    element("key-dialog").close();
    onKey(element("key").value);
  };
  element("key-cancel").onclick = () => element("key-dialog").close();
  element("key-dialog").showModal();
}

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

/** @param {Demo} demo */
function wire(demo) {
  const replay = () => demo.hear(spoken("replay", /** @type {Uint16Array} */ (demo.take.tokens.units)));
  element("talk").onclick = () => (demo.source === MICROPHONE ? demo.end() : demo.hear(MICROPHONE));
  element("sample").onclick = () => demo.hear(SAMPLE);
  element("open").onclick = () => element("file").click();
  element("replay").onclick = replay;
  element("original").onclick = () => demo.hear(original(demo.take));
  element("interrupt").onclick = () => demo.interrupt();
  element("mute").onchange = () => demo.speaker && (demo.speaker.muted = element("mute").checked);
  element("headphones").onchange = () => demo.source === MICROPHONE && demo.hear(MICROPHONE);
  element("file").onchange = () => openFile(demo, element("file").files[0]);
  element("save-tokens").onclick = () => save(new Blob([demo.take.tokens.units]), "speech.tok");
  element("save-wav").onclick = () => save(demo.take.wav, "speech.wav");
  for (const share of /** @type {("flip" | "lose")[]} */ (["flip", "lose"])) {
    element(share).oninput = () => {
      demo.channel[share] = element(share).value / 100;
      element(`${share}-value`).textContent = `${Number(element(share).value)} %`;
    };
  }
  const keys = { " ": "talk", s: "sample", f: "open", r: "replay", o: "original", Escape: "interrupt" };
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    const button = keys[/** @type {keyof typeof keys} */ (event.key)];
    const typing = target.closest("input, button, dialog") && event.key === " ";
    if (!button || event.repeat || typing || target.closest("dialog") || event.ctrlKey || event.metaKey || event.altKey)
      return;
    event.preventDefault();
    element(button).click();
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (file) openFile(demo, file);
  });
}

export const demo = new Demo();
wire(demo);
demo.greet();
try {
  demandSecureOrigin();
} catch (error) {
  demo.fail(/** @type {Error} */ (error), null);
}
