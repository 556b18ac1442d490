/** The sound device of a page: whether it is available, and when it runs. */

/** `reason` is "insecure", "unsupported", "refused", "missing", "busy" or "failed"; the message says what to do. */
export class SoundError extends Error {
  /** @param {string} reason @param {string} message */
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}

const INSECURE =
  "Browsers allow the microphone and live sound on secure pages only. Open this page over https or at localhost.";
const UNSUPPORTED = "This browser does not support Web Audio worklets, which live sound needs. Please use a newer one.";
/** How long an unused context keeps running, so that pauses between words do not suspend it. */
const LINGER_MS = 1000;

/** Throws SoundError if live sound is not possible here, as on a page loaded over plain http from another machine. */
export function demandSound() {
  if (!globalThis.isSecureContext) throw new SoundError("insecure", INSECURE);
  if (!globalThis.AudioWorkletNode) throw new SoundError("unsupported", UNSUPPORTED);
}

/**
 * The holders that keep a context awake, and the action once the last one has let go.
 * @type {WeakMap<BaseAudioContext, {holders: Set<symbol>, sleep: () => void}>}
 */
const contexts = new WeakMap();

/** @param {AudioContext} context */
function entryOf(context) {
  const entry = contexts.get(context) ?? { holders: new Set(), sleep: () => {} };
  contexts.set(context, entry);
  return entry;
}

/**
 * Opens an AudioContext that is suspended while no microphone, speaker or `keepAwake` needs it. Call it in a click
 * handler. When the browser interrupts the sound, for example for a phone call, it calls `onInterrupted(true)`. It
 * resumes as soon as the browser allows, at the latest on the next click or key, and calls `onInterrupted(false)`.
 * @param {AudioContextOptions & {onInterrupted?: (interrupted: boolean) => void}} options
 */
export function openContext({ onInterrupted = () => {}, ...options } = {}) {
  demandSound();
  const context = new AudioContext({ latencyHint: "interactive", ...options });
  const entry = entryOf(context);
  let [interrupted, isAsleep] = [false, false];
  const tell = (/** @type {boolean} */ now) => {
    if (now !== interrupted) onInterrupted((interrupted = now));
  };
  const resume = () => {
    if (entry.holders.size > 0 && context.state !== "running") context.resume().catch(() => {});
  };
  entry.sleep = () => {
    setTimeout(() => {
      if (entry.holders.size > 0 || context.state !== "running") return;
      isAsleep = true;
      context.suspend();
    }, LINGER_MS);
  };
  context.addEventListener("statechange", () => {
    if (context.state === "closed") return stop.abort();
    if (context.state === "running") isAsleep = false;
    tell(context.state !== "running" && entry.holders.size > 0 && !isAsleep);
    resume();
  });
  const stop = new AbortController();
  for (const event of ["pointerup", "keydown", "visibilitychange"]) {
    document.addEventListener(event, resume, { signal: stop.signal, capture: true });
  }
  entry.sleep();
  return context;
}

/**
 * Resumes a context, and keeps one from `openContext` running until the returned function is called.
 * @param {AudioContext} context
 */
export function keepAwake(context) {
  const entry = entryOf(context);
  const holder = Symbol("holder");
  entry.holders.add(holder);
  if (context.state !== "running" && context.state !== "closed") context.resume().catch(() => {});
  return () => {
    if (entry.holders.delete(holder) && entry.holders.size === 0) entry.sleep();
  };
}
