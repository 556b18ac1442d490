/** The page: connects controls, keys, files and links to their actions. */

import { Breaking } from "./breaking.js";
import { NO_WEB_AUDIO, Device } from "./device.js";
import { element, showTab, tell } from "./dom.js";
import { Live } from "./live.js";
import { holdOrTap } from "./press.js";
import { MODEL, SAMPLES, sampleTake } from "./samples.js";
import { Server } from "./server.js";
import { Stage, TRACKS } from "./stage.js";
import { Take } from "./take.js";
import { refreshTakeaway, wireTakeaway } from "./takeaway.js";
import { tokensFromFragment } from "./tokens.js";

const INSECURE =
  "Browsers allow the microphone on secure pages only: use https or localhost. You can still play the samples.";
const INTERRUPTED = "Sound was interrupted, perhaps by a call. Click here to continue.";

const server = new Server(() => showServer());
const device = new Device((interrupted) => {
  element("interrupted").hidden = !interrupted;
  element("interrupted").textContent = interrupted ? INTERRUPTED : "";
});
const stage = new Stage(device, server);
const breaking = new Breaking(stage, server);
const live = new Live(device, server);
export const demo = { device, server, stage, breaking, live };

/** Shows the state of the server and the controls that it supports. */
function showServer() {
  const { phase, words, kinds, model } = server;
  element("status").dataset.state = phase;
  element("status").textContent = words;
  const canLive = kinds.includes("encode") && kinds.includes("decode");
  element("speak").hidden = !kinds.includes("encode");
  element("speak-why").hidden = kinds.includes("encode");
  element("live-tab").hidden = !canLive;
  element("break").hidden = !kinds.includes("decode");
  element("other-model").hidden = model === "" || model === MODEL.name;
  element("other-model-name").textContent = model;
  if (phase === "ready") live.showProfiles();
  breaking.refresh();
}

/** @param {string} name @param {boolean} plays whether to play it */
async function showSample(name, plays) {
  tell("samples");
  const sample = SAMPLES.find((each) => each.name === name);
  if (sample === undefined || globalThis.AudioContext === undefined) return;
  try {
    await stage.showLoaded(sampleTake(sample), plays);
  } catch (error) {
    tell("samples", /** @type {Error} */ (error).message);
  }
}

/** Shows the speech in the URL fragment; false if there is none. */
function showFragment() {
  const linked = tokensFromFragment(location.hash);
  if (linked === null) return false;
  live.halt();
  stage.show(new Take({ title: "Speech from a link", ...linked }));
  showTab("speak");
  return true;
}

/** Stops playback, recording, live talk and a video in progress. */
function haltAll() {
  stage.halt();
  live.halt();
  refreshTakeaway(stage.take);
}

function wireTabs() {
  const names = ["speak", "live"];
  const open = (/** @type {string} */ name) => {
    haltAll();
    if (stage.take && name === "speak") stage.show(stage.take);
    showTab(name);
  };
  for (const name of names) {
    element(`${name}-tab`).addEventListener("click", () => open(name));
    element(`${name}-tab`).addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key) || element("live-tab").hidden) return;
      const other = names[1 - names.indexOf(name)];
      open(other);
      element(`${other}-tab`).focus();
    });
  }
}

function wireStage() {
  stage.onTake = () => {
    breaking.reset();
    refreshTakeaway(stage.take);
  };
  stage.onOutput = () => refreshTakeaway(stage.take);
  holdOrTap(element("speak"), {
    isOn: () => stage.recorder.isOn,
    start: () => stage.record(),
    stop: (held) => stage.recorder.stop(held),
  });
  element("play").addEventListener("click", () => (stage.player.playing ? stage.player.stop() : stage.play()));
  element("loop").addEventListener("change", () => (stage.player.loop = element("loop").checked));
  element("seek").addEventListener("input", () => stage.seek(Number(element("seek").value)));
  for (const track of TRACKS) element(track).addEventListener("change", () => stage.choose(track));
  for (const { name } of SAMPLES) {
    element(`sample-${name}`)?.addEventListener("click", () => showSample(name, true));
  }
  wireTakeaway(stage, device);
}

function wireFiles() {
  const open = (/** @type {File | undefined} */ file) => {
    if (file === undefined) return;
    live.halt();
    showTab("speak");
    stage.open(file);
  };
  element("open").addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", () => {
    const [file] = element("file").files;
    open(file);
    element("file").value = ""; // so that the same file can be selected again
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  for (const end of ["dragleave", "drop"]) document.addEventListener(end, () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    open(event.dataTransfer?.files[0]);
  });
}

function wireLive() {
  element("talk").addEventListener("click", () => (live.isOn ? live.stop() : live.start()));
  element("live-compare").addEventListener("click", () => {
    stage.show(live.history.take(server.model));
    showTab("speak");
  });
}

function wireRest() {
  document.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape" || element("key-dialog").open) return;
    const recording = stage.recorder.phase !== "idle";
    haltAll();
    if (recording && stage.take) stage.show(stage.take);
  });
  window.addEventListener("pagehide", haltAll);
  window.addEventListener("hashchange", () => showFragment());
  document.addEventListener("visibilitychange", () => document.hidden || server.look());
}

/** Says what this browser or the page's origin lacks. */
function lack() {
  if (globalThis.AudioContext === undefined) {
    for (const id of ["speak", "play", "talk"]) element(id).setAttribute("aria-disabled", "true");
    tell("speak", NO_WEB_AUDIO);
    tell("live", NO_WEB_AUDIO);
  } else if (!isSecureContext) {
    tell("speak", INSECURE);
    tell("live", INSECURE);
  }
}

wireTabs();
wireStage();
wireFiles();
wireLive();
wireRest();
lack();
server.look();
if (!showFragment()) showSample("sentence", false);
