"""Text to speech of LiveKit Agents without a room: text in pieces, as a model writes it, into a WAV file.

    python -m demos.speak_livekit http://127.0.0.1:8000/v1 ws://127.0.0.1:8765 "Good morning." out.wav

An agent uses AgentSession(stt=..., llm=..., tts=NeuCodecTTS(spec, url)). Needs the extra `livekit`.
"""

import asyncio

from demos.command_line import needs, speak_arguments
from neucodec_streaming.audio import pcm_from_bytes
from neucodec_streaming.client.files import AudioWriter
from neucodec_streaming.protocol.speech_lm import SpeechLMSpec

with needs("livekit"):
    from neucodec_streaming.client.livekit import NeuCodecTTS


async def speak(speech_lm_url: str, url: str, text: str, path: str) -> None:
    async with NeuCodecTTS(SpeechLMSpec(speech_lm_url), url) as tts, tts.stream() as stream:
        with AudioWriter(path, tts.sample_rate) as file:
            for word in text.split():
                stream.push_text(f"{word} ")
            stream.end_input()
            async for audio in stream:
                file.write(pcm_from_bytes(audio.frame.data.tobytes()))


def main() -> None:
    given = speak_arguments("speak_livekit", "Speaks a text into a WAV file by LiveKit's interface.")
    asyncio.run(speak(given.speech_lm_url, given.url, given.text, given.path))


if __name__ == "__main__":
    main()
