/** Why a session was refused: the server's reason, or that it does not answer. */

import { parse } from "./protocol.js";

const DEADLINE_MS = 10000;
/** Status of a plain HTTP request to a session's URL if the server would accept the session. */
const UPGRADE_REQUIRED = 426;
/** @type {Record<string, string>} messages for users, in place of the server's messages for developers */
const WORDS = {
  unreachable: "The server does not answer.",
  full: "The server is full at the moment. Please try again later.",
  no_websocket: "The server answers, but WebSocket connections fail: a proxy in between must forward them.",
};

/**
 * The session was refused or has ended. `code` is one of docs/protocol.md or docs/security.md, or "unreachable",
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
 * Returns why the server refused. Browsers hide the reason of a refused WebSocket, so it requests the same URL by HTTP.
 * @param {URL} address URL of the WebSocket
 */
export async function why(address) {
  try {
    const response = await fetch(plain(address), { signal: AbortSignal.timeout(DEADLINE_MS) });
    if (response.status === UPGRADE_REQUIRED) return new Refused("no_websocket");
    const { code, message } = parse(await response.text());
    return new Refused(code, message, Number(response.headers.get("Retry-After")));
  } catch {
    return new Refused("unreachable");
  }
}

/**
 * Rejects if the server does not answer by HTTP. Firefox waits before each WebSocket after one that failed, longer each
 * time, up to a minute; a failed request has no such effect.
 * @param {URL} server base of the server's paths, as ws: or wss:
 */
export async function reach(server) {
  try {
    await fetch(plain(new URL("./healthz", server)), { mode: "no-cors", signal: AbortSignal.timeout(DEADLINE_MS) });
  } catch {
    throw new Refused("unreachable");
  }
}

/** The HTTP URL of a WebSocket's URL. @param {URL} address */
function plain(address) {
  const url = new URL(address);
  url.protocol = url.protocol === "wss:" ? "https:" : "http:";
  return url;
}
