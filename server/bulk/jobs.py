"""Bulk jobs on one machine: worker processes that code, and one process that reads, saves and reports."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from neucodec_streaming.errors import DeviceError
from neucodec_streaming.server.bulk.progress import JobProgress
from neucodec_streaming.server.bulk.recordings import AudioFile, batches, find_recordings
from neucodec_streaming.server.bulk.rows import Skipped, WrittenFile
from neucodec_streaming.server.bulk.table import SAVE_EVERY_S, TokenTable, count_rows, only_writer, read_rows
from neucodec_streaming.tokens import TokenRecord

if TYPE_CHECKING:
    from neucodec_streaming.server.bulk.coding import BulkCoder

AHEAD = 2
"""Batches submitted for each worker in advance."""
Item = TypeVar("Item")
Result = TypeVar("Result")
MakeCoder = Callable[[], "BulkCoder"]


def load_coder(model: str, device: str, threads: int, max_seconds: float) -> "BulkCoder":
    """Creates a coder; torch is imported here, so only in workers. Raises ModelError, ConfigError."""
    from neucodec_streaming.server.bulk.coding import BulkCoder

    return BulkCoder(model, device, threads, max_seconds)


def encode_files(
    source: Path,
    out: Path,
    make_coder: MakeCoder,
    *,
    workers: int = 1,
    batch_size: int = 1,
    save_every_s: float = SAVE_EVERY_S,
) -> JobProgress:
    """Encodes every recording in a folder to a row of the table `out`, once, however often the job is killed and
    restarted.

    `make_coder` is called in each worker. Raises ConfigError, ModelError, and DeviceError when a worker dies.
    """
    found = find_recordings(source)
    with only_writer(out), worker_pool(workers, make_coder) as pool:
        with TokenTable(out, pool.submit(_token_model).result(), save_every_s) as table:
            left = [recording for recording in found if recording.id not in table.done]
            progress = JobProgress(len(found), len(found) - len(left))
            for rows in results(pool, _encode, batches(left, batch_size), AHEAD * workers):
                table.add([row for row in rows if isinstance(row, TokenRecord)])
                progress.add(rows)
        progress.finish(out)
    return progress


def decode_files(source: Path, out: Path, make_coder: MakeCoder, *, workers: int = 1) -> JobProgress:
    """Decodes every row of a table to ID.wav in `out`; existing files stay. Raises as encode_files does."""
    progress = JobProgress(count_rows(source))
    with only_writer(out), worker_pool(workers, make_coder) as pool:
        for written in results(pool, partial(_decode, out), read_rows(source), AHEAD * workers):
            progress.add([written])
        progress.finish(out)
    return progress


@contextmanager
def worker_pool(workers: int, make_coder: MakeCoder) -> Iterator[ProcessPoolExecutor]:
    """Processes that create a coder each at their first work, and always end with this process."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_prepare, initargs=(make_coder,))
    try:
        yield pool
    except BrokenProcessPool:
        raise DeviceError("a worker process died, perhaps out of memory: run again with fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def results(
    pool: ProcessPoolExecutor, call: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Applies `call` to each item in the pool, in order of completion, with at most `ahead` in flight."""
    source = iter(items)
    running = {pool.submit(call, item) for item in islice(source, ahead)}
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {pool.submit(call, item) for item in islice(source, len(ended))}
        for future in ended:
            yield future.result()


_make_coder: MakeCoder
"""Creates the coder of this worker process."""


def _prepare(make_coder: MakeCoder) -> None:
    global _make_coder
    _make_coder = make_coder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _end_with_parent() -> None:
    """Exits with the parent: a worker holds both ends of its queue, so it would not notice a killed parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@cache
def _coder() -> "BulkCoder":
    return _make_coder()


def _token_model() -> str:
    return _coder().codec.token_model


def _encode(recordings: list[AudioFile]) -> list[TokenRecord | Skipped]:
    return _coder().encode(recordings)


def _decode(out: Path, row: TokenRecord) -> WrittenFile | Skipped:
    return _coder().decode(row, out)
