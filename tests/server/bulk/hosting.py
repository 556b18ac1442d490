"""Recordings for bulk jobs."""

from pathlib import Path

import numpy as np
import soundfile

LENGTHS = (100, 16_000, 16_000 + 90, 24_000)
"""Lengths in samples: less than a frame, two with equal frame counts, and a longer one."""


def write_recordings(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(7)
    for number in range(count):
        path = folder / ("a", "b")[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, LENGTHS[number % len(LENGTHS)]).astype(np.float32), 16_000)
    return folder
