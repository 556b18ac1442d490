"""How a worker codes recordings and table rows."""

import numpy as np
import pytest
import soundfile

from neucodec_streaming.server.bulk.coding import BulkCoder
from neucodec_streaming.server.bulk.recordings import AudioFile, batches, find_recordings
from neucodec_streaming.server.bulk.rows import Skipped, WrittenFile
from neucodec_streaming.tokens import TokenRecord
from tests.server.bulk.hosting import write_recordings
from tests.server.hosting import GOLDEN


@pytest.fixture(scope="module")
def coder() -> BulkCoder:
    return BulkCoder(str(GOLDEN), max_seconds=5.0)


@pytest.fixture
def recordings(tmp_path) -> list[AudioFile]:
    return find_recordings(write_recordings(tmp_path, 8))


def test_only_recordings_of_equal_frame_count_share_a_batch(recordings):
    found = list(batches(recordings, 3))
    lengths = [{soundfile.info(one.path).frames // 320 for one in batch} for batch in found]
    assert all(len(each) == 1 for each in lengths) and sorted(map(len, found)) == [1, 2, 2, 3]
    assert sorted(one.id for batch in found for one in batch) == [one.id for one in recordings]
    assert [len(batch) for batch in batches(recordings, 1)] == [1] * 8


def test_a_batch_gives_the_same_tokens_as_each_recording_alone(coder, recordings):
    rows = coder.encode(recordings)
    assert sorted(row.id for row in rows) == [one.id for one in recordings]
    for row in rows:
        assert isinstance(row, TokenRecord) and row.tokens.dtype == np.uint16
        (recording,) = (one for one in recordings if one.id == row.id)
        assert np.array_equal(row.tokens, coder.codec.encode(recording.path))


def test_a_bad_recording_does_not_affect_others_in_its_batch(coder, recordings, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 6), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    bad = [AudioFile(name, tmp_path / name) for name in ("long.wav", "nan.wav", "gone.wav")]
    results = coder.encode([*bad, *recordings])
    reasons = {one.id: one.reason for one in results if isinstance(one, Skipped)}
    assert sorted(reasons) == ["gone.wav", "long.wav", "nan.wav"] and len(results) == 11
    for name, says in {
        "long.wav": "6 s long, the limit is 5 s",
        "nan.wav": "nan",
        "gone.wav": "gone.wav cannot",
    }.items():
        assert says in reasons[name]


def test_a_batch_that_runs_out_of_memory_is_coded_one_by_one(coder, recordings, monkeypatch):
    whole = coder.codec.encode_batch

    def encode_batch(pcms):
        if len(pcms) > 1 or len(pcms[0]) == 24_000:
            raise RuntimeError("out of memory")
        return whole(pcms)

    monkeypatch.setattr(coder.codec, "encode_batch", encode_batch)
    results = coder.encode(recordings)
    skipped = [one for one in results if isinstance(one, Skipped)]
    assert [one.reason for one in skipped] == ["out of memory"] * 2 and len(results) == 8


def test_an_undecodable_file_name_becomes_a_valid_id(tmp_path):
    name = b"caf\xe9.wav"
    with open(bytes(tmp_path) + b"/" + name, "wb"):
        pass
    (recording,) = find_recordings(tmp_path)
    assert recording.id == "caf\\xe9.wav" and recording.path.exists()


def test_audio_is_written_whole_and_never_overwrites_a_file(coder, recordings, tmp_path):
    row = next(row for row in coder.encode(recordings) if isinstance(row, TokenRecord) and len(row.tokens))
    target = tmp_path / "out" / f"{row.id}.wav"
    assert coder.decode(row, tmp_path / "out") == WrittenFile(row.id, len(row.tokens) / 50, is_new=True)
    audio, rate = soundfile.read(target)
    assert rate == 24_000 and np.abs(audio - np.clip(coder.codec.decode(row.tokens), -1, 1)).max() < 1e-4
    target.write_text("mine")
    assert coder.decode(row, tmp_path / "out") == WrittenFile(row.id, row.seconds, is_new=False)
    assert target.read_text() == "mine" and [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "", ".", "a\0b"])
def test_an_id_that_leaves_the_folder_is_skipped(coder, name, tmp_path):
    row = TokenRecord(name, np.zeros(3, np.uint16), 0.06, coder.codec.token_model)
    result = coder.decode(row, tmp_path / "out")
    assert (
        isinstance(result, Skipped)
        and "is not a path inside the output folder" in result.reason
        and not list(tmp_path.iterdir())
    )


def test_tokens_of_another_model_are_skipped(coder, tmp_path):
    result = coder.decode(TokenRecord("a", np.zeros(3, np.uint16), 0.06, "another"), tmp_path)
    assert isinstance(result, Skipped) and "tokens are of model 'another'" in result.reason
