/** The modules of a screen or less: payload, tokens, take, latency's average, and the targets of sessions. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Average } from "../../../../server/web/page/latency.js";
import { audioFromBytes, audioToBytes, tokensFromBytes, tokensToBytes } from "../../../../server/web/payload.js";
import { parse, ProtocolError, target } from "../../../../server/web/protocol.js";
import { History } from "../../../../server/web/page/history.js";
import { equalised, loudness } from "../../../../server/web/page/loudness.js";
import { Take, bytesOf, wavFile } from "../../../../server/web/page/take.js";
import { Channel, fragmentOf, gapTokens, tokensFromFile, tokensFromFragment } from "../../../../server/web/page/tokens.js";

test("audio goes to s16le and back, and what is too loud is clipped", () => {
  const bytes = audioToBytes(Float32Array.of(0, 0.5, -1, 1, 7));
  assert.deepEqual([...bytes], [0, 0, 0, 64, 0, 128, 255, 127, 255, 127]);
  assert.deepEqual([...audioFromBytes(bytes)], [0, 0.5, -1, 32767 / 32768, 32767 / 32768]);
});

test("tokens go to u16le and back", () => {
  assert.deepEqual([...tokensToBytes(Uint16Array.of(1, 65535))], [1, 0, 255, 255]);
  assert.deepEqual([...tokensFromBytes(Uint8Array.of(9, 9, 1, 0, 255, 255).subarray(2))], [1, 65535]);
});

test("a target omits unset fields", () => {
  assert.equal(target("encode"), "/v1/encode");
  assert.equal(target("decode", { profile: null, resume: "a b", received: 0 }), "/v1/decode?resume=a+b&received=0");
});

test("invalid messages are refused", () => {
  for (const text of ["", "[]", "null", '{"type":1}', "\u0000"]) assert.throws(() => parse(text), ProtocolError);
});

test("a token file is raw or text, and others are refused", () => {
  assert.deepEqual([...tokensFromFile(Uint8Array.of(1, 0, 0, 1), "a.tok")], [1, 256]);
  assert.deepEqual([...tokensFromFile(new TextEncoder().encode("<|speech_7|> <|speech_65535|>"), "a.txt")], [7, 65535]);
  for (const wrong of ["", "abc", "<|speech_65536|>"]) {
    assert.throws(() => tokensFromFile(new TextEncoder().encode(wrong), "a.tok"), RangeError);
  }
  assert.throws(() => tokensFromFile(new TextEncoder().encode("four"), "letter.txt"), RangeError);
});

/** Numbers that look random and are always the same. */
function numbers(seed) {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}

test("the channel flips the given share of bits and reports them", () => {
  const channel = new Channel(numbers(7));
  channel.flip = 0.05;
  const sent = Uint16Array.from({ length: 5000 }, (_, i) => i * 13);
  const { tokens, damage } = channel.pass(sent);
  assert.deepEqual(
    tokens.map((token, i) => token ^ damage[i]),
    sent,
  );
  const flipped = damage.reduce((sum, mask) => sum + mask.toString(2).replaceAll("0", "").length, 0);
  assert.ok(Math.abs(flipped / (5000 * 16) - 0.05) < 0.005, `${flipped}`);
});

const { gaps } = JSON.parse(readFileSync(new URL("../../../data/concealment-vectors.json", import.meta.url)));

for (const { before, distance, after, tokens } of gaps) {
  test(`a gap of ${tokens.length} after ${before} and before ${after} is filled as in Python`, () => {
    assert.deepEqual(gapTokens(before, tokens.length, after, distance), tokens);
  });
}

test("a lost token is filled from both sides in its packet, and from the last that arrived in the one before", () => {
  const random = [1, 0, 1, 0, 0, 1].values(); // 0: lost
  const channel = new Channel(() => random.next().value);
  channel.lose = 0.5;
  const first = channel.pass(Uint16Array.of(9, 1, 7, 2));
  assert.deepEqual([...first.tokens], [9, ...gapTokens(9, 1, 7), 7, ...gapTokens(7, 1, 0xaaaa)]);
  assert.deepEqual([...first.lost], [0, 1, 0, 1]);
  assert.deepEqual([...first.damage], [0, first.tokens[1] ^ 1, 0, first.tokens[3] ^ 2]);
  assert.deepEqual([...channel.pass(Uint16Array.of(3, 8)).tokens], [...gapTokens(7, 1, 8, 2), 8]);
});

test("a channel without damage changes nothing", () => {
  const sent = Uint16Array.of(0, 1, 65535);
  assert.deepEqual(new Channel().pass(sent), {
    tokens: sent,
    damage: new Uint16Array(3),
    lost: new Uint8Array(3),
  });
});

test("a history keeps the last two minutes, in order", () => {
  const history = new History();
  history.tokens.add(Uint16Array.from({ length: 6500 }, (_, i) => i));
  const { units } = history.tokens;
  assert.deepEqual([units.length, units[0], units[5999]], [6000, 500, 6499]);
});

test("a take omits skipped input: its input stays in step with its tokens", () => {
  const history = new History();
  const frame = (value) => new Float32Array(320).fill(value / 64);
  for (let i = 0; i < 50; i++) history.addAudio("input", frame(i));
  history.skip("input", 0.4); // frames 15 to 34: the last 15 came through
  history.tokens.add(Uint16Array.from({ length: 30 }, (_, i) => i));
  history.skip("output", 0.4);
  const take = history.take("nano");
  const heard = Array.from({ length: 30 }, (_, i) => Math.round(take.input[320 * i] * 64));
  assert.deepEqual(heard, [...Array(15).keys(), ...Array.from({ length: 15 }, (_, i) => 35 + i)]);
  assert.equal(take.output, null); // to be decoded again
});

test("a take counts its bytes", () => {
  const take = new Take({ title: "", model: "", tokens: new Uint16Array(120), input: new Float32Array(38500) });
  assert.deepEqual([bytesOf(take.tokens.length), take.seconds, take.input.length], [{ pcm: 76800, tokens: 240 }, 2.4, 38400]);
});

test("a WAV has a valid header", async () => {
  const bytes = Buffer.from(await wavFile(Float32Array.of(0.5, -0.5), 24000).arrayBuffer());
  assert.equal(bytes.toString("latin1", 0, 4) + bytes.toString("latin1", 8, 16), "RIFFWAVEfmt ");
  assert.deepEqual([bytes.readUInt32LE(24), bytes.readUInt32LE(40), bytes.length], [24000, 4, 48]);
  assert.deepEqual([bytes.readInt16LE(44), bytes.readInt16LE(46)], [16384, -16384]);
});

test("a link holds the tokens: 500 of them in 1 kB", () => {
  const tokens = Uint16Array.from({ length: 500 }, (_, i) => (i * 7919) % 65536);
  const fragment = fragmentOf(tokens, "nano-2");
  assert.deepEqual(tokensFromFragment(fragment), { tokens, model: "nano-2" });
  assert.ok(fragment.length < (1000 * 4) / 3 + 30, `${fragment.length}`);
  for (const wrong of ["", "#", "#licences", "#tokens=", "#tokens=a*b", "#tokens=AA"]) {
    assert.equal(tokensFromFragment(wrong), null, wrong);
  }
});

/** A sine of that many seconds. */
const tone = (amplitude, rate, seconds = 2) =>
  Float32Array.from({ length: rate * seconds }, (_, i) => amplitude * Math.sin((2 * Math.PI * 997 * i) / rate));

test("loudness is that of ITU-R BS.1770: a sine of 997 Hz at full scale in one channel is -3.01 LUFS", () => {
  for (const rate of [8000, 16000, 24000, 48000]) {
    const measured = loudness(tone(1, rate), rate);
    assert.ok(Math.abs(measured + 3.01) < 0.1, `${rate}: ${measured}`);
  }
});

test("tracks of any rate and level become equally loud, and none is clipped", () => {
  const sounds = [
    { samples: tone(0.5, 16000), rate: 16000 },
    { samples: tone(0.02, 24000), rate: 24000 },
    { samples: tone(0.9, 8000), rate: 8000 },
  ];
  const factors = equalised(sounds);
  const after = sounds.map(({ samples, rate }, i) => loudness(samples.map((each) => each * factors[i]), rate));
  assert.ok(Math.max(...after) - Math.min(...after) < 0.1, `${after}`);
  const peaks = sounds.map(({ samples }, i) => factors[i] * Math.max(...samples));
  assert.ok(Math.max(...peaks) <= 1, `${peaks}`);
  assert.deepEqual(equalised([{ samples: new Float32Array(1600), rate: 16000 }]), [1]);
});

test("an average adapts within seconds at any rate of updates", () => {
  for (const perSecond of [10, 50]) {
    const average = new Average();
    for (let i = 0; i < perSecond; i++) average.add(100, i / perSecond);
    for (let i = 0; i < 2 * perSecond; i++) average.add(200, 1 + i / perSecond);
    assert.ok(average.value > 180 && average.value < 192, `${average.value}`);
  }
});
