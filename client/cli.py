"""The command `neucodec`: files, microphone and speaker through a server.

Exit codes: 0 done, 1 an internal error, 2 wrong arguments or settings, 3 input or a file that cannot be used, 4 no
server or language model, or a full one, 5 the connection broke or stalled, 6 an audio device failed, 7 no API key or an
unknown one, 8 too many sessions or attempts of this key or address, 130 interrupted.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from neucodec_streaming.client.commands import bench, mqtt_options, speak, talk
from neucodec_streaming.client.commands import sessions as commands
from neucodec_streaming.client.commands.completion import SHELLS, CompletedParser, completion
from neucodec_streaming.client.commands.display import print_devices
from neucodec_streaming.client.commands.terminal import interruptible
from neucodec_streaming.client.devices import list_devices
from neucodec_streaming.client.dial import DEFAULT_URL
from neucodec_streaming.client.errors import DeadlineExceeded, Disconnected, FileError, SoundDeviceError, Unreachable
from neucodec_streaming.client.files import AUDIO_ENDINGS, AUDIO_FORMATS
from neucodec_streaming.errors import (
    AuthError,
    CapacityError,
    ConfigError,
    DeviceError,
    InputError,
    LimitError,
    SpeechLMError,
    StreamingError,
    TimeLimitError,
    reason_of,
)
from neucodec_streaming.tags import TAGS
from neucodec_streaming.token_files import FORMS, WRITABLE_FORMS

FILE_FAILED = 3
INTERRUPTED = 130
EXIT_CODES: tuple[tuple[type[StreamingError], int], ...] = (
    (ConfigError, 2),
    (InputError, 3),
    (FileError, FILE_FAILED),
    (LimitError, 8),
    (Unreachable, 4),
    (CapacityError, 4),
    (DeviceError, 4),
    (SpeechLMError, 4),
    (Disconnected, 5),
    (DeadlineExceeded, 5),
    (TimeLimitError, 5),
    (SoundDeviceError, 6),
    (AuthError, 7),
)
"""The first match applies."""
BENCH_SECONDS = 5.0
KEY_VARIABLE = "NEUCODEC_API_KEY"
_MAX_KEY_CHARACTERS = 16_384
AUDIO_IN = "audio file (whatever libsndfile reads), - or a pipe"
AUDIO_OUT = f"audio file ({' '.join(AUDIO_ENDINGS)}), - or a pipe"
TOKENS_IN = f"token file ({' '.join(FORMS)}), - or a pipe for text"
TOKENS_OUT = f"token file ({' '.join(end for end in FORMS if FORMS[end] in WRITABLE_FORMS)}), - for text to a pipe"
RunCommand = Callable[[argparse.Namespace], Coroutine[Any, Any, None] | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if "key_file" in options:
            options.api_key = _api_key(options.key_file)
        running = options.run(options)
        if running is not None:
            asyncio.run(interruptible(running))
    except StreamingError as error:
        code = next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)
        remedy = f": set {KEY_VARIABLE} or give --key-file" if type(error) is AuthError else ""
        return _failed(options, error.code, f"{error}{remedy}", code)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _failed(options, "interrupted", options.interrupted, INTERRUPTED)
    except BrokenPipeError:
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(options, FileError.code, f"{where}{reason_of(error)}", FILE_FAILED)
    return 0


def _failed(options: argparse.Namespace, code: str, message: str, exit_code: int) -> int:
    """Prints the error, with --json as one object like the server's `error`."""
    if options.json:
        message = json.dumps({"type": "error", "code": code, "message": message})
    else:
        message = f"neucodec: {message}"
    if sys.stderr is not None:
        print(message, file=sys.stderr)
    return exit_code


def _api_key(key_file: str | None) -> str | None:
    """The key in the file, else in the environment, else none. Raises FileError."""
    if key_file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        with open(key_file) as file:
            text = file.read(_MAX_KEY_CHARACTERS + 1)
    except (OSError, UnicodeError) as error:
        raise FileError(f"cannot read the key file {key_file}: {reason_of(error)}") from None
    if len(text) > _MAX_KEY_CHARACTERS:
        raise FileError(f"cannot read the key file {key_file}: longer than {_MAX_KEY_CHARACTERS:,} characters")
    return text.strip()


def _parser() -> CompletedParser:
    parser = CompletedParser(prog="neucodec", description="Speech to tokens and back, live, through a server.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands_of = parser.add_subparsers(required=True, metavar="COMMAND")
    output, server, session, paced, form, device, timed = _shared_options()
    raw, audio, tagged = _format_options()

    def add(name: str, run: RunCommand, parents: list[CompletedParser], help: str) -> CompletedParser:
        command = commands_of.add_parser(name, parents=parents, help=help, description=help)
        command.set_defaults(run=run, json=False, interrupted="interrupted")
        return command

    command = add("encode", commands.encode, [paced, form, raw], "audio to tokens")
    command.add_argument("input", metavar="IN.wav", help=AUDIO_IN)
    command.add_argument("output", metavar="OUT.tok", help=TOKENS_OUT)
    command = add("decode", commands.decode, [paced, form, tagged, audio], "tokens to audio")
    command.add_argument("input", metavar="IN.tok", help=TOKENS_IN)
    command.add_argument("output", metavar="OUT.wav", help=AUDIO_OUT)
    command = add("roundtrip", commands.roundtrip, [paced, raw, audio], "audio through encoder and decoder to audio")
    command.add_argument("input", metavar="IN.wav", help=AUDIO_IN)
    command.add_argument("output", metavar="OUT.wav", help=AUDIO_OUT)
    command = add("mic", commands.mic, [session, form, device, timed], "microphone to tokens until Ctrl-C")
    command.add_argument("output", metavar="OUT.tok", nargs="?", help=TOKENS_OUT)
    command = add("play", commands.play, [session, form, tagged, device], "tokens to the speaker")
    command.add_argument("input", metavar="IN.tok", help=TOKENS_IN)
    command = add("talk", talk.talk, [session, timed], "microphone to tokens to speaker until Ctrl-C: hear yourself")
    command.add_argument("--microphone", metavar="DEVICE", help="number or part of the name")
    command.add_argument("--speaker", metavar="DEVICE", help="number or part of the name; wear headphones")
    speak.add_command(add, session, audio, device)
    command = add("bench", bench.bench, [session], "latency and speed of the server, seen from here")
    command.add_argument("--seconds", type=_positive, default=BENCH_SECONDS, help="duration of each run (%(default)g)")
    mqtt_options.add_commands(add, output, server, form, tagged, device, timed)
    add("devices", _devices, [output], "lists microphones and speakers")
    command = add("completion", _completion, [], "prints the completion script of a shell")
    command.add_argument("shell", choices=SHELLS)
    return parser


def _shared_options() -> tuple[CompletedParser, ...]:
    """Option groups: output, server, server with --ca, paced session, form of tokens, one device, limited time."""
    output = CompletedParser(add_help=False)
    output.add_argument("--json", action="store_true", help="print summary or error as one JSON object, no progress")
    server = CompletedParser(add_help=False, parents=[output])
    server.add_argument(
        "--server",
        metavar="URL",
        default=os.environ.get("NEUCODEC_SERVER", DEFAULT_URL),
        help=f"default: NEUCODEC_SERVER, else {DEFAULT_URL}",
    )
    server.add_argument("--profile", help="latency profile of the server, such as low, default or high")
    server.add_argument(
        "--key-file", metavar="FILE", help=f"file with the API key (default: the variable {KEY_VARIABLE})"
    )
    session = CompletedParser(add_help=False, parents=[server])
    session.add_argument("--ca", metavar="FILE", help="certificate authorities (PEM) for wss://")
    paced = CompletedParser(add_help=False, parents=[session])
    paced.add_argument("--realtime", action="store_true", help="send at the pace of a microphone")
    form = CompletedParser(add_help=False)
    form.add_argument(
        "--form",
        choices=(*WRITABLE_FORMS, "pt"),
        help="form of the token file (default: by its extension; a pipe: text)",
    )
    device = CompletedParser(add_help=False)
    device.add_argument("--device", help="number or part of the name, see `neucodec devices`")
    timed = CompletedParser(add_help=False)
    timed.add_argument("--seconds", type=_positive, help="stop after this many seconds")
    return output, server, session, paced, form, device, timed


def _format_options() -> tuple[CompletedParser, ...]:
    """Option groups of commands: raw input, format of audio output, tags of tokens."""
    raw = CompletedParser(add_help=False)
    raw.add_argument("--rate", type=int, metavar="HZ", help="sample rate of raw input: mono, s16le")
    audio = CompletedParser(add_help=False)
    audio.add_argument(
        "--format", choices=tuple(AUDIO_FORMATS), help="format of OUT (default: by its extension; a pipe: wav)"
    )
    tagged = CompletedParser(add_help=False)
    tagged.add_argument(
        "--tag",
        dest="tags",
        metavar="TAG",
        action="append",
        help=f"how a token is written in text ({' or '.join(TAGS)})",
    )
    return raw, audio, tagged


def _devices(options: argparse.Namespace) -> None:
    print_devices(list_devices(), options.json)


def _completion(options: argparse.Namespace) -> None:
    print(completion(options.shell, _parser()), end="")


def _version() -> str:
    try:
        return version("neucodec-streaming")
    except PackageNotFoundError:
        return "from a source tree"


def _positive(text: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
