/** The "Take it with you" panel: exports the take as tokens, sound, text, link, picture or video. */

import { tokensToText } from "../neucodec.js";
import { tokensToBytes } from "../payload.js";
import { element, grouped, save, tell } from "./dom.js";
import { colourOf } from "./palette.js";
import { OUTPUT_RATE, wavFile } from "./take.js";
import { fragmentOf } from "./tokens.js";
import { recordVideo, videoType } from "./video.js";

const PICTURE = { width: 1200, margin: 48, bands: [150, 120, 150], gap: 18, head: 150 };

/** Aborts the video in progress. */
let recording = new AbortController();

/** @param {import("./stage.js").Stage} stage @param {import("./device.js").Device} device */
export function wireTakeaway(stage, device) {
  const take = () => /** @type {import("./take.js").Take} */ (stage.take);
  const done = (/** @type {string} */ words) => (element("takeaway-state").textContent = words);
  const on = (/** @type {string} */ id, /** @type {() => unknown} */ action) => {
    element(id).addEventListener("click", async () => {
      tell("takeaway");
      done("");
      try {
        await action();
      } catch (error) {
        tell("takeaway", /** @type {Error} */ (error).message);
      }
    });
  };
  on("save-tokens", () => save(new Blob([tokensToBytes(take().tokens)]), "speech.tok"));
  on("save-wav", () => save(wavFile(/** @type {Float32Array} */ (take().output), OUTPUT_RATE), "speech.wav"));
  on("copy-text", async () => {
    const text = tokensToText(take().tokens);
    await copy(text, "speech.txt");
    done(`Copied ${grouped(take().tokens.length)} tokens as text.`);
  });
  on("copy-link", async () => {
    const link = new URL(fragmentOf(take().tokens, take().model), location.href).href;
    await copy(link, "link.txt");
    done(`Copied a link of ${grouped(link.length)} characters that contains the speech.`);
  });
  on("share-picture", async () => share(await pngOf(picture(stage)), "speech.png"));
  element("share-video").hidden = videoType() === undefined;
  on("share-video", async () => {
    const { signal } = recording;
    stage.player.stop();
    element("share-video").disabled = true;
    try {
      const blob = await recordVideo({
        device,
        picture: picture(stage),
        axis: { left: PICTURE.margin, right: PICTURE.width - PICTURE.margin, top: PICTURE.head, bottom: heightOf() - PICTURE.margin },
        colour: colourOf("ink"),
        sound: () => stage.player.heard,
        signal,
        onProgress: (at, total) => done(`Recording the video: ${at} of ${total} s.`),
      });
      if (blob === null) return;
      done("");
      await share(blob, `speech.${blob.type.split("/")[1]}`);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      if (!signal.aborted) element("share-video").disabled = false;
    }
  });
}

/** Enables the exports that the take allows, and ends a video in progress. @param {import("./take.js").Take | null} take */
export function refreshTakeaway(take) {
  for (const id of ["save-tokens", "copy-text", "copy-link", "share-picture"]) element(id).disabled = take === null;
  for (const id of ["save-wav", "share-video"]) element(id).disabled = take === null || take.output === null;
  recording.abort();
  recording = new AbortController();
  element("takeaway-state").textContent = "";
}

/** Copies to the clipboard, or saves a file if that is not allowed. @param {string} text @param {string} name */
async function copy(text, name) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    save(new Blob([text], { type: "text/plain" }), name);
  }
}

/**
 * Shares a file where that is usual, on phones; otherwise, or if the browser refuses since the click was too long ago,
 * saves it.
 * @param {Blob} blob
 * @param {string} name
 */
async function share(blob, name) {
  const file = new File([blob], name, { type: blob.type });
  if (matchMedia("(pointer: coarse)").matches && navigator.canShare?.({ files: [file] })) {
    try {
      await navigator.share({ files: [file] });
      return;
    } catch (error) {
      if (/** @type {Error} */ (error).name === "AbortError") return; // cancelled by the user
    }
  }
  save(blob, name);
}

const heightOf = () => PICTURE.head + PICTURE.bands.reduce((sum, band) => sum + band + PICTURE.gap, 0) + PICTURE.margin;

/** Renders the figure and its byte counts. @param {import("./stage.js").Stage} stage */
function picture(stage) {
  const { width, margin, bands, gap, head } = PICTURE;
  const height = heightOf();
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const { fontFamily } = getComputedStyle(document.body);
  context.fillStyle = colourOf("paper");
  context.fillRect(0, 0, width, height);
  context.fillStyle = colourOf("ink");
  context.font = `650 60px ${fontFamily}`;
  context.fillText(`${element("pcm-bytes").textContent} bytes \u2192 ${element("token-bytes").textContent} bytes`, margin, 92);
  context.fillStyle = colourOf("muted");
  context.font = `22px ${fontFamily}`;
  context.fillText(`${stage.take?.seconds.toFixed(1)} s of speech as ${stage.take?.model} tokens, 0.8 kbit/s`, margin, 130);
  let top = head;
  stage.figure.canvases.forEach((band, i) => {
    context.drawImage(band, margin, top, width - 2 * margin, bands[i]);
    top += bands[i] + gap;
  });
  return canvas;
}

/** @param {HTMLCanvasElement} canvas @returns {Promise<Blob>} */
const pngOf = (canvas) =>
  new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The picture could not be made."))), "image/png");
  });
