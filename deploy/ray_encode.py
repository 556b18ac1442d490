"""`neucodec-server encode-files` on a Ray cluster: recordings visible to every node to a table of tokens, by Ray Data.

    python deploy/ray_encode.py FOLDER OUT --actors 8                    # on a machine of the cluster
    python deploy/ray_encode.py FOLDER OUT --actors 2 --gpus 1 --device cuda --batch-size 16

Actors hold the model and read the recordings. Only this process writes the table, from their tokens (100 bytes a second
of audio), like the command for one machine: either can continue a killed job. Needs the extra `ray`.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import ray

from neucodec_streaming.errors import StreamingError
from neucodec_streaming.server.bulk.coding import BulkCoder
from neucodec_streaming.server.bulk.progress import JobProgress
from neucodec_streaming.server.bulk.recordings import batches, find_recordings
from neucodec_streaming.server.bulk.rows import MAX_SECONDS, AudioFile, Skipped
from neucodec_streaming.server.bulk.table import SAVE_EVERY_S, TokenTable, only_writer
from neucodec_streaming.tokens import TokenRecord


class RayCoder:
    """An actor of Ray Data: a batch of recordings in, a row for each out, with tokens or a reason."""

    def __init__(self, *coder: object) -> None:
        self._coder = BulkCoder(*coder)

    def __call__(self, row: dict) -> list[dict]:
        files = [AudioFile(*one) for one in zip(row["ids"], map(Path, row["paths"]), row["rows"], strict=True)]
        return [_columns(one) for one in self._coder.encode(files)]


def _columns(one: TokenRecord | Skipped) -> dict:
    row = {"tokens": np.zeros(0, np.uint16), "seconds": 0.0, "model": "", "reason": ""} | asdict(one)
    return row | {"tokens": row["tokens"].tobytes()}


def _result(row: dict) -> TokenRecord | Skipped:
    if row["reason"]:
        return Skipped(row["id"], row["reason"])
    return TokenRecord(row["id"], np.frombuffer(row["tokens"], np.uint16), row["seconds"], row["model"])


def encoded(files: list[AudioFile], given: argparse.Namespace) -> Iterator[TokenRecord | Skipped]:
    """Yields results in order of arrival."""
    rows = [
        {
            "ids": [one.id for one in batch],
            "paths": [str(one.path.resolve()) for one in batch],
            "rows": [one.row for one in batch],
        }
        for batch in batches(files, given.batch_size)
    ]
    blocks = max(1, min(len(rows), given.actors * given.blocks_per_actor))
    data = ray.data.from_items(rows, override_num_blocks=blocks).flat_map(
        RayCoder,
        fn_constructor_args=(given.model, given.device, given.threads, given.max_seconds),
        compute=ray.data.ActorPoolStrategy(size=given.actors),
        num_cpus=given.threads,
        num_gpus=given.gpus,
    )
    return map(_result, data.iter_rows())


def main() -> int:
    """Returns 1 if recordings were skipped, 2 for an unusable folder or setting."""
    given = _parser().parse_args()
    ray.init(address=given.address, log_to_driver=False, logging_level="warning")
    ray.data.DataContext.get_current().enable_progress_bars = False  # ours counts recordings
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    token_model = ray.remote(num_cpus=given.threads, num_gpus=given.gpus)(_token_model)
    try:
        found = find_recordings(given.folder)
        with only_writer(given.out):
            model = ray.get(token_model.remote(given.model, given.device))
            with TokenTable(given.out, model, given.save_every_s) as table:
                left = [one for one in found if one.id not in table.done]
                progress = JobProgress(len(found), len(found) - len(left))
                for one in encoded(left, given) if left else ():
                    table.add([one] if isinstance(one, TokenRecord) else [])
                    progress.add([one])
            progress.finish(given.out)
    except StreamingError as error:
        print(f"ray_encode: {error}", file=sys.stderr)
        return 2
    return 1 if progress.skipped else 0


def _token_model(model: str, device: str) -> str:
    return BulkCoder(model, device).codec.token_model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", type=Path, help="recordings or a table of them, at a path that is the same on every node")
    add("out", type=Path, help="folder of the table; only this process writes to it")
    add("--address", help="address of the cluster (default: RAY_ADDRESS, else the one that runs here, else a new one)")
    add("--actors", type=int, default=1, help="number of actors with a model each, over all nodes")
    add("--gpus", type=float, default=0, help="GPUs of each actor; with 0.5, two share one")
    add("--threads", type=int, default=1, help="processors of each actor")
    add("--blocks-per-actor", type=int, default=16, help="pieces of work; more even out, fewer cost less")
    add("--model", default="nano")
    add("--device", default="cpu")
    add("--batch-size", type=int, default=1, help="recordings of one frame count that share a call, for GPUs")
    add("--max-seconds", type=float, default=MAX_SECONDS, help="longer recordings are skipped")
    add("--save-every-s", type=float, default=SAVE_EVERY_S)
    return parser


if __name__ == "__main__":
    sys.exit(main())
