"""The command `neucodec`: files, microphone and speaker through a server.

Exit codes: 0 done, 1 an error of ours, 2 wrong arguments, 3 input that cannot be used, 4 no server or a full one,
5 the connection broke or stalled, 6 an audio device failed, 130 interrupted.
"""

import argparse
import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from client.connection import DEFAULT_URL, connect
from client.devices import Microphone, Speaker, list_devices
from client.display import ProgressLine, level_bar, print_devices, print_report
from client.errors import DeadlineExceeded, Disconnected, FileError, SoundDeviceError, Unreachable
from client.files import PIPE, WRITABLE_FORMS, AudioReader, TokenPipe, TokenWriter, WavWriter, read_tokens, token_form
from client.transfer import Source, packets_of, transfer
from streaming.config import FRAME_MS, INPUT_RATE, OUTPUT_RATE, TOKENS_PER_SECOND
from streaming.errors import CapacityError, ConfigError, DeviceError, InputError, StreamingError

FILE_FAILED = 3
EXIT_CODES: tuple[tuple[type[StreamingError], int], ...] = (
    (ConfigError, 2),
    (InputError, 3),
    (FileError, FILE_FAILED),
    (Unreachable, 4),
    (CapacityError, 4),
    (DeviceError, 4),
    (Disconnected, 5),
    (DeadlineExceeded, 5),
    (SoundDeviceError, 6),
)
INTERRUPTED = 130
TOKENS_PER_PACKET = 25
PLAY_AHEAD_SECONDS = 5.0
"""How far `play` sends tokens ahead of what has been heard: the bound of everything that waits on the way."""
LEVELS_SHOWN = 40
_PIPE_BYTES = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.run is None:
            print_devices(list_devices(), options.json)
        else:
            asyncio.run(options.run(options))
    except StreamingError as error:
        print(f"neucodec: {error}", file=sys.stderr)
        return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"neucodec: {error}", file=sys.stderr)
        return FILE_FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="neucodec", description="Speech to tokens and back, live, through a server.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--json", action="store_true", help="print the summary as one JSON object, no progress")
    session = argparse.ArgumentParser(add_help=False, parents=[output])
    session.add_argument(
        "--server", metavar="URL", default=os.environ.get("NEUCODEC_SERVER", DEFAULT_URL), help="(%(default)s)"
    )
    session.add_argument("--profile", help="one of the server's pairs of chunk and lookahead")
    paced = argparse.ArgumentParser(add_help=False, parents=[session])
    paced.add_argument("--realtime", action="store_true", help="send at the pace of a microphone")
    form = argparse.ArgumentParser(add_help=False)
    form.add_argument("--form", choices=(*WRITABLE_FORMS, "pt"), help="of the tokens; by the ending, text for a pipe")
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--device", help="number or part of the name, see `neucodec devices`")

    def add(name: str, run: Any, parents: list[argparse.ArgumentParser], help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=parents, help=help, description=help)
        command.set_defaults(run=run)
        return command

    command = add("encode", _encode, [paced, form], "audio file to tokens (.tok, .npy, .txt, - for a pipe)")
    command.add_argument("input", metavar="IN.wav")
    command.add_argument("output", metavar="OUT.tok")
    command = add("decode", _decode, [paced, form], "tokens (.tok, .npy, .pt, .txt, - for a pipe) to a WAV file")
    command.add_argument("input", metavar="IN.tok")
    command.add_argument("output", metavar="OUT.wav")
    command = add("roundtrip", _roundtrip, [paced], "audio file through encoder and decoder to a WAV file")
    command.add_argument("input", metavar="IN.wav")
    command.add_argument("output", metavar="OUT.wav")
    command = add("mic", _mic, [session, form, device], "microphone to tokens until Ctrl-C")
    command.add_argument("output", metavar="OUT.tok", nargs="?", help="token file, or - for a pipe")
    command.add_argument("--seconds", type=_positive, help="stop after so long")
    command = add("play", _play, [session, form, device], "tokens to the speaker")
    command.add_argument("input", metavar="IN.tok", help="token file, or - for a pipe")
    add("devices", None, [output], "lists microphones and speakers")
    return parser


def _version() -> str:
    try:
        return version("neucodec-streaming")
    except PackageNotFoundError:
        return "from a source tree"


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return number


async def _encode(options: argparse.Namespace) -> None:
    source = AudioReader(options.input, INPUT_RATE)
    await _to_file(options, "encode", source, source.seconds, lambda: TokenWriter(options.output, options.form))


async def _decode(options: argparse.Namespace) -> None:
    seconds = None
    if options.input == PIPE:
        source: Source = _piped_tokens(token_form(PIPE, options.form))
    else:
        tokens = read_tokens(options.input, options.form)
        source, seconds = _packets(tokens), tokens.size / TOKENS_PER_SECOND
    await _to_file(options, "decode", source, seconds, lambda: WavWriter(options.output, OUTPUT_RATE))


async def _roundtrip(options: argparse.Namespace) -> None:
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
    async with connect(options.server, kind=kind, profile=options.profile) as connection:
        with open_output() as output, ProgressLine(seconds, quiet=options.json) as line:
            report = await transfer(connection, source, output.write, realtime=options.realtime, on_progress=line)
    extra = {"command": kind, "written": options.output}
    print_report(report, extra, options.json, piped=options.output == PIPE)


async def _mic(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    _on_interrupt(stop.set)
    async with connect(options.server, kind="encode", profile=options.profile) as connection:
        with (
            TokenWriter(options.output, options.form) if options.output else nullcontext() as writer,
            Microphone(INPUT_RATE, options.device) as microphone,
            ProgressLine(quiet=options.json) as line,
        ):

            async def spoken() -> AsyncIterator[np.ndarray]:
                levels = ""
                async for packet in microphone:
                    levels = (levels + level_bar(packet))[-LEVELS_SHOWN:]
                    line.note = levels
                    yield packet
                    seconds = connection.input_position / INPUT_RATE
                    if stop.is_set() or (options.seconds and seconds >= options.seconds):
                        return

            def keep(tokens: np.ndarray) -> None:
                if writer is not None:
                    writer.write(tokens)

            report = await transfer(connection, spoken(), keep, on_progress=line)
            extra = {"command": "mic", "microphone": microphone.name, "lost_samples": microphone.overflow_samples}
    print_report(report, {**extra, "written": options.output}, options.json, piped=options.output == PIPE)


async def _play(options: argparse.Namespace) -> None:
    if options.input == PIPE:
        tokens: Any = _piped_tokens(token_form(PIPE, options.form))
    else:
        tokens = _packets(read_tokens(options.input, options.form))
    async with connect(options.server, kind="decode", profile=options.profile) as connection:
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


async def _piped_tokens(form: str) -> AsyncIterator[np.ndarray]:
    """Tokens from standard input as they come, whatever it is: a pipe, a terminal or a file."""
    pipe = TokenPipe(form)
    reader = await _standard_input()
    while payload := await reader(_PIPE_BYTES):
        tokens = pipe.feed(payload)
        if tokens.size:
            yield tokens
    pipe.finish()


async def _standard_input() -> Callable[[int], Coroutine[Any, Any, bytes]]:
    if stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):

        async def read_file(count: int) -> bytes:
            return sys.stdin.buffer.read(count)

        return read_file
    stream = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
    return stream.read


def _on_interrupt(stop: Callable[[], None]) -> None:
    """Ctrl-C once: stop listening and finish; twice: leave at once."""
    loop = asyncio.get_running_loop()

    def once() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop()

    loop.add_signal_handler(signal.SIGINT, once)
