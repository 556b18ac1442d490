"""Bulk jobs: every recording is coded exactly once, with the tokens that the codec gives for it alone."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from neucodec_streaming.codec import Codec, load_codec
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.bulk.jobs import decode_files, encode_files, load_coder
from neucodec_streaming.server.bulk.progress import SKIPPED_FILE
from neucodec_streaming.server.bulk.table import only_writer, read_rows
from tests.server.bulk.hosting import write_recordings
from tests.server.hosting import GOLDEN

COMMAND = [sys.executable, "-m", "neucodec_streaming.server"]
COUNT = 12
make_coder = partial(load_coder, str(GOLDEN), "cpu", 1, 5.0)


@pytest.fixture
def recordings(tmp_path) -> Path:
    return write_recordings(tmp_path / "recordings", COUNT)


def ids_of(table: Path) -> list[str]:
    return sorted(pq.read_table(table)["id"].to_pylist())


def check_tokens_are_those_alone(table: Path, recordings: Path, codec: Codec) -> None:
    for row in read_rows(table):
        assert row.model == codec.token_model
        assert row.seconds == soundfile.info(recordings / row.id).duration
        assert np.array_equal(row.tokens, codec.encode(recordings / row.id)), row.id


@pytest.mark.slow
def test_a_killed_job_leaves_no_worker_and_a_restart_codes_each_recording_once(recordings, tmp_path):
    out = tmp_path / "out"
    killing = [sys.executable, "-m", "tests.server.bulk.killing", str(GOLDEN), str(recordings), str(out)]
    job = subprocess.run(killing, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, timeout=100)
    assert job.returncode == -signal.SIGKILL  # and its stderr has ended: no worker holds it
    before = ids_of(out)
    assert 0 < len(before) < COUNT
    command = [*COMMAND, "encode-files", str(recordings), str(out), "--model", str(GOLDEN), "--workers", "1"]
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert f"{len(before)} were already done; 0 skipped" in again.stdout and "hours of audio per hour" in again.stdout
    assert ids_of(out) == sorted(path.relative_to(recordings).as_posix() for path in recordings.rglob("*.wav"))
    check_tokens_are_those_alone(out, recordings, load_codec(GOLDEN))


@pytest.mark.slow
def test_bad_files_are_skipped_until_repaired_and_the_table_decodes_to_audio(recordings, tmp_path):
    (recordings / "broken.flac").write_bytes(b"fLaC" + bytes(40))
    before = {path: path.read_bytes() for path in recordings.rglob("*.wav")}
    progress = encode_files(recordings, tmp_path / "out", make_coder, batch_size=4)
    assert progress.coded == COUNT == len(ids_of(tmp_path / "out"))
    (skipped,) = map(json.loads, (tmp_path / "out" / SKIPPED_FILE).read_text().splitlines())
    assert skipped["id"] == "broken.flac" and "cannot be read" in skipped["reason"]
    soundfile.write(recordings / "broken.flac", np.zeros(1600), 16_000)
    again = encode_files(recordings, tmp_path / "out", make_coder)
    assert (again.coded, again.done_before) == (1, COUNT) and not (tmp_path / "out" / SKIPPED_FILE).exists()
    decoded = decode_files(tmp_path / "out", recordings, make_coder)  # into the folder that they came from
    assert (decoded.coded, decoded.skipped) == (COUNT + 1, [])
    assert {path: path.read_bytes() for path in before} == before


def test_two_jobs_do_not_write_to_one_folder(recordings, tmp_path):
    with only_writer(tmp_path / "out"), pytest.raises(ConfigError, match="another job is writing"):
        encode_files(recordings, tmp_path / "out", make_coder)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["encode-files", "/nowhere", "out"], "/nowhere is not a folder"),
        (["encode-files", ".", "out"], "contains no recordings"),
        (["decode-files", ".", "out"], "no part-"),
        (["encode-files", ".", "out", "--workers", "0"], "'0' is not a whole number of 1 or more"),
        (["encode-files", ".", "out", "--workers", "x"], "'x' is not a whole number of 1 or more"),
    ],
)
def test_an_invalid_command_exits_with_code_2_and_one_reason(arguments, says, tmp_path):
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []
