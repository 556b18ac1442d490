/** The client in protocol.js replays the conversations that the Python client is tested with. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { ClientSession, LocalProtocolError, ProtocolError } from "../../../../server/web/protocol.js";

const { conversations, formats } = JSON.parse(
  readFileSync(new URL("../../../data/protocol-vectors.json", import.meta.url)),
);

const units = ([from, to]) => new Uint8Array(Uint16Array.from({ length: to - from }, (_, i) => from + i).buffer);
const READY = { type: "ready", session: "s1", model: "mini", profile: "default", frame_ms: 20, chunk_frames: 5,
  lookahead_frames: 5, latency_ms: 215, capacity: 8, resume: { token: "t1", seconds: 30 }, resumed: "new" }; // prettier-ignore

/** What one step gives: the bytes or text that are sent, or the event. */
function take(session, step) {
  if (step.client_units) return session.sendPayload(units(step.client_units));
  if (step.client) return JSON.parse(session.send(step.client));
  const heard = step.server_units ?? step.crossing_units;
  if (heard) return session.receive(units(heard));
  const message = step.server ?? { ...READY, ...formats[session.kind], ...step.ready };
  return session.receive(JSON.stringify(message));
}

function expected(step) {
  if (step.ignored || step.crossing_units) return null;
  const payload = step.client_units ?? step.heard ?? step.server_units;
  return payload ? units(payload) : (step.client ?? step.server);
}

for (const { name, kind, steps, after } of conversations) {
  test(name, () => {
    const session = new ClientSession(kind);
    for (const step of steps) {
      if (step.error) {
        assert.throws(() => take(session, step), step.error === "remote" ? ProtocolError : LocalProtocolError);
        return;
      }
      if (step.lost) {
        session.lose();
        const query = Object.entries(session.resuming(!step.live)).map(([field, value]) => [field, String(value)]);
        assert.deepEqual(Object.fromEntries(query), step.lost);
        continue;
      }
      if (step.arrives === false && !step.client && !step.client_units) continue;
      const given = take(session, step);
      if (step.ready) assert.equal(given.type, "ready");
      else assert.deepEqual(given, expected(step));
      if (step.max_age) assert.equal(session.dropStale(step.max_age), step.dropped);
      if (step.unsent) {
        const wanted = step.unsent.map((item) => (Array.isArray(item) ? units(item) : item));
        const sent = session.unsent.map((item) => (typeof item === "string" ? JSON.parse(item) : item));
        assert.deepEqual(sent, wanted);
      }
    }
    if (after) assert.deepEqual({ input: session.inputPosition, output: session.outputPosition }, after);
  });
}

test("an unknown kind is named in the error", () => assert.throws(() => new ClientSession("speak"), /"speak" is unknown/));
