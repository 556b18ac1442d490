/** The five moving pictures. Every 20 ms of playback each gets a column; they are drawn when the browser paints. */

import { readPalette } from "./palette.js";
import { element } from "./panels.js";
import { HIGHEST_HZ, Spectrum, heightOf } from "./spectrum.js";
import { SpectrumStrip, TokenStrip, WaveStrip } from "./strip.js";

const ROWS = 88;
const INPUT_RATE = 16000;
const OUTPUT_RATE = 24000;
const MARKED_HZ = [500, 1000, 2000, 4000, 8000];

export class Pictures {
  constructor() {
    this._input = new Spectrum(INPUT_RATE, ROWS);
    this._output = new Spectrum(OUTPUT_RATE, ROWS);
    this._strips = {
      inputWave: new WaveStrip(element("input-wave"), "input"),
      inputSpectrum: new SpectrumStrip(element("input-spectrum"), ROWS),
      outputWave: new WaveStrip(element("output-wave"), "output"),
      outputSpectrum: new SpectrumStrip(element("output-spectrum"), ROWS),
      tokens: new TokenStrip(element("tokens")),
    };
    this._silence = new Float32Array(INPUT_RATE / 50);
    this._palette = readPalette();
    this._stale = true;
    const again = () => {
      this._palette = readPalette();
      this._stale = true;
    };
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    new ResizeObserver(again).observe(document.body);
    for (const scale of document.querySelectorAll(".spectrum")) scale.append(...MARKED_HZ.map(mark));
    const paint = () => {
      if (this._stale) for (const strip of Object.values(this._strips)) strip.draw(this._palette);
      this._stale = false;
      requestAnimationFrame(paint);
    };
    requestAnimationFrame(paint);
  }

  /**
   * The next 20 ms.
   * @param {Float32Array | undefined} said
   * @param {Float32Array} heard
   * @param {{token: number, damage: number} | null} token
   */
  add(said, heard, token) {
    const input = said ?? this._silence;
    this._strips.inputWave.add(input);
    this._strips.inputSpectrum.add(this._input.column(input));
    this._strips.outputWave.add(heard);
    this._strips.outputSpectrum.add(this._output.column(heard));
    this._strips.tokens.add(token);
    this._stale = true;
  }
}

/** @param {number} hz */
function mark(hz) {
  const label = document.createElement("span");
  label.textContent = hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`;
  label.style.bottom = `${(heightOf(Math.min(hz, HIGHEST_HZ)) * 100).toFixed(1)}%`;
  return label;
}
