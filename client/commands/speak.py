"""`neucodec speak`: text to a language-model server, its tokens to a decoding session, the audio to speaker or file.

It needs httpx, which is in the extra `speak` and not in the base installation and loads when the command runs.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from neucodec_streaming.client.commands.display import LiveRows, print_rows, underruns_of
from neucodec_streaming.client.commands.mqtt_options import Add
from neucodec_streaming.client.commands.sessions import PLAY_AHEAD_SECONDS, open_session
from neucodec_streaming.client.commands.sources import OWN_TOKENS, print_notes
from neucodec_streaming.client.commands.terminal import piped_lines
from neucodec_streaming.client.connection import Connection
from neucodec_streaming.client.devices import Speaker
from neucodec_streaming.client.errors import ClientError
from neucodec_streaming.client.files import AudioWriter
from neucodec_streaming.client.pipes import PIPE, is_standard_output, is_stream, name_of, refuse_audio_to_terminal
from neucodec_streaming.config import FRAME_MS
from neucodec_streaming.lazy import missing_extra
from neucodec_streaming.protocol.speech_lm import APIS, TAGS

if TYPE_CHECKING:
    from neucodec_streaming.client.speech_lm import SpeechReport, TextToSpeech

DEFAULT_SPEECH_LM = "http://127.0.0.1:8000/v1"


def add_command(
    add: Add,
    session: argparse.ArgumentParser,
    audio: argparse.ArgumentParser,
    device: argparse.ArgumentParser,
) -> None:
    """Adds the command with the shared options of cli."""
    command = add(
        "speak", speak, [session, audio, device], "text through a speech language model to speaker or file, live"
    )
    command.add_argument("text", metavar="TEXT", nargs="?", help="what to say; - for the lines of standard input")
    command.add_argument("--file", metavar="FILE", help="speak the lines of this text file")
    command.add_argument("--output", metavar="OUT.wav", help="audio file, - or a pipe; or the speaker")
    command.add_argument(
        "--speech-lm-url",
        metavar="URL",
        default=os.environ.get("NEUCODEC_SPEECH_LM_URL", DEFAULT_SPEECH_LM),
        help="OpenAI-compatible server (%(default)s); its key is that of NEUCODEC_SPEECH_LM_KEY",
    )
    command.add_argument(
        "--speech-lm-api", choices=tuple(APIS), default="completions", help="API of that server (%(default)s)"
    )
    command.add_argument("--speech-lm-template", metavar="FILE", help="prompt with {text}, or .json of a whole request")
    command.add_argument("--speech-lm-model", metavar="NAME", help="model name in requests")
    command.add_argument("--voice", metavar="NAME", help="voice of the server (default: that of --reference)")
    command.add_argument("--tag", metavar="PATTERN", help=f"how a token is written in text ({' or '.join(TAGS)})")
    command.add_argument(
        "--reference", metavar="FILE", help="token file of a voice for {codes}; its .txt for {reference_text}"
    )


async def speak(options: argparse.Namespace) -> None:
    """Speaks each line of the text. Raises ClientError naming the extra if httpx is missing."""
    try:
        from neucodec_streaming.client.speech_lm import SpeechLM, TextToSpeech, read_reference, read_spec
    except ModuleNotFoundError as error:
        raise ClientError(str(missing_extra(error, "neucodec speak"))) from None
    if options.output is not None:
        refuse_audio_to_terminal(options.output)
    reference = read_reference(options.reference) if options.reference else None
    url, template = options.speech_lm_url, options.speech_lm_template
    spec = read_spec(url, api=options.speech_lm_api, template=template, tag=options.tag)
    reports: list[SpeechReport] = []
    async with (
        SpeechLM(spec, model=options.speech_lm_model) as model,
        open_session(options, "decode", voice=options.voice) as connection,
    ):
        notes = [OWN_TOKENS] if connection.ready.has_own_tokens else []
        print_notes(notes, quiet=options.json)
        speech = TextToSpeech(model, connection, reference)
        if options.voice is None:
            await speech.prime()
        with ExitStack() as stack:
            sink = _Sink(options, connection, stack)
            try:
                await _speak_lines(options, connection, speech, sink, reports)
            except asyncio.CancelledError:
                options.interrupted = _interruption(reports, connection.ready.output.rate, options.output)
                raise
        figures: dict[str, Any] = {"notes": notes} if options.json and notes else {}
        figures |= {"model": connection.ready.model, "profile": connection.ready.profile, **sink.figures()}
        _print_summary(options, figures, reports, connection.ready.output.rate)


async def _speak_lines(
    options: argparse.Namespace,
    connection: Connection,
    speech: "TextToSpeech",
    sink: "_Sink",
    reports: "list[SpeechReport]",
) -> None:
    from neucodec_streaming.client.speech_lm import SpeechReport

    async for line in _lines(options):
        report = SpeechReport()
        reports.append(report)
        with LiveRows(quiet=options.json) as rows:
            rows.watch(connection)
            rows.show({"text": line[: rows.width], "speech": "waiting for the language model"})
            async for samples in speech.say(line, report):
                seconds = report.samples / connection.ready.output.rate
                rows.show({"text": line[: rows.width], "speech": f"{report.tokens} tokens, {seconds:.1f} s"})
                await sink.write(samples)
        sink.finish()
    await sink.drained()


async def _lines(options: argparse.Namespace) -> AsyncIterator[str]:
    from neucodec_streaming.client.speech_lm import read_text

    if options.text == PIPE or (options.text is None and options.file is None):
        async for line in piped_lines():
            yield line
        return
    text = options.text if options.file is None else read_text(options.file)
    for line in text.splitlines():
        if line.strip():
            yield line.strip()


class _Sink:
    """Audio is at most PLAY_AHEAD_SECONDS ahead of the speaker, which delays the model."""

    def __init__(self, options: argparse.Namespace, connection: Connection, stack: ExitStack) -> None:
        rate, output = connection.ready.output.rate, options.output
        self._speaker: Speaker | None = None
        self._file: AudioWriter | None = None
        if output is None:
            chunk_ms = connection.ready.chunk_frames * FRAME_MS
            self._speaker = stack.enter_context(Speaker(rate, options.device, chunk_ms=chunk_ms))
        else:
            self._file = stack.enter_context(AudioWriter(output, rate, options.format))

    async def write(self, samples: np.ndarray) -> None:
        if self._speaker is not None:
            ahead = self._speaker.pushed_samples / self._speaker.rate - PLAY_AHEAD_SECONDS
            await self._speaker.reached(ahead)
            self._speaker.push(samples)
        elif self._file is not None:
            self._file.write(samples)
            if self._file.pipe is not None:
                await self._file.pipe.drained()

    def finish(self) -> None:
        if self._speaker is not None:
            self._speaker.finish()

    async def drained(self) -> None:
        if self._speaker is not None:
            await self._speaker.drained()

    def figures(self) -> dict[str, Any]:
        if self._speaker is None:
            return {}
        return {"speaker": self._speaker.name, **underruns_of(self._speaker)}


def _interruption(reports: "list[SpeechReport]", rate: int, output: str | None) -> str:
    """The message at Ctrl-C."""
    done = f"interrupted after {sum(report.samples for report in reports) / rate:.1f} s of audio"
    if output is None:
        return done
    return f"{done}: {name_of(output, 1)} {'ends there' if is_stream(output, 1) else 'was not written'}"


def _print_summary(
    options: argparse.Namespace, figures: dict[str, Any], reports: "list[SpeechReport]", rate: int
) -> None:
    """Prints one object, or rows, for the whole run; times are those of each text."""
    figures = {
        "command": "speak",
        **figures,
        "texts": len(reports),
        "tokens": sum(report.tokens for report in reports),
        "seconds": round(sum(report.samples for report in reports) / rate, 3),
        "first_token_ms": [_ms(report.first_token_s) for report in reports],
        "first_audio_ms": [_ms(report.first_audio_s) for report in reports],
        "first_audio_after_token_ms": [_ms(report.first_audio_after_token_s) for report in reports],
        "written": options.output,
    }
    stream = sys.stderr if is_standard_output(options.output) else sys.stdout
    if options.json:
        print(json.dumps(figures), file=stream)
        return
    shown = {name: value for name, value in figures.items() if not isinstance(value, list | None)}
    rows = {name.replace("_", " "): str(value) for name, value in shown.items()}
    for name in ("first_token_ms", "first_audio_ms", "first_audio_after_token_ms"):
        known = [value for value in figures[name] if value is not None]
        if known:
            rows[name.removesuffix("_ms").replace("_", " ")] = f"{float(np.median(known)):.0f} ms"
    print_rows(rows, stream)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
