/** Tokens as text, in the notation of language models: `<|speech_12345|>`. */

const TAG = /<\|speech_(\d{1,6})\|>/g;
/** Length of the longest tag. */
const MAX_TAG_LENGTH = "<|speech_123456|>".length;

/** @param {ArrayLike<number>} tokens */
export const tokensToText = (tokens) => Array.from(tokens, (token) => `<|speech_${token}|>`).join("");

/**
 * Returns the tokens in a text; other text is ignored. Throws RangeError for a number above 65535.
 * @param {string} text
 */
export const tokensFromText = (text) => new TokenReader().feed(text);

/** Finds tokens in a text that arrives in pieces, which may be cut anywhere. */
export class TokenReader {
  constructor() {
    this._rest = "";
  }

  /**
   * Returns the tokens that this piece completes. Throws RangeError for a number above 65535.
   * @param {string} piece
   */
  feed(piece) {
    const text = this._rest + piece;
    const found = [...text.matchAll(TAG)];
    const last = found.at(-1);
    this._rest = text.slice(last ? last.index + last[0].length : 0).slice(1 - MAX_TAG_LENGTH);
    return Uint16Array.from(found, ([, digits]) => {
      if (Number(digits) > 0xffff) throw new RangeError(`token ${digits} is above 65535`);
      return Number(digits);
    });
  }
}
