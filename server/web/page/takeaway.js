/** The "Take it with you" panel: exports the take as tokens, sound, text, link or picture. */

import { tokensToText } from "../neucodec.js";
import { tokensToBytes } from "../payload.js";
import { element, grouped, save, tell } from "./dom.js";
import { OUTPUT_RATE, wavFile } from "./take.js";
import { fragmentOf } from "./tokens.js";

const PICTURE = { width: 1200, margin: 48, bands: [150, 120, 150], gap: 18, head: 150 };

/** @param {import("./stage.js").Stage} stage */
export function wireTakeaway(stage) {
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
  on("share-picture", async () => {
    const blob = await picture(stage);
    const file = new File([blob], "speech.png", { type: "image/png" });
    if (matchMedia("(pointer: coarse)").matches && navigator.canShare?.({ files: [file] })) {
      await navigator.share({ files: [file] }).catch(() => {}); // the user may cancel
    } else {
      save(blob, "speech.png");
    }
  });
}

/** Enables the exports that the take allows. @param {import("./take.js").Take | null} take */
export function refreshTakeaway(take) {
  for (const id of ["save-tokens", "copy-text", "copy-link", "share-picture"]) element(id).disabled = take === null;
  element("save-wav").disabled = take === null || take.output === null;
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

/** Renders the figure and its byte counts as PNG. @param {import("./stage.js").Stage} stage @returns {Promise<Blob>} */
function picture(stage) {
  const { width, margin, bands, gap, head } = PICTURE;
  const height = head + bands.reduce((sum, band) => sum + band + gap, 0) + margin;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  const { fontFamily } = getComputedStyle(document.body);
  context.fillStyle = colour("paper");
  context.fillRect(0, 0, width, height);
  context.fillStyle = colour("ink");
  context.font = `650 60px ${fontFamily}`;
  context.fillText(`${element("pcm-bytes").textContent} bytes \u2192 ${element("token-bytes").textContent} bytes`, margin, 92);
  context.fillStyle = colour("muted");
  context.font = `22px ${fontFamily}`;
  context.fillText(`${stage.take?.seconds.toFixed(1)} s of speech as ${stage.take?.model} tokens, 0.8 kbit/s`, margin, 130);
  let top = head;
  stage.figure.picture.forEach((band, i) => {
    context.drawImage(band, margin, top, width - 2 * margin, bands[i]);
    top += bands[i] + gap;
  });
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The picture could not be made."))), "image/png");
  });
}
