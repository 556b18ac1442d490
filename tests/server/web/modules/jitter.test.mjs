/** The buffer before the speaker, by a clock that the test turns. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { JitterBuffer } from "../../../../server/web/jitter.js";

const RATE = 24000;
const STEP = 48;
const BURST = 2400; // 100 ms
const sound = (at) => 0.5 * Math.sin((2 * Math.PI * 200 * at) / RATE);
const burst = (position, count = BURST) => Float32Array.from({ length: count }, (_, i) => sound(position + i));

/** Plays for some seconds; bursts come at their time in the stream, later by `lateMs` of their number. */
class Room {
  constructor({ live = true, lateMs = () => 0 } = {}) {
    this.buffer = new JitterBuffer(RATE, live);
    this.lateMs = lateMs;
    this.now = 0;
    this.pushed = 0;
    this.heard = [];
    this.positions = [];
  }

  play(seconds, { silent = false } = {}) {
    for (const end = this.now + seconds; this.now < end - 1e-9; this.now += STEP / RATE) {
      while (!silent && this.now >= (this.pushed + 1) * 0.1 + this.lateMs(this.pushed) / 1000) {
        this.buffer.push(burst(this.pushed * BURST), this.pushed * BURST, this.now);
        this.pushed += 1;
      }
      const output = new Float32Array(STEP);
      this.positions.push(this.buffer.position);
      this.buffer.pull(output, this.now);
      this.heard.push(...output);
    }
  }

  /** Milliseconds from the arrival of a burst to its sound, the age of what is played now. */
  get behindMs() {
    return (this.now - this.buffer.position / RATE - 0.1) * 1000;
  }

  /** The largest step between neighbours: a click is larger than the sound's own slope. */
  get steepest() {
    return this.heard.reduce((most, sample, i) => Math.max(most, Math.abs(sample - (this.heard[i - 1] ?? 0))), 0);
  }
}

const SLOPE = (0.5 * 2 * Math.PI * 200) / RATE + 0.5 / (0.005 * RATE);

test("an even flow is played whole, 40 ms behind its arrival, and never cut", () => {
  const room = new Room();
  room.play(10);
  const { underruns, removed, played } = room.buffer;
  assert.deepEqual([underruns, removed], [0, 0]);
  const behind = room.pushed * BURST - room.buffer.buffered - played;
  assert.equal(behind, 0);
  const start = room.heard.findIndex((sample) => sample !== 0) / RATE;
  assert.ok(start >= 0.14 && start < 0.143, `${start} s`);
  assert.ok(room.steepest < SLOPE, `${room.steepest}`);
});

test("every sample is what was pushed at its position", () => {
  const room = new Room();
  room.play(2);
  for (let step = 200; step < room.positions.length; step += 37) {
    for (let i = 0; i < STEP; i++) {
      assert.ok(Math.abs(room.heard[step * STEP + i] - sound(room.positions[step] + i)) < 1e-6);
    }
  }
});

test("a late burst is one underrun without a click, and the next is none", () => {
  const room = new Room({ lateMs: (n) => (n === 20 || n === 50 ? 90 : 0) });
  room.play(4);
  assert.equal(room.buffer.underruns, 1);
  room.play(3);
  assert.equal(room.buffer.underruns, 1);
  assert.ok(room.steepest < SLOPE, `${room.steepest}`);
});

test("after a stall it plays on at once, delayed by no more than the stall", () => {
  const room = new Room({ lateMs: (n) => (n >= 20 && n < 23 ? 300 - 100 * (n - 20) : 0) });
  room.play(4);
  const delay = room.pushed * 0.1 - (room.buffer.position - room.buffer.buffered) / RATE;
  assert.equal(room.buffer.underruns, 1);
  assert.ok(room.buffer.buffered / RATE < 0.1 + 0.3 + 0.05, `${room.buffer.buffered} ${delay}`);
});

test("a delay that is no longer needed is removed in inaudible pieces", () => {
  const room = new Room({ lateMs: (n) => (n === 20 ? 250 : 0) });
  room.play(5);
  const before = room.buffer.slackMs;
  room.play(25);
  assert.ok(before > 200, `${before}`);
  assert.ok(room.buffer.slackMs < 80, `${room.buffer.slackMs}`);
  assert.ok(room.buffer.removed > 0.15 * RATE);
  assert.ok(room.steepest < SLOPE, `${room.steepest}`);
});

test("without live nothing is shortened", () => {
  const room = new Room({ live: false });
  for (let n = 0; n < 100; n++) room.buffer.push(burst(n * BURST), n * BURST, 0);
  room.play(10.5, { silent: true });
  assert.equal(room.buffer.removed, 0);
  assert.equal(room.buffer.played, 100 * BURST);
});

test("finish plays a short utterance without waiting, and its end is no underrun", () => {
  const room = new Room();
  room.buffer.push(burst(0, 480), 0, 0);
  room.buffer.finish();
  room.play(0.1, { silent: true });
  assert.equal(room.buffer.played, 480);
  assert.equal(room.buffer.underruns, 0);
  assert.equal(room.buffer.playing, false);
  assert.ok(room.steepest < SLOPE);
});

test("clear is silence within 5 ms, without a click, and the next utterance is played", () => {
  const room = new Room();
  room.play(1);
  room.buffer.clear();
  const at = room.heard.length;
  room.play(0.05, { silent: true });
  assert.ok(room.heard.slice(at + 0.005 * RATE + STEP).every((sample) => sample === 0));
  assert.ok(room.steepest < SLOPE);
  assert.equal(room.buffer.underruns, 0);
  room.play(1);
  assert.ok(room.buffer.playing);
});

/** Bursts from `first` on for `seconds` came all at once, `seconds` late; those after them were skipped at the source. */
const blocked = (first, seconds) => (n) => (n < first ? 0 : Math.max(0, seconds * 1000 - 100 * (n - first)));

for (const seconds of [0.6, 1.5, 5]) {
  test(`live: ${seconds} s after which all comes at once leave no delay 1 s later, and no click`, () => {
    const room = new Room({ lateMs: blocked(30, seconds) });
    room.play(3 + seconds + 1);
    assert.ok(room.behindMs < 80, `${room.behindMs} ms`);
    assert.ok(room.buffer.skipped > 0.1 * RATE);
    assert.ok(room.buffer.underruns <= 1, `${room.buffer.underruns}`);
    room.play(6);
    assert.ok(room.buffer.underruns <= 1, `${room.buffer.underruns}`);
    assert.ok(room.behindMs < 80, `${room.behindMs} ms`);
    assert.ok(room.steepest < SLOPE, `${room.steepest}`);
  });

  test(`live: ${seconds} s that were skipped at the source leave no delay`, () => {
    const late = (n) => (n < 30 ? 0 : seconds * 1000);
    const room = new Room({ lateMs: late });
    room.play(3 + seconds + 1);
    assert.ok(room.behindMs - seconds * 1000 < 60, `${room.behindMs} ms`);
    room.play(6);
    assert.equal(room.buffer.underruns, 1);
    assert.ok(room.behindMs - seconds * 1000 < 60, `${room.behindMs} ms`);
  });
}

test("live: more than 0.3 s of surplus in mid-play are skipped at once, without a click", () => {
  const room = new Room({ lateMs: (n) => (n < 20 ? 400 : 0) });
  room.play(3);
  assert.ok(room.buffer.skipped > 0.3 * RATE, `${room.buffer.skipped}`);
  assert.ok(room.behindMs < 500, `${room.behindMs} ms`);
  assert.equal(room.buffer.underruns, 0);
  assert.ok(room.steepest < 1.5 * SLOPE, `${room.steepest}`);
});

test("without live nothing is skipped, however late it comes", () => {
  const room = new Room({ live: false, lateMs: blocked(30, 1.5) });
  room.play(8);
  assert.deepEqual([room.buffer.skipped, room.buffer.removed], [0, 0]);
});
