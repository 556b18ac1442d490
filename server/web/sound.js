/** The sound device of a page: what may be missing, and when it runs. */

/** `reason`: "insecure", "unsupported", "refused", "missing", "busy" or "failed"; the message says what to do. */
export class SoundError extends Error {
  /** @param {string} reason @param {string} message */
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}

const INSECURE =
  "Browsers give microphone and live sound to secure origins only. Open this page by https, or at localhost.";
const UNSUPPORTED = "This browser has no Web Audio with worklets, which live sound needs. Try a current one.";
/** An unused context runs on for this time, so that pauses between words do not suspend it. */
const LINGER_MS = 1000;

/** Throws SoundError on a page that came over plain http from another machine. */
export function demandSecureOrigin() {
  if (!globalThis.isSecureContext) throw new SoundError("insecure", INSECURE);
}

/** Throws SoundError where there can be no live sound. */
export function demandSound() {
  demandSecureOrigin();
  if (!globalThis.AudioWorkletNode) throw new SoundError("unsupported", UNSUPPORTED);
}

/**
 * The holders that keep a context awake, and the action when the last one has left.
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
 * An AudioContext that is suspended while no microphone, speaker or `keepAwake` needs it; open it in a click. When the
 * browser takes the device away, for a phone call for instance, `onInterrupted(true)` says so; it is resumed as soon as
 * the browser allows, at the visitor's next click or key at the latest, and `onInterrupted(false)` says that.
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
 * Resumes a context, and keeps one of `openContext` running until the returned function is called.
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
