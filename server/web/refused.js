/** Why there is no session: what the server says, or that it says nothing. */

import { parse } from "./protocol.js";

const DEADLINE_MS = 10000;
/** What a session's address answers to plain HTTP when the server would have the session. */
const UPGRADE_REQUIRED = 426;
/** @type {Record<string, string>} messages for visitors, in place of the server's for developers */
const WORDS = {
  unreachable: "The server does not answer.",
  full: "The server is full just now: try again when somebody has left.",
  no_websocket: "The server answers, but no WebSocket comes through: a proxy on the way has to pass them on.",
};

/**
 * The server will not have this session. `code` as in docs/protocol.md or docs/security.md, "unreachable",
 * "no_websocket" or "closed".
 */
export class Refused extends Error {
  /** @param {string} code @param {string} [message] @param {number} [retryAfterS] how long the server says to wait */
  constructor(code, message, retryAfterS = 0) {
    super(WORDS[code] ?? message ?? code);
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

/**
 * Why the server refused: a browser tells nothing of a refused WebSocket, so the same address is asked in plain HTTP.
 * @param {URL} address of the WebSocket
 */
export async function why(address) {
  const plain = new URL(address);
  plain.protocol = plain.protocol === "wss:" ? "https:" : "http:";
  try {
    const response = await fetch(plain, { signal: AbortSignal.timeout(DEADLINE_MS) });
    if (response.status === UPGRADE_REQUIRED) return new Refused("no_websocket");
    const { code, message } = parse(await response.text());
    return new Refused(code, message, Number(response.headers.get("Retry-After")));
  } catch {
    return new Refused("unreachable");
  }
}
