"""Bulk encoding on Ray: whether a job that is killed and restarted encodes every recording exactly once.

For each number of nodes, which are processes of one core each on this machine, kills `deploy/ray_encode.py` after its
first saved rows and restarts it. Reports the rows before and after, the rate of the second run in hours of audio an
hour, and the number of tokens that differ from `Codec.encode` of the clip alone. The nodes share the machine's
processors, so the rate does not scale with their number.

    python -m benchmarks.bulk --data ../shared/speech --recordings 500 --nodes 1 3        # needs the extra `ray`
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.common.recordings import load, recordings
from benchmarks.common.surroundings import RESULTS_FOLDER, ROOT, write_report
from neucodec_streaming.codec import load_codec
from neucodec_streaming.config import INPUT_RATE
from neucodec_streaming.server.bulk.table import read_rows

RESULTS = RESULTS_FOLDER / "bulk.json"
JOB = ROOT / "deploy" / "ray_encode.py"


def write_clips(data: Path, folder: Path, count: int, seconds: float) -> None:
    size = round(seconds * INPUT_RATE)
    pcms = (load(path) for _, path in recordings(data))
    clips = (pcm[start : start + size] for pcm in pcms for start in range(0, len(pcm) - size, size))
    for number, clip in enumerate(islice(clips, count)):
        soundfile.write(folder / f"{number:04}.wav", clip, INPUT_RATE)


def killed_and_resumed(folder: Path, out: Path, model: str, nodes: int) -> dict[str, Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        command = [sys.executable, str(JOB), str(folder), str(out), "--model", model, "--address", cluster.address]
        command += ["--actors", str(nodes), "--save-every-s", "1"]
        job = subprocess.Popen(command)
        while job.poll() is None and not list(out.glob("part-*")):
            time.sleep(0.1)
        job.send_signal(signal.SIGKILL)
        job.wait()
        before = len(list(read_rows(out)))
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        cluster.shutdown()
    found = re.search(r"(\d+) hours of audio per hour", done.stdout)
    assert found is not None, done.stdout
    return {"nodes": nodes, "rows_when_killed": before, "hours_of_audio_an_hour": int(found[1])}


def compared(folder: Path, out: Path, model: str) -> dict[str, int]:
    codec = load_codec(model)
    rows = {row.id: row.tokens for row in read_rows(out)}
    ids = Counter(row.id for row in read_rows(out))
    clips = sorted(folder.glob("*.wav"))
    differing = [int(np.sum(rows[clip.name] != codec.encode(clip))) for clip in clips if clip.name in rows]
    return {
        "recordings": len(clips),
        "missing": len(clips) - len(rows),
        "twice": sum(count > 1 for count in ids.values()),
        "tokens": sum(map(len, rows.values())),
        "tokens_that_differ": sum(differing),
    }


def main() -> int:
    """Runs the jobs; returns 1 if a recording is missing, appears twice, or has different tokens."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds eval/")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--recordings", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of each clip")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clips"
        folder.mkdir()
        write_clips(given.data, folder, given.recordings, given.seconds)
        for nodes in given.nodes:
            out = Path(name) / f"table-{nodes}"
            row = killed_and_resumed(folder, out, given.model, nodes)
            rows.append(row | compared(folder, out, given.model))
            print(rows[-1], flush=True)
    write_report(given.out, {"model": given.model, "seconds_each": given.seconds, "rows": rows})
    return int(any(row["missing"] or row["twice"] or row["tokens_that_differ"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
