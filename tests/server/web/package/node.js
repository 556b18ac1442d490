import { Refused, connect } from "neucodec-streaming";

const [url, key] = process.argv.slice(2);
const samples = Float32Array.from({ length: 30 * 16000 }, (_, i) => 0.3 * Math.sin(i / 7));
const tokens = [];
const session = await connect({
  kind: "encode",
  url,
  accessToken: () => key,
  onOutput: (more) => tokens.push(...more),
});
await session.send(samples);
await session.flush();
const stop = new AbortController();
stop.abort(new Error("no time"));
const aborted = await connect({ kind: "encode", url, signal: stop.signal }).catch((error) => error.message);
const later = new AbortController();
const other = await connect({ kind: "encode", url, accessToken: key, signal: later.signal });
later.abort();
const closed = await other.flush().catch((error) => error.code);
const unreachable = await connect({ kind: "encode", url: "ws://127.0.0.1:9" }).catch((error) => error.code);
const wrong = await connect({ kind: "encode", url, accessToken: "wrong" }).catch(
  (error) => error instanceof Refused && error.code,
);
console.log(
  JSON.stringify({ tokens: tokens.length, totals: await session.end(), aborted, closed, unreachable, wrong }),
);
