/** The code of the audio thread, loaded once per context: from the text in this module's bundle, or from a URL. */

import { WORKLET } from "./worklet-text.js";

/** @type {WeakMap<BaseAudioContext, Promise<void>>} */
const loaded = new WeakMap();

/**
 * Resolves when a context knows the processors of microphone and speaker.
 * @param {BaseAudioContext} context
 * @param {string | URL} [url] of worklet.js
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
    const hint = url === undefined ? ": if this page's policy forbids blob: scripts, give workletUrl" : ` (${url})`;
    throw new Error(`The code of the audio thread does not load${hint}.`, { cause: error });
  } finally {
    if (url === undefined) URL.revokeObjectURL(/** @type {string} */ (address));
  }
}
