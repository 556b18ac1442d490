/** Tokens as eight levels of four values each, in files and links, and over a damaging channel. */

import { tokensFromBytes, tokensToBytes } from "../payload.js";
import { tokensFromText } from "../token-text.js";

const TOKEN_BITS = 16;
/** The token whose levels all have the middle value. */
const MIDDLE_TOKEN = 0xaaaa;
const MIDDLE = 2;
const HIGHEST = 3;

/**
 * Reads tokens from a file: <|speech_N|> anywhere in its text, otherwise (only in a .tok file) raw little-endian
 * uint16. Throws RangeError if it has no valid tokens.
 * @param {Uint8Array} bytes @param {string} name of the file
 */
export function tokensFromFile(bytes, name) {
  const tokens = tokensFromText(new TextDecoder().decode(bytes));
  if (tokens.length > 0) return tokens;
  if (!/\.tok$/i.test(name)) throw new RangeError("it contains no <|speech_N|>");
  if (bytes.length === 0) throw new RangeError("the file is empty");
  if (bytes.length % 2) throw new RangeError(`${bytes.length} bytes are not a whole number of 2-byte tokens`);
  return tokensFromBytes(bytes);
}

/** Returns the URL fragment that contains tokens. @param {Uint16Array} tokens @param {string} model */
export function fragmentOf(tokens, model) {
  const base64 = btoa(String.fromCharCode(...tokensToBytes(tokens)));
  return `#${new URLSearchParams({ model })}&tokens=${base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`;
}

/** Returns the tokens and the model of a fragment; null if it contains none. @param {string} fragment */
export function tokensFromFragment(fragment) {
  const fields = new URLSearchParams(fragment.slice(1));
  const base64 = fields.get("tokens");
  if (!base64 || !/^[\w-]+$/.test(base64)) return null;
  try {
    const bytes = bytesFromBase64(base64.replaceAll("-", "+").replaceAll("_", "/"));
    return bytes.length % 2 ? null : { tokens: tokensFromBytes(bytes), model: fields.get("model") ?? "" };
  } catch {
    return null;
  }
}

/** @param {string} base64 */
export const bytesFromBase64 = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/**
 * Conceals a gap of `count` tokens; the twin of gap_tokens in streaming/protocol/concealment.py. `before` is the last
 * known token, `distance` frames before the first lost one; `after` is the next known token. MIDDLE_TOKEN if unknown.
 * @param {number} before @param {number} count @param {number} after @param {number} distance
 */
export function gapTokens(before, count, after, distance = 1) {
  return Array.from({ length: count }, (_, place) => {
    let token = 0;
    for (let shift = 0; shift < TOKEN_BITS; shift += 2) {
      const pull =
        (((before >> shift) & HIGHEST) - MIDDLE) * 0.5 ** (distance + place) +
        (((after >> shift) & HIGHEST) - MIDDLE) * 0.5 ** (count - place);
      token |= Math.min(Math.max(Math.floor(MIDDLE + pull + 0.5), 0), HIGHEST) << shift;
    }
    return token;
  });
}

/** A channel between encoder and decoder that flips bits and loses tokens. */
export class Channel {
  /** @param {() => number} random returns numbers from 0 to 1 */
  constructor(random = Math.random) {
    /** Fraction of flipped bits, and of lost tokens. */
    this.flip = 0;
    this.lose = 0;
    this._random = random;
    /** The last token that arrived, and the number of tokens lost since. */
    this._known = MIDDLE_TOKEN;
    this._distance = 0;
  }

  /**
   * Transmits a packet of tokens. Losses are known to the receiver and concealed at once, from the tokens of this
   * packet and the last one that arrived before it.
   * @param {Uint16Array} tokens
   * @returns {{tokens: Uint16Array, damage: Uint16Array, lost: Uint8Array}} `damage`: the bits that differ from those
   *   sent; `lost`: 1 where a token did not arrive
   */
  pass(tokens) {
    const arrived = Uint16Array.from(tokens);
    const lost = new Uint8Array(tokens.length);
    let gap = 0;
    tokens.forEach((token, i) => {
      if (this._random() < this.lose) {
        lost[i] = 1;
        gap += 1;
        return;
      }
      let mask = 0;
      for (let bit = 0; this.flip > 0 && bit < TOKEN_BITS; bit++) mask |= Number(this._random() < this.flip) << bit;
      arrived[i] = token ^ mask;
      arrived.set(gapTokens(this._known, gap, arrived[i], this._distance + 1), i - gap);
      [this._known, this._distance, gap] = [arrived[i], 0, 0];
    });
    arrived.set(gapTokens(this._known, gap, MIDDLE_TOKEN, this._distance + 1), arrived.length - gap);
    this._distance += gap;
    return { tokens: arrived, damage: arrived.map((token, i) => token ^ tokens[i]), lost };
  }
}
