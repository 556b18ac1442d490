/** The colours of the figures, read from the style sheet; they follow light and dark mode and forced colours. */

/** @typedef {{input: string, output: string, damage: string, strike: string, levels: string[]}} Palette */

/** @param {string} name of a colour of the style sheet */
export const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** @returns {Palette} */
export const readPalette = () => ({
  input: colourOf("input"),
  output: colourOf("output"),
  damage: colourOf("damage"),
  strike: colourOf("strike"),
  levels: [0, 1, 2, 3].map((value) => colourOf(`level-${value}`)),
});
