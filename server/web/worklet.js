/** The code of the audio thread in one file. Generated: do not edit, but run `python -m tests.server.web.worklet_js`. */
const ATTENUATION_DB = 90;
const TRANSITION = 0.15;
class Resampler {
  constructor(fromRate, toRate) {
    const common = gcd(fromRate, toRate);
    this._up = toRate / common;
    this._down = fromRate / common;
    const lower = Math.min(1, toRate / fromRate); // lower Nyquist frequency relative to the input's
    const beta = 0.1102 * (ATTENUATION_DB - 8.7);
    const taps = (ATTENUATION_DB - 7.95) / (2.285 * Math.PI * TRANSITION * lower);
    this._half = fromRate === toRate ? 0 : Math.ceil(taps / 2);
    this._filters = filters(this._up, this._half, lower * (1 - TRANSITION / 2), beta);
    this._input = new Float32Array(0);
    this._center = 0;
    this._phase = 0;
    this.clear();
  }
  get delay() {
    return this._half;
  }
  clear() {
    this._input = new Float32Array(this._half); // silence before the start
    this._center = this._half;
    this._phase = 0;
  }
  feed(samples) {
    if (this._half === 0) return samples.slice();
    const half = this._half;
    const input = new Float32Array(this._input.length + samples.length);
    input.set(this._input);
    input.set(samples, this._input.length);
    const usable = input.length - half - this._center; // centers with complete input
    const count = usable <= 0 ? 0 : Math.ceil((usable * this._up - this._phase) / this._down);
    const output = new Float32Array(count);
    for (let k = 0; k < count; k++) {
      const filter = this._filters[this._phase];
      let at = this._center - half + 1;
      let sum = 0;
      for (let tap = 0; tap < filter.length; tap++) sum += filter[tap] * input[at++];
      output[k] = sum;
      this._phase += this._down;
      this._center += Math.floor(this._phase / this._up);
      this._phase %= this._up;
    }
    const unneeded = Math.max(0, Math.min(this._center - half, input.length));
    this._input = input.slice(unneeded);
    this._center -= unneeded;
    return output;
  }
  flush() {
    const rest = this.feed(new Float32Array(this._half));
    this.clear();
    return rest;
  }
}
function filters(up, half, cutoff, beta) {
  return Array.from({ length: half ? up : 0 }, (_, phase) => {
    const taps = new Float64Array(2 * half);
    for (let tap = 0; tap < taps.length; tap++) {
      const time = tap - half + 1 - phase / up; // in input samples from the center
      const inside = 1 - (time / half) ** 2;
      const window = inside > 0 ? bessel(beta * Math.sqrt(inside)) / bessel(beta) : 0;
      const angle = Math.PI * cutoff * time;
      taps[tap] = (angle === 0 ? 1 : Math.sin(angle) / angle) * window;
    }
    const sum = taps.reduce((total, tap) => total + tap, 0);
    return taps.map((tap) => tap / sum);
  });
}
function bessel(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > sum * 1e-12; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}
const FADE_MS = 5;
const LEAST_MARGIN_MS = 25;
const MOST_MARGIN_MS = 500;
const MAX_BEHIND_MS = 300;
const RECOVERY_S = 1;
const FIRST_MARGIN_MS = 40;
const SAFETY_MS = 15;
const FEW_ARRIVALS = 8;
const MEMORY_S = 6;
const SURPLUS_MS = 30;
const MATCH_MS = 8;
const SHORTEST_PIECE_MS = 5;
const LONGEST_PIECE_MS = 15;
const BETWEEN_PIECES_MS = 100;
class JitterBuffer {
  constructor(rate, live) {
    this.rate = rate;
    this.live = live;
    this.playing = false;
    this.underruns = 0;
    this.played = 0;
    this.removed = 0;
    this.skipped = 0;
    this.buffered = 0;
    this.slackMs = 0;
    this._fade = this._samples(FADE_MS);
    this._gain = 0;
    this._finished = true;
    this._startsAt = 0;
    this._stalledAt = -Infinity;
    this._arrivedAt = -Infinity;
    this._latestMs = 0;
    this._blocks = [];
    this._position = 0;
    this._forget();
  }
  get position() {
    return this._blocks.length ? this._blocks[0].position : this._position;
  }
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
  finish() {
    this._finished = true;
  }
  clear() {
    this._blocks = this._take(Math.min(Math.ceil(this._gain * this._fade), this.buffered));
    this.buffered = this._blocks.reduce((sum, block) => sum + block.samples.length, 0);
    this._finished = true;
    this.slackMs = 0;
  }
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
  _isElsewhere(lateness) {
    const counted = this._arrivals.filter(({ counts }) => counts);
    const known = (counted.length > 0 ? counted : this._arrivals).map((arrival) => arrival.lateness);
    const far = MAX_BEHIND_MS / 1000;
    return known.length > 0 && (lateness > Math.max(...known) + far || lateness < Math.min(...known) - far);
  }
  _forget() {
    this._arrivals = [];
    this._earliest = 0;
    this.marginMs = FIRST_MARGIN_MS;
    this._removedAt = 0;
  }
  _behind(now) {
    const behind = Math.floor((now - this._earliest - this.marginMs / 1000) * this.rate - this.position);
    return Math.min(behind, this.buffered - this._samples(this.marginMs));
  }
  _returnToPresent(now) {
    if (!this.playing) return;
    const recovers = now < this._stalledAt + RECOVERY_S;
    const behind = this._behind(now);
    if (behind > this._samples(recovers ? SURPLUS_MS : MAX_BEHIND_MS)) this._skip(behind);
  }
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
  _leftOut(samples) {
    for (const arrival of this._arrivals) arrival.slackMs -= (samples * 1000) / this.rate;
  }
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
  _samples(ms) {
    return Math.round((ms * this.rate) / 1000);
  }
}
const MICROPHONE_RATE = 16000;
const FRAME_SAMPLES = 320;
class MicrophoneProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this._resampler = new Resampler(sampleRate, MICROPHONE_RATE);
    this._frame = new Float32Array(FRAME_SAMPLES);
    this._filled = 0;
    this._time = null;
    this._open = true;
    this.port.onmessage = () => {
      this._open = false;
    };
  }
  process(inputs) {
    const channels = inputs[0];
    if (channels.length === 0) {
      this._time = null; // the device delivers nothing, so the time of the next sample is unknown
      return this._open;
    }
    this._time ??= currentTime - this._filled / MICROPHONE_RATE;
    const mono = channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
    for (const sample of this._resampler.feed(mono)) {
      this._frame[this._filled++] = sample;
      if (this._filled < FRAME_SAMPLES) continue;
      this.port.postMessage({ samples: this._frame, time: this._time }, [this._frame.buffer]);
      this._frame = new Float32Array(FRAME_SAMPLES);
      this._filled = 0;
      this._time += FRAME_SAMPLES / MICROPHONE_RATE;
    }
    return this._open;
  }
}
registerProcessor("neucodec-microphone", MicrophoneProcessor);
const HEARD_RATE = 24000;
class SpeakerProcessor extends AudioWorkletProcessor {
  constructor({ processorOptions: { live, rate } }) {
    super();
    this._jitter = new JitterBuffer(rate, live);
    this._resampler = new Resampler(rate, sampleRate);
    this._toHeard = new Resampler(rate, HEARD_RATE);
    this._step = new Float32Array(rate / 500);
    this._ready = new Float32Array(0);
    this._heard = new Float32Array(HEARD_RATE / 50);
    this._filled = 0;
    this._pushed = 0;
    this._ends = [];
    this._open = true;
    this.port.onmessage = ({ data }) => this._obey(data);
  }
  _obey({ samples, position = 0, finish, clear, close }) {
    if (samples) {
      this._pushed += samples.length;
      this._jitter.push(samples, position, currentTime);
    }
    if (finish) this._jitter.finish();
    if (clear) this._jitter.clear();
    if (close) this._open = false;
    if (finish || clear) this._ends.push(this._pushed);
  }
  process(_inputs, outputs) {
    const channels = outputs[0];
    const count = channels[0].length;
    while (this._ready.length < count) {
      this._jitter.pull(this._step, currentTime);
      const more = this._resampler.feed(this._step);
      const ready = new Float32Array(this._ready.length + more.length);
      ready.set(this._ready);
      ready.set(more, this._ready.length);
      this._ready = ready;
      this._record();
    }
    // A copy, not a view: a view gives its array a buffer object, which Firefox frees only in a full collection.
    for (const channel of channels) channel.set(this._ready.slice(0, count));
    this._ready = this._ready.slice(count);
    while (this._ends[0] <= this._pushed - this._jitter.buffered) {
      this._ends.shift();
      this.port.postMessage({ ended: true });
    }
    return this._open;
  }
  _record() {
    for (const sample of this._toHeard.feed(this._step)) {
      this._heard[this._filled++] = sample;
      if (this._filled === this._heard.length) this._tell();
    }
  }
  _tell() {
    const { rate, position, buffered, slackMs, marginMs, underruns, removed, skipped, playing } = this._jitter;
    const heldBack = this._resampler.delay + (this._ready.length * rate) / sampleRate; // pulled, not yet played
    this.port.postMessage(
      {
        heard: this._heard,
        time: currentTime,
        position: position - heldBack,
        bufferedMs: (buffered * 1000) / rate,
        slackMs,
        marginMs,
        underruns,
        removed,
        skipped,
        playing,
      },
      [this._heard.buffer],
    );
    this._heard = new Float32Array(HEARD_RATE / 50);
    this._filled = 0;
  }
}
registerProcessor("neucodec-speaker", SpeakerProcessor);
