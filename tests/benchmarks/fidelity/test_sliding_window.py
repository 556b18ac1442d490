"""The sliding window is the offline model on each window, keeps the new frames, and joins them without a gap."""

import numpy as np
import pytest

from benchmarks.fidelity import sliding_window as sliding
from benchmarks.fidelity.sliding_window import Geometry, SlidingWindow, windows
from neucodec_streaming import StreamConfig
from tests.streaming.models import codec_of, recording

SAMPLES = 16_137
GEOMETRY = Geometry(back=35, new=5, ahead=5)


def test_windows_keep_every_frame_once_and_stay_within_the_recording() -> None:
    assert list(windows(frames=23, whole=23, geometry=Geometry(back=8, new=5, ahead=3))) == [
        SlidingWindow(0, 0, 5, 8),
        SlidingWindow(0, 5, 10, 13),
        SlidingWindow(2, 10, 15, 18),
        SlidingWindow(7, 15, 20, 23),
        SlidingWindow(12, 20, 23, 23),
    ]


def test_a_recording_shorter_than_a_window_is_one_window() -> None:
    assert list(windows(frames=7, whole=7, geometry=GEOMETRY)) == [SlidingWindow(0, 0, 7, 7)]
    assert list(windows(frames=0, whole=-1, geometry=GEOMETRY)) == []


def test_a_window_waits_for_the_samples_that_its_last_mel_frame_reads() -> None:
    assert next(windows(frames=10, whole=10, geometry=GEOMETRY)).end == 10
    assert list(windows(frames=10, whole=9, geometry=GEOMETRY)) == [SlidingWindow(0, 0, 10, 10)]


@pytest.mark.parametrize("model", ["golden", "nano"])
def test_each_window_is_encoded_as_by_the_offline_model(model: str) -> None:
    codec, pcm = codec_of(model), recording(SAMPLES)
    (tokens,) = sliding.encode(codec, [pcm], GEOMETRY)
    frames = len(pcm) // 320
    expected = []
    for window in windows(frames, (len(pcm) - 240) // 320, GEOMETRY):
        until = len(pcm) if window.stop == frames else window.end * 320 + 240
        offline = codec.encode(pcm[window.start * 320 : until])
        expected.append(offline[window.first - window.start : window.stop - window.start])
    assert np.array_equal(tokens, np.concatenate(expected))


def test_each_window_is_decoded_as_by_the_offline_model_except_for_the_cross_fade() -> None:
    codec, pcm = codec_of("golden"), recording(SAMPLES)
    tokens = codec.encode(pcm)
    (pieces,) = sliding.decode(codec, [tokens], GEOMETRY)
    before = None
    for window, piece in zip(windows(len(tokens), len(tokens), GEOMETRY), pieces, strict=True):
        audio = codec.decode(tokens[window.start : window.end])[(window.first - window.start) * 480 :]
        kept = (window.stop - window.first) * 480
        np.testing.assert_allclose(piece[480:], audio[480:kept], atol=1e-5)
        first = audio[:480] if before is None else sliding.cross_faded(before, audio[:480])
        np.testing.assert_allclose(piece[:480], first, atol=1e-5)
        before = audio[kept : kept + 480]


def test_a_cross_fade_begins_with_the_old_and_ends_with_the_new() -> None:
    faded = sliding.cross_faded(np.zeros(480, np.float32), np.ones(480, np.float32))
    assert faded[0] < 0.01 and faded[-1] > 0.99 and (np.diff(faded) > 0).all()


def test_recordings_do_not_affect_each_other() -> None:
    codec, pcm = codec_of("golden"), recording(SAMPLES)
    inputs = [pcm[:5000], pcm[:9000], pcm[4000:11000]]
    together = sliding.encode(codec, inputs, GEOMETRY)
    for own, tokens in zip(inputs, together, strict=True):
        assert np.array_equal(tokens, sliding.encode(codec, [own], GEOMETRY)[0])


def test_the_window_uses_the_streams_istft_delay_as_lookahead() -> None:
    config = StreamConfig(chunk_frames=5, lookahead_frames=0)
    assert sliding.decode_geometry(config) == Geometry(50, 5, 2)
    assert sliding.encode_geometry(config) == Geometry(200, 5, 0)
