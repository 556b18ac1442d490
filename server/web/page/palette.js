/** The colours of the figures, read from the style sheet; they follow light and dark mode and forced colours. */

/** @typedef {{input: string, output: string, damage: string, strike: string, levels: string[]}} Palette */

/** @returns {Palette} */
export function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  return {
    input: colour("input"),
    output: colour("output"),
    damage: colour("damage"),
    strike: colour("strike"),
    levels: [0, 1, 2, 3].map((value) => colour(`level-${value}`)),
  };
}
