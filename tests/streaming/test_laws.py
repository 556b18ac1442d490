"""The five laws of a stream, on the golden model and on the bundled one, with random cuts and fixed seeds.

In int8 law 2 compares with fake-quantised weights and activations: tests/streaming/test_int8.py.
On the CPU, and on a CUDA device in software; with NEUCODEC_TEST_DEVICE=cuda on a real one.
"""

import numpy as np
import pytest
import torch

from neucodec_streaming import SnapshotError, StreamConfig
from neucodec_streaming.protocol.concealment import MIDDLE_TOKEN, gap_tokens
from tests.streaming.models import (
    ALL_MODELS,
    SOFT,
    StepBatch,
    codec_of,
    random_cuts,
    recording,
    vectors,
    whole,
)

GRID = [(chunk, lookahead) for chunk in (1, 4, 5) for lookahead in (0, 1, 5)]
SAMPLES = (0, 1, 37, 160, 319, 320, 321, 1600, 4801)
TOKENS = (0, 1, 2, 3, 5, 8, 17)

SOFT_GRID = [(5, 5)]  # the software device is slow

every_model = pytest.mark.parametrize("model", ALL_MODELS)
every_exact_model = pytest.mark.parametrize("model", [model for model in ALL_MODELS if not model.endswith("int8")])
every_model_and_cut = pytest.mark.parametrize(
    ("model", "chunk", "lookahead"),
    [(model, *cut) for model in ALL_MODELS for cut in (SOFT_GRID if model == SOFT else GRID)],
)


@pytest.fixture(autouse=True)
def _software_device(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("model") == SOFT:
        request.getfixturevalue("cuda")


def config_of(chunk: int, lookahead: int) -> StreamConfig:
    return StreamConfig(chunk, lookahead, context_frames=20)


def some_tokens(count: int = 43, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65_536, count).astype(np.uint16)


@every_model_and_cut
def test_law_1_any_partition_of_audio_gives_the_same_tokens(model: str, chunk: int, lookahead: int) -> None:
    pcm = recording(3000 + 1000 * chunk)
    stream = codec_of(model).encoder_stream(config_of(chunk, lookahead))
    expected = np.concatenate([stream.feed(pcm), stream.flush()])
    parts = [stream.feed(packet) for packet in random_cuts(pcm, chunk + lookahead, SAMPLES)]
    np.testing.assert_array_equal(np.concatenate([*parts, stream.flush()]), expected)


@every_model_and_cut
def test_law_1_any_partition_of_tokens_gives_the_same_audio(model: str, chunk: int, lookahead: int) -> None:
    tokens = some_tokens()
    stream = codec_of(model).decoder_stream(config_of(chunk, lookahead))
    expected = np.concatenate([stream.feed(tokens), stream.flush()])
    for seed in (1, 2):
        parts = [stream.feed(packet) for packet in random_cuts(tokens, seed, TOKENS)]
        assert all(len(part) % 480 == 0 for part in parts)
        np.testing.assert_array_equal(np.concatenate([*parts, stream.flush()]), expected)


@every_model_and_cut
def test_law_1_any_partition_of_tokens_gives_the_same_audio_around_lost_ones(
    model: str, chunk: int, lookahead: int
) -> None:
    tokens, lost = some_tokens(), np.zeros(43, bool)
    for gap in (
        slice(0, 2),
        slice(4, 5),
        slice(7, 8),
        slice(10, 24),
        slice(40, 43),
    ):  # the fourth one spans several windows
        lost[gap] = True
    stream = codec_of(model).decoder_stream(config_of(chunk, lookahead))
    expected = np.concatenate([stream.feed(tokens, lost), stream.flush()])
    anything = np.where(lost, 0, tokens)
    for cuts in ([1] * 43, [11, 1, 5, 26], [41, 1, 1], [3, 4, 13, 23]):
        places = np.split(np.arange(43), np.cumsum(cuts)[:-1])
        parts = [stream.feed(anything[packet], lost[packet]) for packet in places]
        np.testing.assert_array_equal(np.concatenate([*parts, stream.flush()]), expected)


def test_lost_tokens_are_filled_from_the_nearest_known_tokens_in_or_before_their_window() -> None:
    stream = codec_of("golden").decoder_stream(config_of(4, 1))
    lost = np.zeros(10, bool)
    lost[[2, 6, 7, 9]] = True
    tokens = some_tokens(10)
    audio = np.concatenate([stream.feed(tokens, lost), stream.flush()])
    filled = tokens.tolist()
    filled[2:3] = gap_tokens(filled[1], 1, filled[3])
    filled[6:8] = gap_tokens(filled[5], 2, filled[8])
    filled[9:] = gap_tokens(filled[8], 1, MIDDLE_TOKEN)
    np.testing.assert_array_equal(audio, np.concatenate([stream.feed(filled), stream.flush()]))


def test_a_gap_over_many_windows_fades_to_the_middle_of_the_codebook() -> None:
    stream = codec_of("golden").decoder_stream(config_of(1, 0))
    lost = np.arange(12) > 0
    audio = np.concatenate([stream.feed(np.full(12, 0xFFFF), lost), stream.flush()])
    filled = np.array([0xFFFF, *gap_tokens(0xFFFF, 11, MIDDLE_TOKEN)])
    np.testing.assert_array_equal(audio, np.concatenate([stream.feed(filled), stream.flush()]))


@every_exact_model
@pytest.mark.parametrize("name", ["short", "exact", "long"])
def test_law_2_one_chunk_of_a_whole_recording_equals_the_offline_model(model: str, name: str) -> None:
    codec = codec_of(model)
    pcm = vectors()[f"{name}.wav"][0, 0].numpy()
    config = whole(len(pcm) // 320)
    encoder, decoder = codec.encoder_stream(config), codec.decoder_stream(config)
    tokens = np.concatenate([encoder.feed(pcm), encoder.flush()])
    np.testing.assert_array_equal(tokens, codec.encode(pcm))
    audio = np.concatenate([decoder.feed(tokens), decoder.flush()])
    expected = codec.decode(tokens)
    assert np.abs(audio - expected).max() <= 1e-4 * np.abs(expected).max()


@every_model_and_cut
def test_law_3_a_row_of_a_batch_does_not_see_its_neighbours(model: str, chunk: int, lookahead: int) -> None:
    codec = codec_of(model)
    config = config_of(chunk, lookahead)
    for stepper, mine, theirs in (
        (codec.encoder(config), recording(3000), recording()[9000:16_000]),
        (codec.decoder(config), some_tokens(21), some_tokens(40, seed=9)),
    ):
        alone, among = StepBatch(stepper, 4), StepBatch(stepper, 4)
        for row, size in ((0, len(theirs)), (3, len(theirs) // 2)):  # other rows of other ages and lengths
            among.lanes[row].push(theirs[:size])
            among.step()
        alone.lanes[1].push(mine)
        among.lanes[1].push(mine)
        np.testing.assert_array_equal(among.run(1), alone.run(1))


@every_model
def test_law_3_a_row_of_a_batch_equals_the_row_alone(model: str) -> None:
    codec = codec_of(model)
    config = config_of(5, 5)
    tokens = some_tokens()
    stream = codec.decoder_stream(config)
    expected = np.concatenate([stream.feed(tokens), stream.flush()])
    batch = StepBatch(codec.decoder(config), 8)
    for row in range(8):
        batch.lanes[row].push(some_tokens(50, seed=row) if row != 2 else tokens)
    assert np.abs(batch.run(2) - expected).max() <= 1e-4 * np.abs(expected).max()


@every_model
def test_law_3_a_rows_bits_do_not_change_with_an_edge_in_another_row(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step without edges skips work; one row at its start or end brings that work back for all rows."""
    codec = codec_of(model)
    for new, x in ((codec.encoder_stream, recording(20_000)), (codec.decoder_stream, some_tokens(60))):
        without = new(config_of(5, 5)).feed(x)
        with monkeypatch.context() as patch:
            patch.setattr("neucodec_streaming.stepper.START_FRAMES", 1_000_000)
            np.testing.assert_array_equal(new(config_of(5, 5)).feed(x), without)


@every_model
def test_law_3_reset_equals_new(model: str) -> None:
    codec = codec_of(model)
    pcm, tokens = recording(8000), some_tokens(23)
    for stream, x, other in (
        (codec.encoder_stream(config_of(4, 1)), pcm, recording()[8000:20_000]),
        (codec.decoder_stream(config_of(4, 1)), tokens, some_tokens(30, seed=5)),
    ):
        expected = np.concatenate([stream.feed(x), stream.flush()])
        stream.feed(other)
        stream.reset()
        np.testing.assert_array_equal(np.concatenate([stream.feed(x), stream.flush()]), expected)


@every_model_and_cut
def test_law_4_a_snapshot_continues_bit_identically(model: str, chunk: int, lookahead: int) -> None:
    codec = codec_of(model)
    config = config_of(chunk, lookahead)
    pcm, tokens = recording(6000), some_tokens(30)
    for new, x, cut in ((codec.encoder_stream, pcm, 3700), (codec.decoder_stream, tokens, 19)):
        first, second = new(config), new(config)
        first.feed(x[:cut])
        second.feed(x[: cut // 2])
        second.restore(first.snapshot())
        expected = np.concatenate([first.feed(x[cut:]), first.flush()])
        np.testing.assert_array_equal(np.concatenate([second.feed(x[cut:]), second.flush()]), expected)


def test_law_4_a_snapshot_inside_a_gap_continues_bit_identically() -> None:
    lost = np.zeros(30, bool)
    lost[8:20] = True
    tokens = some_tokens(30)
    for cut in (9, 13, 19):
        first, second = (codec_of("golden").decoder_stream(config_of(4, 1)) for _ in range(2))
        first.feed(tokens[:cut], lost[:cut])
        second.restore(first.snapshot())
        expected = np.concatenate([first.feed(tokens[cut:], lost[cut:]), first.flush()])
        np.testing.assert_array_equal(np.concatenate([second.feed(tokens[cut:], lost[cut:]), second.flush()]), expected)


def test_law_4_a_snapshot_of_another_stream_or_damaged_is_refused_and_changes_nothing() -> None:
    golden = codec_of("golden")
    stream = golden.decoder_stream(config_of(4, 1))
    tokens = some_tokens(23)
    expected = np.concatenate([stream.feed(tokens), stream.flush()])
    stream.feed(tokens[:9])
    good = stream.snapshot()
    foreign = golden.decoder_stream(config_of(5, 1)).snapshot()
    other_kind = golden.encoder_stream(config_of(4, 1)).snapshot()
    other_model = codec_of("nano").decoder_stream(config_of(4, 1)).snapshot()
    damaged = good[:-40] + bytes([good[-40] ^ 1]) + good[-39:]
    longer_lane = (len(good) + 5).to_bytes(4, "little") + good[4:]
    for bad in (b"", b"NEUS", foreign, other_kind, other_model, damaged, good[:-1], longer_lane):
        with pytest.raises(SnapshotError):
            stream.restore(bad)
    audio = np.concatenate([stream.feed(tokens[9:]), stream.flush()])
    np.testing.assert_array_equal(audio, expected[-len(audio) :])


@every_model_and_cut
def test_law_5_the_delay_equals_the_buffered_input(model: str, chunk: int, lookahead: int) -> None:
    codec = codec_of(model)
    encoder = codec.encoder_stream(config_of(chunk, lookahead))
    fed = given = 0
    for packet in random_cuts(recording(7777), 3, SAMPLES):
        fed, given = fed + len(packet), given + 320 * len(encoder.feed(packet))
        assert encoder.delay_samples == fed - given
        assert encoder.delay_samples < encoder.latency_ms * 16
    assert given + 320 * len(encoder.flush()) == 7777 // 320 * 320
    assert encoder.delay_samples == 0
    decoder = codec.decoder_stream(config_of(chunk, lookahead))
    fed = given = 0
    for packet in random_cuts(some_tokens(), 4, TOKENS):
        fed, given = fed + len(packet), given + len(decoder.feed(packet)) // 480
        assert decoder.delay_frames == fed - given
        assert decoder.delay_frames * 20 < decoder.latency_ms
    assert given + len(decoder.flush()) // 480 == fed
    assert decoder.delay_frames == 0


@every_model
@pytest.mark.parametrize("samples", [0, 1, 319])
def test_law_5_less_than_a_frame_gives_no_token_and_no_error(model: str, samples: int) -> None:
    stream = codec_of(model).encoder_stream()
    assert len(stream.feed(recording(samples))) == 0
    assert len(stream.flush()) == 0
    assert len(codec_of(model).encode(recording(samples))) == 0
    decoder = codec_of(model).decoder_stream()
    assert len(decoder.flush()) == 0


@every_exact_model
def test_the_quantisers_input_equals_the_offline_models(model: str) -> None:
    """Law 2 at the quantiser's input, since tokens would hide small differences."""
    codec = codec_of(model)
    pcm = recording(8000)
    offline = []
    hook = codec.model.quantizer.register_forward_pre_hook(lambda _, args: offline.append(args[0]))
    codec.encode(pcm)
    hook.remove()
    encoder = codec.encoder(whole(25))
    x = torch.zeros(1, *encoder.window_shape, device=codec.device)
    x[0, :8000] = torch.from_numpy(pcm).to(codec.device)
    steps: list[torch.Tensor] = []
    hook = encoder.model.quantizer.register_forward_pre_hook(lambda _, args: steps.append(args[0]))
    encoder.step(x, encoder.new_state(1), *torch.tensor([[0], [25], [25]], device=codec.device))
    hook.remove()
    error = (steps[0][:, :25] - offline[0]).abs().max()
    assert error <= 1e-4 * offline[0].abs().max()
