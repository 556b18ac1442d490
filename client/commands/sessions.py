"""The commands that run one session: encode, decode, roundtrip, mic, play. Each takes the options of cli."""

import argparse
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import numpy as np

from neucodec_streaming.client.commands.display import (
    LiveRows,
    MutedNote,
    ProgressLine,
    latency_sum,
    level_bar,
    print_report,
    progress,
)
from neucodec_streaming.client.commands.terminal import interruption, piped_tokens
from neucodec_streaming.client.connection import Connection, connect
from neucodec_streaming.client.devices import Microphone, Speaker
from neucodec_streaming.client.files import PIPE, AudioReader, TokenWriter, WavWriter, read_tokens, token_form
from neucodec_streaming.client.transfer import Source, TransferReport, packets_of, transfer
from neucodec_streaming.config import FRAME_MS, INPUT_RATE, OUTPUT_RATE, TOKENS_PER_SECOND

TOKENS_PER_PACKET = 25
PLAY_AHEAD_SECONDS = 5.0
"""How far `play` sends tokens ahead of what has been heard: the bound of everything that waits on the way."""
LEVELS_KEPT = 500
TOKENS_SHOWN = 50


def open_session(options: argparse.Namespace, kind: str, live: bool = False) -> AbstractAsyncContextManager[Connection]:
    """A session of `kind` with the server that the options name."""
    return connect(options.server, kind=kind, profile=options.profile, api_key=options.api_key, live=live)


async def encode(options: argparse.Namespace) -> None:
    """Audio file to token file."""
    source = AudioReader(options.input, INPUT_RATE)
    await _to_file(options, "encode", source, source.seconds, lambda: TokenWriter(options.output, options.form))


async def decode(options: argparse.Namespace) -> None:
    """Token file or pipe to WAV file."""
    seconds = None
    if options.input == PIPE:
        source: Source = piped_tokens(token_form(PIPE, options.form))
    else:
        tokens = read_tokens(options.input, options.form)
        source, seconds = _packets(tokens), tokens.size / TOKENS_PER_SECOND
    await _to_file(options, "decode", source, seconds, lambda: WavWriter(options.output, OUTPUT_RATE))


async def roundtrip(options: argparse.Namespace) -> None:
    """Audio file to WAV file."""
    source = AudioReader(options.input, INPUT_RATE)
    await _to_file(options, "roundtrip", source, source.seconds, lambda: WavWriter(options.output, OUTPUT_RATE))


async def _to_file(
    options: argparse.Namespace,
    kind: str,
    source: Source,
    seconds: float | None,
    open_output: Callable[[], TokenWriter | WavWriter],
) -> None:
    """One session from `source` to a file, which is opened only when the server has accepted the session."""
    async with open_session(options, kind) as connection:
        with open_output() as output, ProgressLine(seconds, quiet=options.json) as line:
            report = await transfer(connection, source, output.write, realtime=options.realtime, on_progress=line)
    extra = {"command": kind, "written": options.output}
    print_report(report, extra, options.json, piped=options.output == PIPE)


async def mic(options: argparse.Namespace) -> None:
    """Microphone to tokens, until Ctrl-C or for --seconds."""
    stop = interruption()
    levels = ""
    newest: list[int] = []
    async with open_session(options, "encode", live=True) as connection:
        with (
            TokenWriter(options.output, options.form) if options.output else nullcontext() as writer,
            Microphone(INPUT_RATE, options.device) as microphone,
            LiveRows(quiet=options.json) as rows,
        ):

            async def spoken() -> AsyncIterator[np.ndarray]:
                nonlocal levels
                async for packet in microphone:
                    levels = (levels + level_bar(packet))[-LEVELS_KEPT:]
                    yield packet
                    seconds = connection.input_position / INPUT_RATE
                    if stop.is_set() or (options.seconds and seconds >= options.seconds):
                        return

            def keep(tokens: np.ndarray) -> None:
                newest[:] = [*newest, *tokens.tolist()][-TOKENS_SHOWN:]
                if writer is not None:
                    writer.write(tokens)

            note_if_muted = MutedNote(options.json)

            def show(report: TransferReport) -> None:
                note_if_muted(microphone)
                parts = {"microphone": microphone.latency_ms, "algorithm": report.ready.latency_ms}
                parts["server and network"] = report.responses.recent_ms
                rows.show(
                    {
                        "level": levels[-rows.width :],
                        "tokens": " ".join(map(str, newest))[-rows.width :],
                        "latency": latency_sum(parts),
                        "sent": progress(report),
                    }
                )

            report = await transfer(connection, spoken(), keep, on_progress=show)
            extra = {"command": "mic", "microphone": microphone.name, "lost_samples": microphone.overflow_samples}
            extra |= {"microphone_ms": round(microphone.latency_ms, 1), **report.responses.as_dict()}
    print_report(report, {**extra, "written": options.output}, options.json, piped=options.output == PIPE)


async def play(options: argparse.Namespace) -> None:
    """Token file or pipe to the speaker."""
    if options.input == PIPE:
        tokens: Any = piped_tokens(token_form(PIPE, options.form))
    else:
        tokens = _packets(read_tokens(options.input, options.form))
    async with open_session(options, "decode") as connection:
        chunk_ms = connection.ready.chunk_frames * FRAME_MS
        with (
            Speaker(OUTPUT_RATE, options.device, chunk_ms=chunk_ms) as speaker,
            ProgressLine(quiet=options.json) as line,
        ):

            async def paced() -> AsyncIterator[np.ndarray]:
                async for packet in packets_of(tokens):
                    await speaker.reached(connection.input_position / TOKENS_PER_SECOND - PLAY_AHEAD_SECONDS)
                    yield packet

            report = await transfer(connection, paced(), speaker.push, on_progress=line)
            speaker.finish()
            await speaker.drained()
            extra = {"command": "play", "speaker": speaker.name, "underruns": speaker.underruns}
    print_report(report, extra, options.json, piped=False)


def _packets(tokens: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, tokens.size, TOKENS_PER_PACKET):
        yield tokens[start : start + TOKENS_PER_PACKET]
