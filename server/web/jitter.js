/**
 * An adaptive jitter buffer: audio arrives in bursts and leaves evenly for the speaker. Sans-I/O, with the clock as an
 * argument; it runs in the audio thread (speaker-worklet.js).
 *
 * A packet's lateness is its arrival time relative to its position in the stream. Playback runs `marginMs` behind the
 * earliest packet of the last MEMORY_S; `finish` starts it at once. The margin is the spread of lateness in that time
 * plus SAFETY_MS. When the buffer runs empty, it counts an underrun and fills again. Gain changes by one step a sample,
 * so seams do not click. Every sample keeps its position.
 *
 * A `live` source has a present: the latest sample less the margin. If packets have been early for seconds, the surplus
 * delay is removed inaudibly, in short pieces where the sound repeats itself. If playback is more than 0.3 s behind, it
 * skips to the present. A packet 0.3 s later or earlier than all recent ones ends a stall: older arrivals are
 * forgotten, delayed packets do not count for the margin, and playback continues at the present.
 */

const FADE_MS = 5;
const LEAST_MARGIN_MS = 25;
const MOST_MARGIN_MS = 500;
/** Live playback skips to the present when it is further behind. */
const MAX_BEHIND_MS = 300;
/** For this time after a stall, playback skips when it is more than SURPLUS_MS behind. */
const RECOVERY_S = 1;
const FIRST_MARGIN_MS = 40;
const SAFETY_MS = 15;
const FEW_ARRIVALS = 8;
/** How long arrivals are remembered. */
const MEMORY_S = 6;
/** Tolerated surplus, so that an even flow is never cut. */
const SURPLUS_MS = 30;
/** Length of the compared sounds, and of the crossfade. */
const MATCH_MS = 8;
const SHORTEST_PIECE_MS = 5;
const LONGEST_PIECE_MS = 15;
/** Minimum interval between removed pieces, which makes playback about a tenth faster. */
const BETWEEN_PIECES_MS = 100;

export class JitterBuffer {
  /**
   * @param {number} rate samples a second
   * @param {boolean} live whether audio arrives in real time, so that a surplus is unnecessary delay
   */
  constructor(rate, live) {
    this.rate = rate;
    this.live = live;
    this.playing = false;
    this.underruns = 0;
    /** Samples played, removed in short pieces, and skipped to return to the present. */
    this.played = 0;
    this.removed = 0;
    this.skipped = 0;
    /** Samples waiting to be played. */
    this.buffered = 0;
    /** Milliseconds of sound that were buffered when the latest packet arrived: how long that packet waits. */
    this.slackMs = 0;
    this._fade = this._samples(FADE_MS);
    this._gain = 0;
    this._finished = true;
    this._startsAt = 0;
    this._stalledAt = -Infinity;
    this._arrivedAt = -Infinity;
    this._latestMs = 0;
    /** @type {{samples: Float32Array, position: number}[]} */
    this._blocks = [];
    this._position = 0;
    this._forget();
  }

  /** Stream position of the next sample that `pull` returns. */
  get position() {
    return this._blocks.length ? this._blocks[0].position : this._position;
  }

  /**
   * Adds audio that starts at `position` of the stream.
   * @param {Float32Array} samples
   * @param {number} position
   * @param {number} now seconds
   */
  push(samples, position, now) {
    if (samples.length === 0) return;
    const starts = !this.playing && this.buffered === 0;
    if (starts && this._finished) this._forget();
    this._finished = false;
    this.slackMs = (this.buffered * 1000) / this.rate;
    this._observe(now - position / this.rate, (samples.length * 1000) / this.rate, now);
    if (starts) this._startsAt = this._earliest + position / this.rate + this.marginMs / 1000;
    this._blocks.push({ samples, position });
    this.buffered += samples.length;
    this._position = position + samples.length;
    if (this.live) this._returnToPresent(now);
    this._catchUp(now);
  }

  /** Ends the utterance: plays what is buffered at once, and its end does not count as an underrun. */
  finish() {
    this._finished = true;
  }

  /** Drops everything except the samples needed to fade out. */
  clear() {
    this._blocks = this._take(Math.min(Math.ceil(this._gain * this._fade), this.buffered));
    this.buffered = this._blocks.reduce((sum, block) => sum + block.samples.length, 0);
    this._finished = true;
    this.slackMs = 0;
  }

  /**
   * Fills `output` with audio, and with silence where there is none.
   * @param {Float32Array} output
   * @param {number} now seconds
   */
  pull(output, now) {
    output.fill(0);
    if (!this.playing) {
      if (this.buffered === 0 || (now < this._startsAt && !this._finished)) return;
      if (this.live && now < this._stalledAt + RECOVERY_S) this._skip(this._behind(now));
      this.playing = true;
    }
    let left = this.buffered;
    let at = 0;
    for (const { samples } of this._take(Math.min(output.length, left))) {
      for (const sample of samples) {
        this._gain = Math.min(1, this._gain + 1 / (this._fade + 1), left / (this._fade + 1));
        output[at++] = sample * this._gain;
        left -= 1;
      }
    }
    this.played += at;
    if (this.buffered === 0) {
      this.underruns += this._finished ? 0 : 1;
      this.playing = false;
      this._gain = 0;
    }
  }

  /**
   * Records the lateness of a packet and updates the margin.
   * @param {number} lateness seconds
   * @param {number} durationMs of the packet
   * @param {number} now seconds
   */
  _observe(lateness, durationMs, now) {
    const heldUp = this.live && now - this._arrivedAt < this._latestMs / 2000;
    const stalls = this.live && this._isElsewhere(lateness);
    if (stalls) {
      this._forget();
      this._stalledAt = now;
    }
    [this._arrivedAt, this._latestMs] = [now, durationMs];
    const slackMs = this.playing ? this.slackMs : Infinity;
    this._arrivals.push({ lateness, now, slackMs, counts: !stalls && !heldUp });
    while (this._arrivals[0].now < now - MEMORY_S) this._arrivals.shift();
    const all = this._arrivals.map((arrival) => arrival.lateness);
    const counted = this._arrivals.filter(({ counts }) => counts).map((arrival) => arrival.lateness);
    this._earliest = Math.min(...all);
    const advised = (Math.max(this._earliest, ...counted) - this._earliest) * 1000 + SAFETY_MS;
    const least = all.length < FEW_ARRIVALS ? FIRST_MARGIN_MS : LEAST_MARGIN_MS;
    this.marginMs = Math.min(MOST_MARGIN_MS, Math.max(least, advised));
  }

  /** Whether a packet is far later or far earlier than all recent ones. @param {number} lateness */
  _isElsewhere(lateness) {
    const counted = this._arrivals.filter(({ counts }) => counts);
    const known = (counted.length > 0 ? counted : this._arrivals).map((arrival) => arrival.lateness);
    const far = MAX_BEHIND_MS / 1000;
    return known.length > 0 && (lateness > Math.max(...known) + far || lateness < Math.min(...known) - far);
  }

  _forget() {
    /** @type {{lateness: number, now: number, slackMs: number, counts: boolean}[]} */
    this._arrivals = [];
    /** @type {number} */
    this._earliest = 0;
    /**
     * Delay of playback behind the earliest packets, in milliseconds, adapted to recent arrivals.
     * @type {number}
     */
    this.marginMs = FIRST_MARGIN_MS;
    /** @type {number} */
    this._removedAt = 0;
  }

  /** Samples that playback is behind the present, at most those in excess of the margin. @param {number} now seconds */
  _behind(now) {
    const behind = Math.floor((now - this._earliest - this.marginMs / 1000) * this.rate - this.position);
    return Math.min(behind, this.buffered - this._samples(this.marginMs));
  }

  /** @param {number} now seconds */
  _returnToPresent(now) {
    if (!this.playing) return;
    const recovers = now < this._stalledAt + RECOVERY_S;
    const behind = this._behind(now);
    if (behind > this._samples(recovers ? SURPLUS_MS : MAX_BEHIND_MS)) this._skip(behind);
  }

  /** Skips the next samples, with a crossfade during playback. @param {number} samples */
  _skip(samples) {
    const fade = this.playing ? this._fade : 0;
    const count = Math.min(samples, this.buffered - fade);
    if (count <= fade) return;
    const old = this._take(fade).flatMap((block) => Array.from(block.samples));
    this._take(count - fade);
    let at = 0;
    const seam = this._take(fade).map(({ samples: fresh, position }) => ({
      samples: fresh.map((sample) => sample + ((old[at] - sample) * (fade - at++)) / (fade + 1)),
      position,
    }));
    this._blocks.unshift(...seam);
    this.buffered += fade;
    this._leftOut(count);
    this.skipped += count;
  }

  /** Corrects the recorded slack for samples that will not be played. @param {number} samples */
  _leftOut(samples) {
    for (const arrival of this._arrivals) arrival.slackMs -= (samples * 1000) / this.rate;
  }

  /** Removes one piece if every remembered packet arrived well before it was due. @param {number} now */
  _catchUp(now) {
    if (!this.live || !this.playing) return;
    const settled = now - this._arrivals[0].now > MEMORY_S / 2 || this.slackMs > MOST_MARGIN_MS;
    if (!settled || now < this._removedAt + BETWEEN_PIECES_MS / 1000) return;
    const least = Math.min(...this._arrivals.map((arrival) => arrival.slackMs));
    if (least < LEAST_MARGIN_MS + SURPLUS_MS) return;
    const removed = this._removePiece();
    if (removed === 0) return;
    this._removedAt = now;
    this.removed += removed;
    this._leftOut(removed);
  }

  /**
   * Removes a piece from the newest block, with a crossfade; its length is the shift at which the sound matches itself
   * best. Returns the number of removed samples.
   */
  _removePiece() {
    const { samples, position } = this._blocks[this._blocks.length - 1];
    const match = this._samples(MATCH_MS);
    const [shortest, longest] = [this._samples(SHORTEST_PIECE_MS), this._samples(LONGEST_PIECE_MS)];
    const room = samples.length - match - longest;
    if (room < 0) return 0;
    let [best, length] = [-Infinity, 0];
    for (let shift = shortest; shift <= longest; shift++) {
      let [product, power] = [0, 1e-9];
      for (let i = 0; i < match; i += 2) {
        product += samples[i] * samples[i + shift];
        power += samples[i + shift] ** 2;
      }
      const likeness = product / Math.sqrt(power);
      if (likeness > best) [best, length] = [likeness, shift];
    }
    const head = samples.slice(0, match);
    for (let i = 0; i < match; i++) head[i] += (samples[i + length] - head[i]) * ((i + 1) / (match + 1));
    this._blocks.splice(
      -1,
      1,
      { samples: head, position },
      { samples: samples.subarray(match + length), position: position + match + length },
    );
    this.buffered -= length;
    return length;
  }

  /** Removes and returns the next `count` samples, in pieces with their positions. @param {number} count */
  _take(count) {
    const taken = [];
    this.buffered -= count;
    while (count > 0) {
      const block = this._blocks[0];
      const { samples, position } = block;
      const part = Math.min(count, samples.length);
      taken.push({ samples: samples.subarray(0, part), position });
      if (part === samples.length) this._blocks.shift();
      else this._blocks[0] = { samples: samples.subarray(part), position: position + part };
      count -= part;
    }
    return taken;
  }

  /** @param {number} ms */
  _samples(ms) {
    return Math.round((ms * this.rate) / 1000);
  }
}
