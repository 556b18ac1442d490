"""Ring attention with a context and a lookahead equals upstream's attention under the corresponding mask."""

from unittest import mock

import pytest
import torch
from transformers import NeuCodecConfig, Wav2Vec2BertConfig
from transformers.models.neucodec.modeling_neucodec import NeuCodecAttention, NeuCodecRotaryEmbedding
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention

from neucodec_streaming import StreamConfig
from neucodec_streaming.kernels import native
from neucodec_streaming.kernels.packed import with_packed_weights
from neucodec_streaming.layers.attention import Ring, RingView, StreamingAttention, StreamingRelativeAttention
from neucodec_streaming.layers.step import StepPlan
from tests.streaming.layers.stepping import in_chunks, random_chunks

pytestmark = pytest.mark.usefixtures("operations")

FRAMES, WIDTH, HEADS = 40, 64, 4


def mask_of(chunks: list[int], context: int, window: int) -> torch.Tensor:
    """Additive (1, 1, F, F): a query sees `context` frames before its chunk and its window of `window` frames."""
    mask = torch.full((FRAMES, FRAMES), -1e30)
    start = 0
    for chunk in chunks:
        mask[start : start + chunk, max(0, start - context) : start + window] = 0
        start += chunk
    return mask[None, None]


def config_of(chunks: list[int], context: int) -> StreamConfig:
    return StreamConfig(max(chunks), 2, context)


@pytest.mark.parametrize("context", [0, 3, 10, 100])
@torch.inference_mode()
def test_decoder_attention_equals_upstream(context: int) -> None:
    torch.manual_seed(context)
    config = NeuCodecConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, num_key_value_heads=HEADS, head_dim=WIDTH // HEADS
    )
    config._attn_implementation = "eager"
    whole = NeuCodecAttention(config, 0)
    x = torch.randn(1, FRAMES, WIDTH)
    chunks = random_chunks(FRAMES, 3)
    positions = NeuCodecRotaryEmbedding(config)(x, torch.arange(HEADS)[None])
    keys_of_queries = mask_of(chunks, context, max(chunks) + 2)
    expected = whole(x, position_embeddings=positions, attention_mask=keys_of_queries)[0]
    layer = StreamingAttention(with_packed_weights(whole), config_of(chunks, context))
    ring = layer.new_state(1)

    def step(part: torch.Tensor, plan: StepPlan) -> torch.Tensor:
        view = RingView(plan, config_of(chunks, context), part.dtype)
        return layer.step(part, ring, view)

    y = in_chunks(step, x, chunks, 1, last=2)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("context", [0, 3, 10, 100])
@torch.inference_mode()
def test_relative_attention_equals_upstream(context: int) -> None:
    torch.manual_seed(context)
    config = Wav2Vec2BertConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        position_embeddings_type="relative_key",
        left_max_position_embeddings=6,
        right_max_position_embeddings=3,
        attention_dropout=0.0,
    )
    config._attn_implementation = "eager"
    whole = Wav2Vec2BertSelfAttention(config).eval()
    x = torch.randn(1, FRAMES, WIDTH)
    chunks = random_chunks(FRAMES, 4)
    expected = whole(x, attention_mask=mask_of(chunks, context, max(chunks) + 2))[0]
    layer = StreamingRelativeAttention(with_packed_weights(whole), config_of(chunks, context))
    ring = layer.new_state(1)

    def step(part: torch.Tensor, plan: StepPlan) -> torch.Tensor:
        view = RingView(plan, config_of(chunks, context), part.dtype)
        return layer.step(part, ring, view)

    y = in_chunks(step, x, chunks, 1, last=2)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("frames", [3, 10, 16])
@torch.inference_mode()
def test_native_attention_over_bfloat16_rings_equals_torchs_except_for_rounding(width: int, frames: int) -> None:
    context, heads, left = 37, 5, 8
    torch.manual_seed(frames)
    position = torch.tensor([0, 3, 36, 37, 500])
    rows = torch.arange(5), torch.full((5,), frames - 1), torch.full((5,), frames - 2), position
    view = RingView(StepPlan(*rows), StreamConfig(frames - 2, 2, context), torch.float32)
    query_key_value = torch.randn(5, frames, 3 * heads * width)
    by_distance = torch.randn(5, heads, frames, 2 * left + 1)
    rings = [Ring(*torch.randn(2, 5, context + frames, heads * width).bfloat16()) for _ in range(2)]
    rings[1].keys.copy_(rings[0].keys)
    rings[1].values.copy_(rings[0].values)
    found = view.attend(rings[0], query_key_value, width, width**-0.5, by_distance, left)
    with mock.patch.object(native, "operations", lambda weight: None):
        expected = view.attend(rings[1], query_key_value, width, width**-0.5, by_distance, left)
    torch.testing.assert_close(found[:, : frames - 1], expected[:, : frames - 1], rtol=0.02, atol=0.02)
    for ring, other in ((rings[0].keys, rings[1].keys), (rings[0].values, rings[1].values)):
        assert torch.equal(ring[:, :context], other[:, :context])
