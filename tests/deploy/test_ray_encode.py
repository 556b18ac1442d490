"""The bulk job on a Ray cluster whose nodes are local processes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neucodec_streaming.codec import load_codec
from tests.server.bulk.hosting import write_recordings
from tests.server.hosting import GOLDEN

pytest.importorskip("pyarrow", reason="the extra `bulk` is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra `ray` is not installed")
JOB = Path(__file__).resolve().parents[2] / "deploy" / "ray_encode.py"
pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
def address():
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def test_nodes_code_every_recording_once_with_the_same_tokens_as_alone(address, tmp_path):
    from neucodec_streaming.server.bulk.table import read_rows

    recordings, out = write_recordings(tmp_path / "recordings", 8), tmp_path / "out"
    (recordings / "broken.wav").write_bytes(b"RIFF")
    command = [sys.executable, str(JOB), str(recordings), str(out), "--model", str(GOLDEN), "--address", address]
    command += ["--actors", "2", "--batch-size", "2"]
    first, again = (subprocess.run(command, capture_output=True, text=True, check=False, timeout=300) for _ in range(2))
    assert first.returncode == 1 and "skipped broken.wav" in first.stderr, first.stderr
    assert first.stdout.startswith("8 recordings") and "8 were already done" in again.stdout
    rows, codec = list(read_rows(out)), load_codec(GOLDEN)
    assert sorted(row.id for row in rows) == sorted(
        path.relative_to(recordings).as_posix() for path in recordings.glob("?/*")
    )
    assert all(np.array_equal(row.tokens, codec.encode(recordings / row.id)) for row in rows)


def test_nodes_code_the_recordings_within_a_table(address, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from neucodec_streaming.server.bulk.table import read_rows

    recordings, out = write_recordings(tmp_path / "recordings", 4), tmp_path / "out"
    paths = sorted(recordings.glob("?/*"))
    audio = [path.read_bytes() for path in paths]
    pq.write_table(pa.table({"id": [path.name for path in paths], "audio": audio}), tmp_path / "table.parquet")
    command = [sys.executable, str(JOB), str(tmp_path / "table.parquet"), str(out), "--model", str(GOLDEN)]
    done = subprocess.run([*command, "--address", address], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    codec, by_name = load_codec(GOLDEN), {path.name: path for path in paths}
    rows = list(read_rows(out))
    assert sorted(row.id for row in rows) == sorted(by_name)
    assert all(np.array_equal(row.tokens, codec.encode(by_name[row.id])) for row in rows)
