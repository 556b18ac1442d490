"""Attention whose committed keys and values live in a ring of `context` frames a slot.

Chunk and lookahead attend to the ring and to each other. The ring's order does not matter to attention; where a layer
knows distances (w2v-BERT's relative keys), they follow from each slot's position. Behind the ring is room for the
window, so that both are read as one.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from streaming.config import StreamConfig
from streaming.layers.step import Step


@dataclass
class Ring:
    """Committed keys and values and those of the last window, each (slots, context + F, D)."""

    keys: Tensor
    values: Tensor


class RingView:
    """Where each row's ring stands in one step; computed once a step and shared by every layer of a branch."""

    def __init__(self, at: Step, config: StreamConfig, dtype: torch.dtype) -> None:
        frames, context = config.window_frames, config.context_frames
        device = at.position.device
        entry = torch.arange(context, device=device)
        age = (at.position[:, None] - 1 - entry) % max(context, 1)  # (B, context): 0 is the frame before this window
        window = torch.arange(frames, device=device)
        self.at = at
        self.frames = frames
        self.slots = at.slots[:, None]
        self.window_place = (context + window).expand(len(age), -1)  # (B, F)
        self.key_offset = torch.cat([-1 - age, window.expand(len(age), -1)], dim=1)  # (B, K), from the window's start
        exists = torch.cat([entry < at.position[:, None], at.exists(frames)], dim=1)
        bias = torch.zeros(exists.shape, dtype=dtype, device=device)
        self.bias = bias.masked_fill(~exists, torch.finfo(dtype).min / 2)[:, None, None]  # (B, 1, 1, K)
        kept = at.commits(frames) & (window >= (at.commit - context)[:, None])
        place = (at.position[:, None] + window) % max(context, 1)
        self.kept_place = torch.where(kept, place, self.window_place)  # (B, F)

    def distance(self) -> Tensor:
        """Frames from each query of the window to each key: (B, F, K)."""
        return self.key_offset[:, None] - torch.arange(self.frames, device=self.key_offset.device)[:, None]

    def attend(self, ring: Ring, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float) -> Tensor:
        """Queries over ring and window, of which the ring then takes what is committed.

        query (B, H, F, D), keys and values of the window (B, F, H * D), bias (B, 1 or H, 1 or F, K) -> (B, F, H * D).
        """
        for past, new in ((ring.keys, keys), (ring.values, values)):
            past[self.slots, self.window_place] = new
        attended = self._attended(query, ring, bias, scale)
        for past, new in ((ring.keys, keys), (ring.values, values)):
            past[self.slots, self.kept_place] = new
        return attended.transpose(1, 2).flatten(2)  # (B, H, F, D) -> (B, F, H * D)

    def _attended(self, query: Tensor, ring: Ring, bias: Tensor, scale: float) -> Tensor:
        """Queries (B, H, F, D) over their slots' rings: (B, H, F, D)."""
        attention, width = partial(F.scaled_dot_product_attention, scale=scale), query.shape[3]
        if query.device.type != "cpu":
            keys, values = (heads(self.at.load(past), width) for past in (ring.keys, ring.values))
            return attention(query, keys, values, attn_mask=bias)
        keys, values = heads(ring.keys, width), heads(ring.values, width)
        of_rows = []
        for row, slot in enumerate(self.at.slots):  # each reads its ring where it is: copying would cost more
            past = keys.narrow(0, slot, 1), values.narrow(0, slot, 1)
            of_rows.append(attention(query.narrow(0, row, 1), *past, attn_mask=bias.narrow(0, row, 1)))
        return torch.cat(of_rows)


def new_ring(projection: Any, slots: int, entries: int) -> Ring:
    """An empty ring for what `projection` makes."""
    return Ring(*(projection.weight.new_zeros(slots, entries, len(projection.weight)) for _ in range(2)))


def heads(x: Tensor, head_width: int) -> Tensor:
    """(B, F, H * D) -> (B, H, F, D)."""
    return x.unflatten(2, (-1, head_width)).transpose(1, 2)


class StreamingAttention:
    """The decoder's attention: no position in time, since upstream's rotary embedding runs over heads and cancels."""

    def __init__(self, attention: Any, config: StreamConfig) -> None:
        self.attention = attention
        self.entries = config.context_frames + config.window_frames

    def new_state(self, slots: int) -> Ring:
        return new_ring(self.attention.k_proj, slots, self.entries)

    def step(self, x: Tensor, ring: Ring, view: RingView) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        layer = self.attention
        query, keys, values = layer.query_key_value(x).chunk(3, dim=2)
        query = heads(query, layer.head_dim)
        return layer.o_proj(view.attend(ring, query, keys, values, view.bias, layer.scaling))


class StreamingRelativeAttention:
    """w2v-BERT's attention with relative keys: the bias of a key is the query times the embedding of their distance."""

    def __init__(self, attention: Any, config: StreamConfig) -> None:
        self.attention = attention
        self.entries = config.context_frames + config.window_frames

    def new_state(self, slots: int) -> Ring:
        return new_ring(self.attention.linear_k, slots, self.entries)

    def distance_index(self, view: RingView) -> Tensor:
        """Row of the distance embedding for each query and key: (B, 1, F, K)."""
        layer = self.attention
        left, right = layer.left_max_position_embeddings, layer.right_max_position_embeddings
        return view.distance().clamp(-left, right)[:, None] + left

    def step(self, x: Tensor, ring: Ring, view: RingView, distance_index: Tensor) -> Tensor:
        """x (B, F, D) -> (B, F, D)."""
        layer = self.attention
        query, keys, values = layer.query_key_value(x).chunk(3, dim=2)
        query = heads(query, layer.head_size)
        by_distance = (query @ layer.distance_embedding.weight.T) * layer.scaling  # (B, H, F, distances)
        bias = by_distance.gather(3, distance_index.expand(-1, query.shape[1], -1, -1))
        return layer.linear_out(view.attend(ring, query, keys, values, bias + view.bias, layer.scaling))
