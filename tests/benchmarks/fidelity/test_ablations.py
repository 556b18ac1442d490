"""Each ablation changes what it says and nothing else."""

from functools import partial

import numpy as np
import pytest
import torch

pytest.importorskip("pesq", reason="PESQ is not installed: it needs a C compiler")

from benchmarks.fidelity import ablations
from benchmarks.fidelity.ablations import ABLATIONS, Seeds, ablated, looking_ahead
from benchmarks.fidelity.batched_streams import stream_all
from benchmarks.fidelity.references import Reference, references
from neucodec_streaming import StreamConfig
from neucodec_streaming.codec import Codec
from neucodec_streaming.decoder import Decoder
from neucodec_streaming.layers.mel import offline_features
from neucodec_streaming.layers.norm import PoolingWeights
from neucodec_streaming.layers.step import StepPlan
from tests.streaming.models import codec_of, recording


@pytest.fixture(scope="module")
def codec() -> Codec:
    return codec_of("golden")


@pytest.fixture(scope="module")
def spoken(codec: Codec) -> list[Reference]:
    return references(codec, [recording(12_000), recording(17_000)[5_000:]])


def one_step(position: int, valid: int, commit: int) -> StepPlan:
    row = torch.zeros(1, dtype=torch.int64)
    return StepPlan(row, row + valid, row + commit, row + position, chunk=commit if position else None)


@pytest.mark.parametrize("branch", ["semantic", "acoustic"])
def test_a_branch_with_the_default_lookahead_equals_the_encoder(codec: Codec, branch: str) -> None:
    own, seed = looking_ahead(codec, [], branch, codec.default_config.lookahead_frames)
    assert seed is None
    (tokens,), (expected,) = (stream_all(stepper, [recording(12_000)]) for stepper in (own, codec.encoder()))
    assert np.array_equal(np.concatenate(tokens), np.concatenate(expected))


@pytest.mark.parametrize(("branch", "frames"), [("semantic", 0), ("acoustic", 2)])
def test_a_branch_does_not_see_beyond_its_lookahead(codec: Codec, branch: str, frames: int) -> None:
    encoder, _ = looking_ahead(codec, [], branch, frames)
    config = encoder.config
    x = torch.from_numpy(recording((config.window_frames + 1) * 320).copy())[None]
    other = x.clone()
    other[:, (config.chunk_frames + frames + 1) * 320 :] = 0.1
    plan = one_step(50, config.window_frames, config.chunk_frames)
    step = getattr(encoder, f"_{branch}")
    with torch.inference_mode():
        seen, unseen = (step(pcm, encoder.new_state(1), plan)[:, : config.chunk_frames] for pcm in (x, other))
    torch.testing.assert_close(seen, unseen)


def test_known_mel_statistics_normalise_as_the_offline_extractor(codec: Codec, spoken: list[Reference]) -> None:
    encoder, seed = ablations.knowing(codec, spoken, "encode", ablations.UNMOVED_FRAMES)
    config, pcm = encoder.config, spoken[1].pcm
    state = encoder.new_state(1)
    seed(state, 0, 1)
    window = torch.from_numpy(pcm[: (config.window_frames + 1) * 320])[None]
    plan = one_step(0, config.window_frames, config.chunk_frames)
    weights = PoolingWeights(
        plan, state.frames_seen, 2 * config.window_frames, encoder.prior_frames, encoder.cap_frames, unit=2
    )
    features = encoder.mel.step(window, state.mel, weights)
    padded = np.pad(pcm, (0, 320 - len(pcm) % 320))
    offline = offline_features(torch.from_numpy(padded)[None])[:, : config.window_frames]
    torch.testing.assert_close(features[:, : config.window_frames], offline, atol=1e-3, rtol=1e-3)


def test_known_group_norm_statistics_are_those_of_the_offline_layers(codec: Codec, spoken: list[Reference]) -> None:
    norm = codec.model.acoustic_decoder.prior_net[0].norm1
    seen = []
    hook = norm.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    moments = ablations.group_norm_statistics(codec, spoken[0].tokens)[0]
    hook.remove()
    x, y = seen[0]
    grouped = x[0].unflatten(0, (norm.num_groups, -1))
    normal = (grouped - moments.mean[:, None, None]) / (moments.variance + norm.eps).sqrt()[:, None, None]
    expected = normal.flatten(0, 1) * norm.weight[:, None] + norm.bias[:, None]
    torch.testing.assert_close(expected, y[0], atol=1e-4, rtol=1e-4)


def test_seeds_have_the_given_weight_and_statistics_of_recordings(codec: Codec, spoken: list[Reference]) -> None:
    statistics = [ablations.mel_statistics(reference.pcm) for reference in spoken]
    state = codec.encoder().new_state(3)
    Seeds(statistics, weight_frames=300, shift=1)(state, 2, 0)
    assert state.frames_seen[:, 0].tolist() == [0, 0, 300]
    torch.testing.assert_close(state.mel.mean[2], statistics[1][0].mean)


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_a_cap_bounds_the_weight_of_the_past(codec: Codec, spoken: list[Reference], kind: str) -> None:
    stepper, seed = ablations.knowing(codec, spoken, kind, weight_frames=8)
    state = stepper.new_state(1)
    seed(state, 0, 0)
    x = torch.zeros(1, *stepper.window_shape, dtype=torch.float32 if kind == "encode" else torch.int64)
    row = torch.zeros(1, dtype=torch.int64)
    stepper.step(x, state, row, row + stepper.config.window_frames, row + stepper.config.chunk_frames)
    assert state.frames_seen.item() == 8


@torch.inference_mode()
def test_window_statistics_do_not_depend_on_the_past(codec: Codec) -> None:
    decoder, _ = ablations.with_window_statistics(codec, [])
    tokens = torch.randint(65_536, (1, 10), generator=torch.Generator().manual_seed(0))
    fresh, old = decoder.new_state(1), decoder.new_state(1)
    old.frames_seen += 1000
    for moments in ablations.running_moments(old):
        moments.mean += 5
    outputs = [decoder.compute(tokens, state, one_step(50, 10, 5)) for state in (fresh, old)]
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-3)  # a past of weight 0 still takes part in the rounding


@pytest.mark.parametrize("kind", [ablations.WindowISTFT, ablations.MixedISTFT])
def test_windows_synthesised_alone_equal_offline_where_one_holds_the_recording(codec: Codec, kind: type) -> None:
    tokens = codec.encode(recording(12_000))
    config = StreamConfig(chunk_frames=len(tokens) + 1, lookahead_frames=2, context_frames=0, prior_weight=0)
    decoder = ablations.built(Decoder, codec, config)
    decoder.istft = kind(decoder.istft.head, config)
    ((audio,),) = stream_all(decoder, [tokens])
    np.testing.assert_allclose(audio, codec.decode(tokens), atol=1e-4)


def test_a_mixed_window_continues_the_previous_one(codec: Codec) -> None:
    tokens = codec.encode(recording(12_000))
    config = StreamConfig(chunk_frames=5, lookahead_frames=5, prior_weight=0)
    cut, mixed = (ablations.built(Decoder, codec, config) for _ in range(2))
    cut.istft = ablations.WindowISTFT(cut.istft.head, config)
    mixed.istft = ablations.MixedISTFT(mixed.istft.head, config)
    (hard,), (soft,) = (stream_all(decoder, [tokens]) for decoder in (cut, mixed))
    np.testing.assert_array_equal(hard[0], soft[0])
    assert not np.allclose(hard[1][:240], soft[1][:240])
    np.testing.assert_allclose(hard[1][470:480], soft[1][470:480], atol=0.03 * np.abs(hard[1]).max())
    np.testing.assert_array_equal(hard[1][480:], soft[1][480:])


def test_every_kind_of_ablation_measures(codec: Codec, spoken: list[Reference]) -> None:
    seen = set()
    for ablation in ABLATIONS:
        make = ablation.make.func if isinstance(ablation.make, partial) else ablation.make
        if (make, ablation.kind) not in seen:
            seen.add((make, ablation.kind))
            row = ablated(codec, ablation, spoken)
            assert 0 < row["levels_equal"] <= 1 and row["log_mel"] >= 0
            assert row["levels_equal"] == 1 or ablation.kind == "encode"
    assert len(seen) == 7


def test_ablations_have_distinct_names() -> None:
    assert len({(ablation.name, ablation.kind) for ablation in ABLATIONS}) == len(ABLATIONS)
