"""Blocks that run ahead of the committed frames give the same output as computing every window whole."""

import numpy as np
import pytest
import torch
from torch import Tensor

from neucodec_streaming import StreamConfig
from neucodec_streaming.layers.acoustic import StreamingAcoustic
from neucodec_streaming.layers.step import StepPlan
from neucodec_streaming.windows import EncoderWindower
from tests.streaming.models import MODELS, codec_of, recording

every_model = pytest.mark.parametrize("model", MODELS)

pytestmark = pytest.mark.usefixtures("operations")


def acoustic_of(model: str, lookahead: int, ahead: bool = True) -> StreamingAcoustic:
    acoustic = StreamingAcoustic(codec_of(model).encoder().model.acoustic_encoder, lookahead)
    for block in acoustic.blocks:
        block.lead = block.lead if ahead else 0
    return acoustic


def run(acoustic: StreamingAcoustic, config: StreamConfig, pcm: np.ndarray) -> Tensor:
    """Returns (F, D), the ending included."""
    windower = EncoderWindower(config)
    windower.push(pcm)
    state = acoustic.new_state(1)
    parts, position, window = [], 0, windower.take() or windower.take_last()
    while window is not None:
        plan = StepPlan(*(torch.tensor([count]) for count in (0, window.valid + 1, window.commit, position)))
        x = torch.from_numpy(window.x)[None, :, None]
        parts.append(acoustic.step(x, state, plan)[0, : window.commit])
        position += window.commit
        ended = window.valid == window.commit
        window = None if ended else windower.take() or windower.take_last()
    return torch.cat(parts)


@every_model
@pytest.mark.parametrize(("chunk", "lookahead"), [(5, 5), (1, 3), (2, 9), (7, 1)])
@pytest.mark.parametrize("frames", [1, 2, 4, 5, 8, 11, 40])
@torch.inference_mode()
def test_running_ahead_changes_no_output(model: str, chunk: int, lookahead: int, frames: int) -> None:
    config = StreamConfig(chunk, lookahead)
    pcm = recording(frames * 320 + 100)
    whole, ahead = (run(acoustic_of(model, lookahead, ahead=way), config, pcm) for way in (False, True))
    assert len(whole) == frames
    torch.testing.assert_close(ahead, whole, atol=1e-5 * float(whole.abs().max()), rtol=0)


@every_model
def test_a_block_runs_ahead_as_far_as_its_right_context_allows(model: str) -> None:
    """No further: later input must not change any vector that is kept."""
    leads = [block.lead for block in acoustic_of(model, 5).blocks]
    assert leads[:2] == [5, 4] and leads == sorted(leads, reverse=True)
    assert not any(block.lead for block in acoustic_of(model, 0).blocks)
