/** A picture that moves to the left: the newest columns at the right, 20 ms each, drawn from a ring of columns. */

/** Seconds that are shown. */
export const SECONDS = 6;
const COLUMNS = SECONDS * 50;

/** The last columns of any kind, oldest first. @template Column */
class Columns {
  constructor() {
    /** @type {Column[]} */
    this._ring = [];
    this._next = 0;
  }

  /** @param {Column} column */
  add(column) {
    this._ring[this._next] = column;
    this._next = (this._next + 1) % COLUMNS;
  }

  /** @param {(column: Column, x: number) => void} draw */
  forEach(draw) {
    for (let age = 1; age <= this._ring.length; age++) {
      draw(this._ring[(this._next - age + COLUMNS) % COLUMNS], COLUMNS - age);
    }
  }
}

/** A canvas whose pixels follow its size on the page. */
class Canvas {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  }

  /** Clears it and returns its size in device pixels. */
  begin() {
    const scale = Math.min(2, window.devicePixelRatio);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((size) => Math.round(size * scale));
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.context.clearRect(0, 0, width, height);
    return { width, height };
  }
}

/** A waveform: highest and lowest sample of each piece of a column. */
export class WaveStrip extends Canvas {
  /** @param {HTMLCanvasElement} canvas @param {"input" | "output"} colour */
  constructor(canvas, colour) {
    super(canvas);
    this._colour = colour;
    /** @type {Columns<number[]>} */
    this._columns = new Columns();
  }

  /** @param {Float32Array} samples of 20 ms */
  add(samples) {
    const quarter = samples.length / 4;
    this._columns.add(
      Array.from({ length: 4 }, (_, i) => {
        const piece = samples.subarray(i * quarter, (i + 1) * quarter);
        return piece.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
      }),
    );
  }

  /** @param {import("./palette.js").Palette} palette */
  draw(palette) {
    const { width, height } = this.begin();
    const unit = width / COLUMNS / 4;
    this.context.fillStyle = palette[this._colour];
    this._columns.forEach((peaks, x) => {
      peaks.forEach((peak, i) => {
        const half = Math.max(0.5, Math.min(1, Math.sqrt(peak)) * 0.48 * height);
        this.context.fillRect((x * 4 + i) * unit, height / 2 - half, Math.max(unit * 0.8, 0.75), half * 2);
      });
    });
  }
}

/** A spectrogram: columns of loudness, 0 to 255, the lowest row first. */
export class SpectrumStrip extends Canvas {
  /** @param {HTMLCanvasElement} canvas @param {number} rows */
  constructor(canvas, rows) {
    super(canvas);
    this._rows = rows;
    /** @type {Columns<Uint8Array>} */
    this._columns = new Columns();
    this._picture = new OffscreenCanvas(COLUMNS, rows);
    this._pixels = new ImageData(COLUMNS, rows);
  }

  /** @param {Uint8Array} column */
  add(column) {
    this._columns.add(column);
  }

  /** @param {import("./palette.js").Palette} palette */
  draw(palette) {
    const { width, height } = this.begin();
    const pixels = new Uint32Array(this._pixels.data.buffer).fill(palette.loudness[0]);
    this._columns.forEach((column, x) => {
      for (let row = 0; row < this._rows; row++)
        pixels[(this._rows - 1 - row) * COLUMNS + x] = palette.loudness[column[row]];
    });
    const picture = /** @type {OffscreenCanvasRenderingContext2D} */ (this._picture.getContext("2d"));
    picture.putImageData(this._pixels, 0, 0);
    this.context.drawImage(this._picture, 0, 0, width, height);
  }
}

/** Tokens: eight levels of four values each; a level that the channel changed is marked. */
export class TokenStrip extends Canvas {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    super(canvas);
    /** @type {Columns<{token: number, damage: number} | null>} */
    this._columns = new Columns();
  }

  /** @param {{token: number, damage: number} | null} token */
  add(token) {
    this._columns.add(token);
  }

  /** @param {import("./palette.js").Palette} palette */
  draw(palette) {
    const { width, height } = this.begin();
    const [wide, high] = [width / COLUMNS, height / 8];
    const gap = Math.min(2, high / 6);
    this._columns.forEach((column, x) => {
      if (column === null) return;
      const left = Math.round(x * wide);
      const cell = Math.max(1, Math.round((x + 1) * wide) - left - (wide >= 3 ? 1 : 0));
      for (let level = 0; level < 8; level++) {
        const value = (column.token >> (2 * level)) & 3;
        const damaged = (column.damage >> (2 * level)) & 3;
        this.context.fillStyle = damaged ? palette.damage : palette.levels[value];
        this.context.fillRect(left, level * high + gap / 2, cell, high - gap);
      }
    });
  }
}
