"""The commands `neucodec-server encode-files` and `neucodec-server decode-files`.

Exit codes: 0 all done, 1 a worker died, 2 a setting that cannot be used, 3 recordings that were skipped or a model that
cannot be loaded, 130 stopped by Ctrl-C.
"""

import argparse
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from neucodec_streaming.errors import ConfigError, ModelError, StreamingError
from neucodec_streaming.server.bulk.jobs import decode_files, encode_files, load_coder
from neucodec_streaming.server.bulk.rows import MAX_SECONDS
from neucodec_streaming.server.bulk.table import SAVE_EVERY_S

COMMANDS = {
    "encode-files": "encode the recordings of a folder or table to a table (Parquet: id, tokens, seconds, model)",
    "decode-files": "decode every row of a table of tokens to a WAV file at 24 kHz",
}
EXIT_INPUT = 3
EXIT_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Runs one job and returns the exit code."""
    given = _parser().parse_args(arguments)
    workers = given.workers or (1 if given.device.startswith("cuda") else len(os.sched_getaffinity(0)))
    make_coder = partial(load_coder, given.model, given.device, given.threads, given.max_seconds)
    try:
        if given.command == "encode-files":
            progress = encode_files(
                given.source,
                given.out,
                make_coder,
                workers=workers,
                batch_size=given.batch_size,
                save_every_s=given.save_every_s,
            )
        else:
            progress = decode_files(given.source, given.out, make_coder, workers=workers)
    except KeyboardInterrupt:
        print("\nneucodec-server: stopped; run the same command again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED
    except StreamingError as error:
        print(f"neucodec-server: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else EXIT_INPUT if isinstance(error, ModelError) else 1
    return EXIT_INPUT if progress.skipped else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neucodec-server",
        description="Encodes and decodes whole recordings; a stopped job continues when run again.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help in COMMANDS.items():
        command = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        is_encode = name == "encode-files"
        add = command.add_argument
        add("source", type=Path, metavar="RECORDINGS" if is_encode else "TABLE")
        add("out", type=Path, metavar="OUT", help="output folder of the " + ("table" if is_encode else "files"))
        add("--model", default="nano", help="a bundled name, a folder or a hub id (default %(default)s)")
        add("--device", default="cpu", help="torch device (default %(default)s)")
        add("--workers", type=_positive, metavar="N", help="worker processes (default one per core; one on a GPU)")
        add("--threads", type=_positive, default=1, metavar="N", help="torch threads per worker (default %(default)s)")
        command.set_defaults(max_seconds=MAX_SECONDS)
        if is_encode:
            add(
                "--max-seconds",
                type=float,
                metavar="S",
                help="skip longer recordings: memory grows with the square of the length (default %(default)g)",
            )
            add(
                "--batch-size",
                type=_positive,
                default=1,
                metavar="N",
                help="recordings of the same length in frames to encode at once, for GPUs (default %(default)s)",
            )
            add(
                "--save-every-s",
                type=float,
                default=SAVE_EVERY_S,
                metavar="S",
                help="interval of saving: a killed job loses at most this much work (default %(default)g)",
            )
    return parser


def _positive(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
