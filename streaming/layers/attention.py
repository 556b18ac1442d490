"""Attention whose committed keys and values live in a ring of `context` frames a slot.

Chunk and lookahead attend to the ring and to each other. Attention does not depend on the ring's order; layers with
relative positions (w2v-BERT) derive distances from each slot's position. Room for the window follows the ring in
memory, so that both are read as one tensor.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.kernels import gpu, native
from neucodec_streaming.kernels.packed import PackedLinear, make_linear
from neucodec_streaming.layers.step import StepPlan

EXACT_WITH_MASKS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""On CUDA: cuDNN's kernels had bugs with masks (pytorch #169849, #191612, #196678); flash attention accepts none."""


@dataclass
class Ring:
    """Committed keys and values, followed by those of the last window, each (slots, context + F, D)."""

    keys: Tensor
    values: Tensor


class RingView:
    """Positions and masks of each row's ring in one step, shared by every layer of a branch."""

    def __init__(self, plan: StepPlan, config: StreamConfig, dtype: torch.dtype) -> None:
        frames, context = config.window_frames, config.context_frames
        device = plan.position.device
        entry = plan.index(context)
        age = (plan.position[:, None] - 1 - entry) % max(context, 1)  # (B, context): 0 is the frame before this window
        window = plan.index(frames)
        self.plan = plan
        self.frames = frames
        self.slots = plan.slots[:, None]
        self.window_place = (context + window).expand(len(age), -1)  # (B, F)
        self.key_offset = torch.cat([-1 - age, window.expand(len(age), -1)], dim=1)  # (B, K), from the window's start
        exists = torch.cat([entry < plan.position[:, None], plan.exists(frames)], dim=1)
        bias = torch.zeros(exists.shape, dtype=dtype, device=device)
        self.bias = bias.masked_fill(~exists, torch.finfo(dtype).min / 2)[:, None, None]  # (B, 1, 1, K)
        kept = plan.commits(frames) & (window >= (plan.commit - context)[:, None])
        place = (plan.position[:, None] + window) % max(context, 1)
        self.kept_place = torch.where(kept, place, self.window_place)  # (B, F)
        self._distance: Tensor | None = None

    def attend(
        self, ring: Ring, query_key_value: Tensor, width: int, scale: float, by_distance: Tensor | None = None, left=0
    ) -> Tensor:
        """Attends from the window to itself and the ring, then writes the committed frames into the ring.

        query_key_value (B, F, 3 * H * width) -> (B, F, H * width). by_distance (B, H, F, distances): added to the score
        of a key by its distance from the query, of which element `left` is 0 and the outermost are all beyond.
        """
        operations = _operations(query_key_value, width)
        if operations is not None:
            rows = self.plan.slots, self.plan.position, self.plan.valid, self.plan.commit
            count = query_key_value.shape[2] // (3 * width)
            return operations.attend(query_key_value, ring.keys, ring.values, *rows, count, scale, by_distance, left)
        query, keys, values = query_key_value.chunk(3, dim=2)
        bias = self.bias
        if by_distance is not None:
            index = self._distance_index(left, by_distance.shape[3] - 1 - left)
            bias = bias + by_distance.gather(3, index.expand(-1, by_distance.shape[1], -1, -1))
        for past, new in ((ring.keys, keys), (ring.values, values)):
            past[self.slots, self.window_place] = new.to(past.dtype)
        attended = self._attended(heads(query, width), ring, bias, scale)
        for past, new in ((ring.keys, keys), (ring.values, values)):
            past[self.slots, self.kept_place] = new.to(past.dtype)
        return attended.transpose(1, 2).flatten(2)  # (B, H, F, D) -> (B, F, H * D)

    def _distance_index(self, left: int, right: int) -> Tensor:
        """Index of each query and key into a table by distance from -left to right: (B, 1, F, K)."""
        if self._distance is None:
            distance = self.key_offset[:, None] - self.plan.index(self.frames)[:, None]
            self._distance = distance.clamp(-left, right)[:, None] + left
        return self._distance

    def _attended(self, query: Tensor, ring: Ring, bias: Tensor, scale: float) -> Tensor:
        """Queries (B, H, F, D) over their slots' rings: (B, H, F, D)."""
        attention, width = partial(F.scaled_dot_product_attention, scale=scale), query.shape[3]
        if query.device.type != "cpu":
            keys, values = (heads(self.plan.load(past), width) for past in (ring.keys, ring.values))
            with sdpa_kernel(EXACT_WITH_MASKS):
                return attention(query, keys, values, attn_mask=bias)
        keys, values = heads(ring.keys, width), heads(ring.values, width)
        of_rows = []
        for row, slot in enumerate(self.plan.slots):  # each row reads its ring in place
            past = tuple(part.narrow(0, slot, 1).to(query.dtype) for part in (keys, values))
            of_rows.append(attention(query.narrow(0, row, 1), past[0], past[1], attn_mask=bias.narrow(0, row, 1)))
        return torch.cat(of_rows)


def _operations(x: Tensor, head_width: int) -> Any:
    """The module whose `attend` takes such tensors with heads of that width, or None."""
    operations = native.operations(x)
    if operations is not None:
        return operations if head_width % native.HEAD_STEP == 0 else None
    operations = gpu.operations(x)
    return operations if operations is not None and operations.takes_heads_of(head_width) else None


def heads(x: Tensor, head_width: int) -> Tensor:
    """(B, F, H * D) -> (B, H, F, D)."""
    return x.unflatten(2, (-1, head_width)).transpose(1, 2)


class StreamingAttention:
    """The decoder's attention. It ignores position in time: upstream's rotary embedding runs over heads and cancels."""

    def __init__(self, attention: Any, config: StreamConfig) -> None:
        self.attention = attention
        self.entries = config.context_frames + config.window_frames

    def new_state(self, slots: int) -> Ring:
        """An empty ring for the keys and values that the projection makes, with the queries."""
        projection: PackedLinear = self.attention.query_key_value
        shape = slots, self.entries, projection.width // 3
        return Ring(*(projection.like.new_zeros(shape, dtype=projection.ring_dtype) for _ in range(2)))

    def step(self, x: Tensor, ring: Ring, view: RingView) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        layer = self.attention
        return layer.o_proj(view.attend(ring, layer.query_key_value(x), layer.head_dim, layer.scaling))


class StreamingRelativeAttention(StreamingAttention):
    """w2v-BERT's attention with relative keys: a key's bias is the query times the embedding of their distance."""

    def __init__(self, attention: Any, config: StreamConfig) -> None:
        super().__init__(attention, config)
        self._distances = make_linear(attention.distance_embedding.weight.detach() * attention.scaling, None)

    def step(self, x: Tensor, ring: Ring, view: RingView) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        layer = self.attention
        query_key_value = layer.query_key_value(x)
        query = heads(query_key_value.chunk(3, dim=2)[0], layer.head_size).contiguous()
        by_distance = self._distances(query)  # (B, H, F, distances)
        left = layer.left_max_position_embeddings
        return layer.linear_out(view.attend(ring, query_key_value, layer.head_size, layer.scaling, by_distance, left))
