/** What this side may lack to hear and to be heard. */

/** `reason`: "insecure", "refused", "missing", "busy" or "failed"; the message says what to do. */
export class SoundError extends Error {
  /** @param {string} reason @param {string} message */
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}

const INSECURE =
  "Browsers give microphone and live sound to secure origins only. Open this page by https, or at localhost.";

/** Throws SoundError on a page that came over plain http from another machine. */
export function demandSecureOrigin() {
  if (!globalThis.isSecureContext) throw new SoundError("insecure", INSECURE);
}
