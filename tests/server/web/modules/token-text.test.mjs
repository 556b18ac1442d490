/** Tokens as text, however the text is cut. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { TokenReader, tokensFromText, tokensToText } from "../../../../server/web/token-text.js";

const TOKENS = [0, 7, 65535, 12345];
const TEXT = `Hello <|speech_0|><|speech_7|>, <|speech_|> <|s<|speech_65535|>\n<|speech_012345|>.`;

test("tokens go to text and back", () => {
  assert.equal(tokensToText(Uint16Array.of(1, 65535)), "<|speech_1|><|speech_65535|>");
  assert.deepEqual([...tokensFromText(tokensToText(TOKENS))], TOKENS);
});

test("text without tags is ignored", () => assert.deepEqual([...tokensFromText(TEXT)], TOKENS));

for (const size of [1, 2, 3, 5, 16]) {
  test(`pieces of ${size} characters give the same tokens`, () => {
    const reader = new TokenReader();
    const found = [];
    for (let at = 0; at < TEXT.length; at += size) found.push(...reader.feed(TEXT.slice(at, at + size)));
    assert.deepEqual(found, TOKENS);
  });
}

test("a reader keeps no more than the beginning of a tag", () => {
  const reader = new TokenReader();
  reader.feed("<|speech_".repeat(100000));
  assert.ok(reader._rest.length < 20);
});

test("invalid tokens are refused", () => {
  assert.throws(() => tokensFromText("<|speech_65536|>"), /65536/);
});
