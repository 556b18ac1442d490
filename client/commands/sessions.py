"""The commands that run one session: encode, decode, roundtrip, mic, play. Their options are in cli."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

import numpy as np

from neucodec_streaming.client.commands.display import (
    LiveRows,
    ProgressLine,
    announced,
    latency_sum,
    level_bar,
    print_report,
    progress,
    underruns_of,
)
from neucodec_streaming.client.commands.sources import FileSource, audio_source, print_notes, token_source
from neucodec_streaming.client.commands.terminal import interruption
from neucodec_streaming.client.connection import Connection, connect
from neucodec_streaming.client.devices import Microphone, Speaker
from neucodec_streaming.client.dial import certificates
from neucodec_streaming.client.files import AudioWriter, TokenWriter, audio_format, token_form
from neucodec_streaming.client.pipes import (
    PipeWriter,
    is_standard_output,
    is_stream,
    name_of,
    refuse_audio_to_terminal,
    refuse_same_file,
)
from neucodec_streaming.client.transfer import TransferReport, transfer
from neucodec_streaming.config import FRAME_MS, INPUT_RATE, TOKENS_PER_SECOND
from neucodec_streaming.errors import StreamingError
from neucodec_streaming.protocol.messages import Ready

PLAY_AHEAD_SECONDS = 5.0
"""How far `play` sends tokens ahead of the audio heard; bounds everything in flight."""
PIPE_AHEAD_SECONDS = 10.0
"""The same for writing into a pipe."""
BYTES_PER_SAMPLE = 2
LEVELS_KEPT = 500
TOKENS_SHOWN = 50


def open_session(
    options: argparse.Namespace, kind: str, live: bool = False, voice: str | None = None
) -> AbstractAsyncContextManager[Connection]:
    """A session of `kind` with the server of the options."""
    ssl = None if options.ca is None else certificates(options.ca)
    return connect(
        options.server,
        kind=kind,
        profile=options.profile,
        voice=voice,
        api_key=options.api_key,
        ssl=ssl,
        live=live,
    )


async def encode(options: argparse.Namespace) -> None:
    """Encodes an audio file or pipe."""
    refuse_same_file(options.input, options.output)
    form = token_form(options.output, options.form, writing=True)
    source = audio_source(options.input, options.rate)
    await _to_output(options, "encode", source, lambda ready: TokenWriter(options.output, form, model=ready.model))


async def decode(options: argparse.Namespace) -> None:
    """Decodes the tokens of a file or pipe."""
    open_output = _audio_output(options)
    await _to_output(options, "decode", token_source(options.input, options.form, options.tags), open_output)


async def roundtrip(options: argparse.Namespace) -> None:
    """Encodes and decodes an audio file or pipe."""
    open_output = _audio_output(options)
    await _to_output(options, "roundtrip", audio_source(options.input, options.rate), open_output)


def _audio_output(options: argparse.Namespace) -> Callable[[Ready], AudioWriter]:
    """Checks the output and returns the function that opens it. Raises ConfigError."""
    refuse_same_file(options.input, options.output)
    refuse_audio_to_terminal(options.output)
    audio_format(options.output, options.format)
    return lambda ready: AudioWriter(options.output, ready.output.rate, options.format)


async def _to_output(
    options: argparse.Namespace,
    kind: str,
    source: FileSource,
    open_output: Callable[[Ready], TokenWriter | AudioWriter],
) -> None:
    """Runs a session from `source` to an output, which is opened only after the server has accepted the session.

    Raises faults of a piped source; output before a fault is kept, unless it would replace a file.
    """
    with ProgressLine(source.seconds, quiet=options.json) as line:
        try:
            async with open_session(options, kind) as connection:
                line.watch(connection)
                source.note_model(connection.ready)
                with open_output(connection.ready) as output:
                    packets = source if output.pipe is None else _paced(source, connection, output.pipe)
                    report = await transfer(
                        connection, packets, output.write, realtime=options.realtime, on_progress=line
                    )
                    if source.error is not None and output.output is not None and output.output.replaces:
                        raise _fault(source, options.input, f"{options.output} is unchanged")
            if output.pipe is not None:
                await output.pipe.drained()
        except asyncio.CancelledError:
            options.interrupted = _interruption(line, options.output)
            raise
        finally:
            if line.report is not None:
                print_notes(source.notes, quiet=options.json)
    extra = {"command": kind, "written": options.output}
    if options.json and source.notes:
        extra["notes"] = source.notes
    print_report(report, extra, options.json, is_standard_output(options.output), is_paced=options.realtime)
    if source.error is not None:
        raise _fault(source, options.input, f"the part before it is in {name_of(options.output, 1)}")


def _fault(source: FileSource, input: str, outcome: str) -> StreamingError:
    assert source.error is not None
    name, fault = name_of(input, 0), str(source.error)
    where = "" if fault.startswith(name) else f"{name}: "
    return type(source.error)(f"{where}{fault}; {outcome}")


async def _paced(source: FileSource, connection: Connection, pipe: PipeWriter) -> AsyncIterator[np.ndarray]:
    """The packets, none sent more than PIPE_AHEAD_SECONDS ahead of the output that the pipe has taken: a slow reader
    delays them, and the connection stays alive.
    """
    input_, output = connection.ready.input, connection.ready.output

    def is_near(backlog_bytes: int) -> bool:
        sent_s = connection.input_position / input_.rate
        waiting_s = backlog_bytes / BYTES_PER_SAMPLE / output.rate if output.kind == "audio" else 0.0
        return sent_s - connection.output_position / output.rate + waiting_s <= PIPE_AHEAD_SECONDS

    async for packet in source:
        await pipe.drained(is_near)
        yield packet


def _interruption(line: ProgressLine, output: str) -> str:
    """The message at Ctrl-C."""
    report = line.report
    done = "before anything was sent"
    if report is not None:
        done = f"after {report.input_seconds:.1f} s of input and {report.output_seconds:.1f} s of output"
    left = "ends there" if is_stream(output, 1) else "was not written"
    return f"interrupted {done}: {name_of(output, 1)} {left}"


async def mic(options: argparse.Namespace) -> None:
    """Encodes the microphone, until Ctrl-C or for --seconds."""
    stop = interruption()
    levels = ""
    newest: list[int] = []
    async with open_session(options, "encode", live=True) as connection:
        with (
            _kept_tokens(options, connection.ready) if options.output else nullcontext() as writer,
            Microphone(INPUT_RATE, options.device) as microphone,
            LiveRows(quiet=options.json) as rows,
        ):
            rows.watch(connection)

            async def spoken() -> AsyncIterator[np.ndarray]:
                nonlocal levels
                samples = 0
                async for packet in announced(microphone, options.json):
                    levels = (levels + level_bar(packet))[-LEVELS_KEPT:]
                    yield packet
                    samples += packet.size
                    if stop.is_set() or (options.seconds and samples / INPUT_RATE >= options.seconds):
                        return

            def keep(tokens: np.ndarray) -> None:
                newest[:] = [*newest, *tokens.tolist()][-TOKENS_SHOWN:]
                if writer is not None:
                    writer.write(tokens)

            def show(report: TransferReport) -> None:
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
    print_report(
        report,
        {**extra, "written": options.output},
        options.json,
        piped=options.output is not None and is_stream(options.output, 1),
        is_paced=True,
    )


def _kept_tokens(options: argparse.Namespace, ready: Ready) -> TokenWriter:
    return TokenWriter(options.output, options.form, keep=True, model=ready.model)


async def play(options: argparse.Namespace) -> None:
    """Plays the tokens of a file or pipe on the speaker."""
    source = token_source(options.input, options.form, options.tags)
    with ProgressLine(source.seconds, quiet=options.json) as line:
        try:
            async with open_session(options, "decode") as connection:
                line.watch(connection)
                source.note_model(connection.ready)
                print_notes(source.notes, quiet=options.json)
                chunk_ms = connection.ready.chunk_frames * FRAME_MS
                with Speaker(connection.ready.output.rate, options.device, chunk_ms=chunk_ms) as speaker:
                    line.follow(lambda: speaker.heard_position / speaker.rate)

                    async def paced() -> AsyncIterator[np.ndarray]:
                        async for packet in source:
                            await speaker.reached(connection.input_position / TOKENS_PER_SECOND - PLAY_AHEAD_SECONDS)
                            yield packet

                    report = await transfer(connection, paced(), speaker.push, on_progress=line)
                    speaker.finish()
                    await speaker.drained()
                    extra = {"command": "play", "speaker": speaker.name, **underruns_of(speaker)}
        except asyncio.CancelledError:
            options.interrupted = f"interrupted after {line.heard_seconds:.1f} s"
            raise
    if options.json and source.notes:
        extra["notes"] = source.notes
    print_report(report, extra, options.json, piped=False, is_paced=True)
    if source.error is not None:
        raise _fault(source, options.input, "the part before it was played")
