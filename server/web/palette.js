/** The colours of the pictures, out of the style sheet: they follow light and dark. */

/**
 * @typedef {{input: string, output: string, damage: string, levels: string[], loudness: Uint32Array}} Palette
 *   `loudness`: 256 colours as little-endian RGBA
 */

const LOUDNESS_STOPS = 5;
const LEVEL_VALUES = 4;

/** @returns {Palette} */
export function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  const stops = Array.from({ length: LOUDNESS_STOPS }, (_, i) => channels(colour(`loudness-${i}`)));
  return {
    input: colour("input"),
    output: colour("output"),
    damage: colour("damage"),
    levels: Array.from({ length: LEVEL_VALUES }, (_, i) => colour(`level-${i}`)),
    loudness: Uint32Array.from({ length: 256 }, (_, i) => between(stops, i / 255)),
  };
}

/** @param {string} hex "#rrggbb" */
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** @param {number[][]} stops @param {number} share */
function between(stops, share) {
  const at = Math.min(stops.length - 2, Math.floor(share * (stops.length - 1)));
  const part = share * (stops.length - 1) - at;
  const [red, green, blue] = stops[at].map((value, i) => Math.round(value + (stops[at + 1][i] - value) * part));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
