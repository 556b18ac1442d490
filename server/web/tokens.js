/** Tokens as numbers, as eight levels of four values each, and as text and files. */

export const LEVELS = 8;
export const TOKEN_BITS = 16;
/** The token whose levels are all in the middle: what stands for a lost one before the first that arrived. */
const NEUTRAL = 0xaaaa;
const TAG = /<\|speech_(\d{1,6})\|>/g;

/** The eight levels of a token, 0 to 3, the first one first. @param {number} token */
export const levelsOf = (token) => Array.from({ length: LEVELS }, (_, level) => (token >> (2 * level)) & 3);

/**
 * Tokens out of a file: raw little-endian uint16, or text with <|speech_N|>. Throws RangeError with what is wrong.
 * @param {Uint8Array} bytes
 */
export function tokensFromFile(bytes) {
  const text = new TextDecoder().decode(bytes);
  const numbers = [...text.matchAll(TAG)].map(([, number]) => Number(number));
  if (numbers.length > 0) {
    const wrong = numbers.find((number) => number > 0xffff);
    if (wrong !== undefined) throw new RangeError(`token ${wrong} is above 65535`);
    return Uint16Array.from(numbers);
  }
  if (bytes.length === 0) throw new RangeError("the file is empty");
  if (bytes.length % 2) throw new RangeError(`${bytes.length} bytes are no whole number of tokens of 2 bytes`);
  return Uint16Array.from({ length: bytes.length / 2 }, (_, i) => bytes[2 * i] | (bytes[2 * i + 1] << 8));
}

/** The way between encoder and decoder: it may flip bits and lose tokens. */
export class Channel {
  /** @param {() => number} random from 0 to 1 */
  constructor(random = Math.random) {
    /** Share of the bits that are flipped, and of the tokens that are lost. */
    this.flip = 0;
    this.lose = 0;
    this._random = random;
    this._last = NEUTRAL;
  }

  /**
   * Tokens as they arrive. A lost one is known to be lost, and the last that arrived is said again.
   * @param {Uint16Array} tokens
   * @returns {{tokens: Uint16Array, damage: Uint16Array}} `damage`: the bits that are not what was sent
   */
  pass(tokens) {
    const arrived = tokens.map((token) => {
      if (this._random() < this.lose) return this._last;
      let mask = 0;
      for (let bit = 0; this.flip > 0 && bit < TOKEN_BITS; bit++) mask |= Number(this._random() < this.flip) << bit;
      this._last = token ^ mask;
      return this._last;
    });
    return { tokens: arrived, damage: arrived.map((token, i) => token ^ tokens[i]) };
  }
}
