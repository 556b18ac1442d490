/** What the head of resampler.js says of it, measured with sines. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Resampler } from "../../../../server/web/resampler.js";

const RATES = [
  [48000, 16000],
  [44100, 16000],
  [24000, 48000],
  [24000, 44100],
  [8000, 16000],
];

const sine = (hz, rate, count) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin((2 * Math.PI * hz * i) / rate));
const decibels = (power) => 10 * Math.log10(power + 1e-30);
/** Mean power of the middle, where neither the start nor the end is felt. */
const power = (samples) => samples.slice(800, -800).reduce((sum, x) => sum + x * x, 0) / (samples.length - 1600);

for (const [from, to] of RATES) {
  const lower = Math.min(from, to) / 2;

  test(`${from} to ${to}: flat to 0.85 of the lower Nyquist frequency`, () => {
    for (const share of [0.01, 0.3, 0.6, 0.85]) {
      const output = new Resampler(from, to).feed(sine(share * lower, from, from / 2));
      assert.ok(Math.abs(decibels(power(output) * 2)) < 0.02, `${share}: ${decibels(power(output) * 2)} dB`);
    }
  });

  test(`${from} to ${to}: nothing beyond the lower Nyquist frequency`, () => {
    if (from > to) {
      for (const hz of [lower * 1.001, lower * 1.2, from / 2 - 100]) {
        const loudness = decibels(power(new Resampler(from, to).feed(sine(hz, from, from / 2))) * 2);
        assert.ok(loudness < -80, `${hz} Hz: ${loudness} dB`);
      }
    } else {
      const hz = 0.8 * lower; // its image lies at from - hz
      const output = new Resampler(from, to).feed(sine(hz, from, from / 2));
      const wave = sine(hz, to, output.length);
      const rest = output.map((sample, i) => sample - wave[i]);
      assert.ok(decibels(power(rest) * 2) < -60, `${decibels(power(rest) * 2)} dB`);
    }
  });

  test(`${from} to ${to}: any cut gives the same bits, and a sample stays at its time`, () => {
    const input = sine(440, from, 9000);
    const whole = new Resampler(from, to);
    const expected = [...whole.feed(input), ...whole.flush()];
    assert.ok(Math.abs(expected.length - (input.length * to) / from) <= 1, `${expected.length}`);
    const cut = new Resampler(from, to);
    const given = [];
    for (let at = 0, size = 1; at < input.length; at += size, size = (size * 7 + 3) % 301) {
      given.push(...cut.feed(input.subarray(at, at + size)));
    }
    assert.deepEqual([...given, ...cut.flush()], expected);
    const wave = sine(440, to, expected.length);
    for (let i = 200; i < expected.length - 200; i++) assert.ok(Math.abs(expected[i] - wave[i]) < 1e-3);
  });
}

test("the same rate changes nothing", () => {
  const input = sine(440, 16000, 1000);
  assert.deepEqual(new Resampler(16000, 16000).feed(input), input);
});

test("a constant stays one", () => {
  const output = new Resampler(44100, 16000).feed(new Float32Array(9000).fill(0.5));
  for (const sample of output.slice(100)) assert.ok(Math.abs(sample - 0.5) < 1e-6);
});
