"""Progress and speed of a bulk job: a live line on a terminal, or a line every ten seconds in a log."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from neucodec_streaming.server.bulk.rows import Skipped, WrittenFile
from neucodec_streaming.tokens import TokenRecord

LOG_EVERY_S = 10.0
SKIPPED_FILE = "_skipped.jsonl"
"""A name that readers of Parquet folders ignore."""


@dataclass
class JobProgress:
    """Of `total` recordings: coded by this job, done before it, and skipped with a reason. `audio_s`: coded audio."""

    total: int
    done_before: int = 0
    clock: Callable[[], float] = time.monotonic
    coded: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    audio_s: float = 0.0

    def __post_init__(self) -> None:
        self._began_s = self._shown_s = self.clock()

    @property
    def hours_an_hour(self) -> float:
        return self.audio_s / max(self.clock() - self._began_s, 1e-9)

    def add(self, results: Sequence[TokenRecord | WrittenFile | Skipped]) -> None:
        """Counts results, reports skipped ones, and shows the progress when due."""
        for one in results:
            match one:
                case Skipped(id, reason):
                    self.skipped.append(one)
                    print(f"{_erased()}skipped {id}: {reason}", file=sys.stderr)
                case WrittenFile(is_new=False):
                    self.done_before += 1
                case _:
                    self.coded += 1
                    self.audio_s += one.seconds
        now_s = self.clock()
        if sys.stderr.isatty():
            print(f"{_erased()}{self.line()}", end="", file=sys.stderr, flush=True)
        elif now_s - self._shown_s >= LOG_EVERY_S:
            print(self.line(), file=sys.stderr, flush=True)
            self._shown_s = now_s

    def line(self) -> str:
        done = self.coded + self.done_before + len(self.skipped)
        left_s = (self.clock() - self._began_s) / max(done - self.done_before, 1) * (self.total - done)
        return (
            f"{done} of {self.total} recordings, {self.audio_s / 3600:.2f} h of audio,"
            f" {self.hours_an_hour:.0f} h per hour, {left_s / 60:.0f} min left"
        )

    def finish(self, folder: Path) -> None:
        """Prints a summary, and lists skipped recordings in a file."""
        path = folder / SKIPPED_FILE
        path.unlink(missing_ok=True)
        if self.skipped:
            path.write_text("".join(json.dumps(asdict(one)) + "\n" for one in self.skipped))
        listed = f" (listed in {path})" if self.skipped else ""
        print(_erased(), end="", file=sys.stderr, flush=True)
        print(
            f"{self.coded} recordings, {self.audio_s / 3600:.2f} h of audio, {self.hours_an_hour:.0f} hours of audio"
            f" per hour; {self.done_before} were already done; {len(self.skipped)} skipped{listed}"
        )


def _erased() -> str:
    return "\r\x1b[K" if sys.stderr.isatty() else ""
