/** Input, tokens and output on one time axis, redrawn only when something has changed. */

import { readPalette } from "./palette.js";
import { element } from "./dom.js";
import { FRAME_S } from "./take.js";

/** Peaks per second of a waveform. */
const PEAKS = 200;
const BAR_PX = 3;
const LEVELS = 8;
const TICKS_S = [0.5, 1, 2, 5];
const MIN_TICK_PX = 70;

/**
 * @typedef {{seconds: number, input: Float32Array | null, tokens: ArrayLike<number>, damage: ArrayLike<number> | null,
 *   lost: ArrayLike<number> | null, output: Float32Array | null}} View `input` and `output` are peaks; a negative token
 *   is not drawn
 */

export class Figure {
  /** @param {string} name prefix of the elements, as in NAME-input @param {(seconds: number) => void} [onSeek] */
  constructor(name, onSeek) {
    /** @type {View} */
    this._view = { seconds: 1, input: null, tokens: [], damage: null, lost: null, output: null };
    this._asked = false;
    this._palette = readPalette();
    /** The canvases of the three bands, top to bottom. */
    this.canvases = ["input", "tokens", "output"].map((band) => element(`${name}-${band}`));
    this._axis = element(`${name}-axis`);
    this._playhead = element(`${name}-playhead`);
    const again = () => {
      this._palette = readPalette();
      this.show({});
    };
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      window.matchMedia(query).addEventListener("change", again);
    }
    new ResizeObserver(again).observe(element(name));
    for (const canvas of onSeek ? this.canvases : []) {
      const seek = (/** @type {PointerEvent} */ event) => {
        const { left, width } = canvas.getBoundingClientRect();
        onSeek?.((Math.max(0, Math.min(event.clientX - left, width)) / width) * this._view.seconds);
      };
      canvas.addEventListener("pointerdown", seek);
      canvas.addEventListener("pointermove", (event) => event.buttons & 1 && seek(event));
    }
  }

  /** Updates the view. @param {Partial<View>} change */
  show(change) {
    Object.assign(this._view, change);
    if (this._asked) return;
    this._asked = true;
    requestAnimationFrame(() => {
      this._asked = false;
      this._draw();
    });
  }

  /** Moves the playhead. @param {number} seconds */
  point(seconds) {
    const share = Math.min(1, seconds / this._view.seconds);
    this._playhead.style.left = `${share * 100}%`;
  }

  _draw() {
    const [input, tokens, output] = this.canvases.map(begin);
    drawWave(input, this._view.input, this._view.seconds, this._palette.input);
    drawTokens(tokens, this._view, this._palette);
    drawWave(output, this._view.output, this._view.seconds, this._palette.output);
    if (this._axis) drawAxis(this._axis, this._view.seconds);
  }
}

/** The peak of each 5 ms. @param {Float32Array} samples @param {number} rate */
export function peaksOf(samples, rate) {
  const size = rate / PEAKS;
  return Float32Array.from({ length: Math.ceil(samples.length / size) }, (_, i) => {
    let most = 0;
    for (const sample of samples.subarray(i * size, (i + 1) * size)) most = Math.max(most, Math.abs(sample));
    return most;
  });
}

/** Clears a canvas and matches its resolution to its size on the page. @param {HTMLCanvasElement} canvas */
function begin(canvas) {
  const scale = Math.min(3, window.devicePixelRatio);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((size) => Math.round(size * scale));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.clearRect(0, 0, width, height);
  return { context, width, height, scale };
}

/**
 * @param {ReturnType<typeof begin>} canvas
 * @param {Float32Array | null} peaks
 * @param {number} seconds
 * @param {string} colour
 */
function drawWave({ context, width, height, scale }, peaks, seconds, colour) {
  context.fillStyle = colour;
  const bars = Math.max(1, Math.floor(width / scale / BAR_PX));
  const wide = width / bars;
  const perBar = (seconds * PEAKS) / bars;
  for (let bar = 0; peaks !== null && bar < bars && bar * perBar < peaks.length; bar++) {
    const from = Math.floor(bar * perBar);
    const piece = peaks.subarray(from, Math.max(from + 1, Math.floor((bar + 1) * perBar)));
    const peak = piece.reduce((most, each) => Math.max(most, each), 0);
    const half = Math.max(0.75 * scale, Math.min(1, peak) ** 0.6 * 0.58 * height);
    const top = Math.max(0, height / 2 - half);
    context.beginPath();
    context.roundRect(bar * wide, top, wide - scale, height - 2 * top, scale);
    context.fill();
  }
}

/**
 * Draws eight levels of four values per token; damaged cells are struck through.
 * @param {ReturnType<typeof begin>} canvas @param {View} view @param {import("./palette.js").Palette} palette
 */
function drawTokens({ context, width, height, scale }, { seconds, tokens, damage, lost }, palette) {
  const wide = (width * FRAME_S) / seconds;
  const high = height / LEVELS;
  const gap = wide > 3 * scale ? Math.round(scale) : 0;
  const strokes = new Path2D();
  for (let i = 0; i < tokens.length; i++) {
    const left = Math.round(i * wide);
    const broad = Math.max(1, Math.round((i + 1) * wide) - left - gap);
    for (let level = 0; tokens[i] >= 0 && level < LEVELS; level++) {
      const top = level * high;
      context.fillStyle = palette.levels[(tokens[i] >> (2 * level)) & 3];
      context.fillRect(left, top, broad, high - scale);
      if (!lost?.[i] && !(((damage?.[i] ?? 0) >> (2 * level)) & 3)) continue;
      context.fillStyle = palette.damage;
      context.fillRect(left, top, broad, high - scale);
      const inset = Math.min(wide, high) * 0.15;
      strokes.moveTo(left + inset, top + high - inset);
      strokes.lineTo(left + wide - inset, top + inset);
    }
  }
  context.strokeStyle = palette.strike;
  context.lineWidth = Math.max(1, Math.min(2 * scale, wide / 4));
  context.stroke(strokes);
}

/** @param {HTMLElement} axis @param {number} seconds */
function drawAxis(axis, seconds) {
  const step = TICKS_S.find((tick) => (tick / seconds) * axis.clientWidth >= MIN_TICK_PX) ?? TICKS_S[TICKS_S.length - 1];
  const ticks = [];
  for (let tick = 0; tick <= seconds + 1e-9 - step / 4; tick += step) {
    const label = document.createElement("span");
    label.textContent = tick === 0 ? "0" : `${tick} s`;
    label.style.left = `${(tick / seconds) * 100}%`;
    ticks.push(label);
  }
  axis.replaceChildren(...ticks);
}
