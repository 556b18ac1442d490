import { Speaker, connect, openContext, tokensFromText } from "neucodec-streaming";

window.play = async (url, text, workletUrl) => {
  const [heard, onPlayback] = [[], (playback) => heard.push(...playback.heard)];
  const speaker = await Speaker.open(openContext(), { onPlayback, workletUrl });
  const session = await connect({ kind: "decode", url, onOutput: (audio, position) => speaker.push(audio, position) });
  await session.send(tokensFromText(text));
  await session.flush();
  await speaker.finish();
  return { heard, totals: await session.end() };
};
