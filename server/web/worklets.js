/** Loads the code of the audio thread once per context, from the bundled text or from a URL. */

import { WORKLET } from "./worklet-text.js";

/** @type {WeakMap<BaseAudioContext, Promise<void>>} */
const loaded = new WeakMap();

/**
 * Registers the processors of the microphone and the speaker in a context; resolves when they are available.
 * @param {BaseAudioContext} context
 * @param {string | URL} [url] URL of worklet.js
 */
export function addWorklet(context, url) {
  const loading = loaded.get(context) ?? load(context, url);
  loaded.set(context, loading);
  loading.catch(() => loaded.delete(context));
  return loading;
}

/** @param {BaseAudioContext} context @param {string | URL} [url] */
async function load(context, url) {
  const address = url ?? URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
  try {
    await context.audioWorklet.addModule(address);
  } catch (error) {
    const hint = url === undefined ? ": if this page's policy forbids blob: scripts, pass workletUrl" : ` (${url})`;
    throw new Error(`The code of the audio thread could not be loaded${hint}.`, { cause: error });
  } finally {
    if (url === undefined) URL.revokeObjectURL(/** @type {string} */ (address));
  }
}
