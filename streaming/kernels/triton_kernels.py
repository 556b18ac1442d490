"""The anti-aliased activation and attention over a ring, as one Triton kernel each; arithmetic in float32.

Both read a slot's past in place and write what the next step needs. A slot is in at most one row of a step, except the
spare one, whose output is discarded.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

REACH = 6
SEGMENT = 64
"""Consecutive outputs of one program."""
MAX_CHANNELS = 64
KEYS = 32
"""Keys that one program reads at once."""
MIN_ROWS = 16
"""Minimum size of each side of a product of tiles."""
LOW = tl.constexpr(-1e30)
TOLERANCE = 1e-3


@triton.jit
def _input(x, past, index, end, is_fresh, channel, channels, mask):
    """Inputs at `index` from the window's start: earlier ones are in `past`, or, before the stream's start, its first
    input.
    """
    index = tl.minimum(index, end - 1) + channel * 0  # for each channel: a mask is a block
    is_fresh += channel * 0
    from_past = (index < 0) & (is_fresh == 0)
    old = tl.load(past + (index + 6) * channels + channel, mask=mask & from_past & (index >= -6), other=0.0)
    new = tl.load(
        x + tl.maximum(index, 0) * channels + channel, mask=mask & ((index >= 0) | (is_fresh != 0)), other=0.0
    )
    return tl.where(from_past, old, new).to(tl.float32)


@triton.jit
def _taps(w, x0, x1, x2, x3, x4, x5, x6):
    y = tl.load(w) * x0 + tl.load(w + 1) * x1 + tl.load(w + 2) * x2 + tl.load(w + 3) * x3
    return y + tl.load(w + 4) * x4 + tl.load(w + 5) * x5 + tl.load(w + 6) * x6


@triton.jit
def _activated(u, alpha, by_beta):
    sine = tl.sin(alpha * u)
    return u + sine * sine * by_beta


@triton.jit
def _snake(
    x, past, y, slots, position, valid, commit, up, down, alpha, by_beta, length, channels, slot_stride, unit,
    SEGMENT: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * SEGMENT
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < channels
    x += row * length * channels
    y += row * length * channels
    past += tl.load(slots + row) * slot_stride
    at = tl.load(position + row)
    is_fresh = (at == 0).to(tl.int32)
    first_pair, end = -at * unit, tl.load(valid + row) * unit
    a, b = tl.load(alpha + channel, mask=mask, other=0.0), tl.load(by_beta + channel, mask=mask, other=0.0)
    zero = tl.zeros([CHANNELS], tl.float32)

    # The stream's first even sample replaces all samples before it.
    n = tl.maximum(first_pair, -3)
    f0 = _input(x, past, n - 3, end, is_fresh, channel, channels, mask)
    f1 = _input(x, past, n - 2, end, is_fresh, channel, channels, mask)
    f2 = _input(x, past, n - 1, end, is_fresh, channel, channels, mask)
    f3 = _input(x, past, n, end, is_fresh, channel, channels, mask)
    f4 = _input(x, past, n + 1, end, is_fresh, channel, channels, mask)
    f5 = _input(x, past, n + 2, end, is_fresh, channel, channels, mask)
    f6 = _input(x, past, n + 3, end, is_fresh, channel, channels, mask)
    first = _activated(_taps(up, f0, f1, f2, f3, f4, f5, f6), a, b)

    last = zero
    x0, x1, x2, x3, x4, x5, x6 = zero, zero, zero, zero, zero, zero, zero
    e0, e1, e2, e3, e4, e5, e6 = zero, zero, zero, zero, zero, zero, zero
    o0, o1, o2, o3, o4, o5, o6 = zero, zero, zero, zero, zero, zero, zero
    for step in range(SEGMENT + 12):
        index = begin - 6 + step + channel * 0
        x0, x1, x2, x3, x4, x5 = x1, x2, x3, x4, x5, x6
        x6 = _input(x, past, index, end, is_fresh, channel, channels, mask & (index < length + 6))
        pair = index - 3
        even = _activated(_taps(up, x0, x1, x2, x3, x4, x5, x6), a, b)
        odd = _activated(_taps(up + 7, x0, x1, x2, x3, x4, x5, x6), a, b)
        last = tl.where(pair == end - 1, odd, last)
        even = tl.where(pair < first_pair, first, tl.where(pair >= end, last, even))
        odd = tl.where(pair < first_pair, first, tl.where(pair >= end, last, odd))
        e0, e1, e2, e3, e4, e5, e6 = e1, e2, e3, e4, e5, e6, even
        o0, o1, o2, o3, o4, o5, o6 = o1, o2, o3, o4, o5, o6, odd
        out = _taps(down, e0, e1, e2, e3, e4, e5, e6) + _taps(down + 7, o0, o1, o2, o3, o4, o5, o6)
        time = index - 6
        tl.store(
            y + time * channels + channel, out.to(y.dtype.element_ty), mask=mask & (time >= begin) & (time < length)
        )

    if begin == 0:  # no other program reads the past
        border = tl.load(commit + row) * unit - 6
        k0 = _input(x, past, border, border + 6, is_fresh, channel, channels, mask)
        k1 = _input(x, past, border + 1, border + 6, is_fresh, channel, channels, mask)
        k2 = _input(x, past, border + 2, border + 6, is_fresh, channel, channels, mask)
        k3 = _input(x, past, border + 3, border + 6, is_fresh, channel, channels, mask)
        k4 = _input(x, past, border + 4, border + 6, is_fresh, channel, channels, mask)
        k5 = _input(x, past, border + 5, border + 6, is_fresh, channel, channels, mask)
        kind = past.dtype.element_ty
        tl.store(past + channel, k0.to(kind), mask=mask)
        tl.store(past + channels + channel, k1.to(kind), mask=mask)
        tl.store(past + 2 * channels + channel, k2.to(kind), mask=mask)
        tl.store(past + 3 * channels + channel, k3.to(kind), mask=mask)
        tl.store(past + 4 * channels + channel, k4.to(kind), mask=mask)
        tl.store(past + 5 * channels + channel, k5.to(kind), mask=mask)


def snake(
    x: Tensor, past: Tensor, slots: Tensor, position: Tensor, valid: Tensor, commit: Tensor, unit: int,
    up: Tensor, down: Tensor, alpha: Tensor, by_beta: Tensor,
) -> Tensor:  # fmt: skip
    """x (B, T, C) -> (B, T, C); updates past (slots, 6, C). up and down (2, 7), alpha and by_beta (C,) in float32."""
    x = x.contiguous()
    rows, length, channels = x.shape
    block = min(MAX_CHANNELS, triton.next_power_of_2(channels))
    y = torch.empty_like(x)
    grid = rows, triton.cdiv(length, SEGMENT), triton.cdiv(channels, block)
    _snake[grid](
        x, past, y, slots, position, valid, commit, up, down, alpha, by_beta, length, channels, past.stride(0), unit,
        SEGMENT=SEGMENT, CHANNELS=block, num_warps=2 if block > 32 else 1,
    )  # fmt: skip
    return y


@triton.jit
def _attend(
    window, keys, values, out, by_distance, slots, position, valid, commit, scale, frames, heads, context, left,
    distances, slot_stride,
    HAS_DISTANCE: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    wide = heads * WIDTH
    d, query = tl.arange(0, WIDTH), tl.arange(0, ROWS)
    is_query = query < frames
    window += row * frames * 3 * wide + head * WIDTH
    keys += tl.load(slots + row) * slot_stride + head * WIDTH
    values += tl.load(slots + row) * slot_stride + head * WIDTH
    by_distance += (row * heads + head) * frames * distances
    at, ring = tl.load(position + row), tl.maximum(context, 1)
    own = query[:, None] * 3 * wide + d[None, :]
    q = tl.load(window + own, mask=is_query[:, None], other=0.0)
    new_key = tl.load(window + wide + own, mask=is_query[:, None], other=0.0)
    new_value = tl.load(window + 2 * wide + own, mask=is_query[:, None], other=0.0)

    # The window's own keys. A name has one shape: Triton refuses a loop that changes it.
    score = tl.dot(q, tl.trans(new_key), input_precision="ieee") * scale
    if HAS_DISTANCE:
        apart = query[None, :] - query[:, None]
        place = tl.minimum(tl.maximum(apart, -left), distances - 1 - left) + left
        score += tl.load(by_distance + query[:, None] * distances + place, mask=is_query[:, None], other=0.0)
    exists = (query < tl.load(valid + row)) & is_query
    score = tl.where(exists[None, :], score, LOW)
    most = tl.max(score, 1)
    weight = tl.where(exists[None, :], tl.exp(score - most[:, None]), 0.0)
    total = tl.sum(weight, 1)
    sums = tl.dot(weight.to(new_value.dtype), new_value, input_precision="ieee")

    for begin in range(0, context, KEYS):
        entry = begin + tl.arange(0, KEYS)
        is_entry = (entry < at) & (entry < context)
        there = entry[:, None] * wide + d[None, :]
        key = tl.load(keys + there, mask=is_entry[:, None], other=0.0)
        value = tl.load(values + there, mask=is_entry[:, None], other=0.0)
        of_entries = tl.dot(q, tl.trans(key), input_precision="ieee") * scale
        if HAS_DISTANCE:
            age = ((at - 1 - entry) % ring + ring) % ring
            back = (-1 - age)[None, :] - query[:, None]
            spot = tl.minimum(tl.maximum(back, -left), distances - 1 - left) + left
            of_entries += tl.load(by_distance + query[:, None] * distances + spot, mask=is_query[:, None], other=0.0)
        of_entries = tl.where(is_entry[None, :], of_entries, LOW)
        higher = tl.maximum(most, tl.max(of_entries, 1))
        shrink = tl.exp(most - higher)
        share = tl.where(is_entry[None, :], tl.exp(of_entries - higher[:, None]), 0.0)
        total = total * shrink + tl.sum(share, 1)
        sums = sums * shrink[:, None] + tl.dot(share.to(value.dtype), value, input_precision="ieee")
        most = higher

    result = sums / tl.maximum(total, 1e-30)[:, None]
    to = out + row * frames * wide + head * WIDTH + query[:, None] * wide + d[None, :]
    tl.store(to, result.to(out.dtype.element_ty), mask=is_query[:, None])
    tl.debug_barrier()  # the ring has been read
    count = tl.load(commit + row)
    kept = is_query & (query < count) & (query >= count - context)
    place = ((at + query) % ring)[:, None] * wide + d[None, :]
    tl.store(keys + place, new_key.to(keys.dtype.element_ty), mask=kept[:, None])
    tl.store(values + place, new_value.to(values.dtype.element_ty), mask=kept[:, None])


def attend(
    query_key_value: Tensor, keys: Tensor, values: Tensor, slots: Tensor, position: Tensor, valid: Tensor,
    commit: Tensor, heads: int, scale: float, by_distance: Tensor | None, left: int,
) -> Tensor:  # fmt: skip
    """query_key_value (B, F, 3 * H * D) -> (B, F, H * D); updates keys and values (slots, context + F, H * D).

    by_distance (B, H, F, distances) is added to the scores; its element `left` is distance 0. D: a power of two.
    """
    window = query_key_value.contiguous()
    rows, frames, wide = window.shape[0], window.shape[1], window.shape[2] // 3
    out = window.new_empty(rows, frames, wide)
    bias = window if by_distance is None else by_distance.contiguous()
    _attend[rows, heads](
        window, keys, values, out, bias, slots, position, valid, commit, scale, frames, heads, keys.shape[1] - frames,
        left, 0 if by_distance is None else by_distance.shape[3], keys.stride(0),
        HAS_DISTANCE=by_distance is not None, WIDTH=wide // heads,
        ROWS=max(MIN_ROWS, triton.next_power_of_2(frames)), KEYS=KEYS, num_warps=2,
    )  # fmt: skip
    return out


def takes_heads_of(width: int) -> bool:
    """Whether `attend` supports heads of that width."""
    return width >= MIN_ROWS and width == triton.next_power_of_2(width)


def check(device: torch.device) -> None:
    """Raises RuntimeError if the kernels differ from torch's operations on small float32 inputs."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    def exact(*given: Tensor) -> list[Tensor]:
        return [x.double() for x in given]  # whatever the precision of float32 products

    one = torch.tensor([1], device=device)
    slots, position, valid, commit = one, one * 9, one * 10, one * 5
    x, past = noise(1, 10, 8), noise(2, REACH, 8)
    up, down, ones = noise(2, 7), noise(2, 7), torch.ones(8, device=device)
    joined = torch.cat([past[1], x[0], x[0, -1:].expand(REACH, -1)])  # (22, 8)
    padded, ups, downs = exact(joined, up, down)
    inputs = padded.unfold(0, 7, 1) @ ups.T  # (16, 8, 2): pairs from -3 on
    pairs = inputs + (inputs).sin().square()
    pairs[13:] = pairs[12:13, :, 1:]
    wanted = torch.einsum("tcpk,pk->tc", pairs.unfold(0, 7, 1), downs)
    expected_past = joined[5 : 5 + REACH].clone()
    _compare("snake", snake(x, past, slots, position, valid, commit, 1, up, down, ones, ones)[0], wanted)
    _compare("snake's past", past[1], expected_past)

    window, keys, values = noise(1, 10, 3 * 32), noise(2, 30, 32), noise(2, 30, 32)
    q, k, v = window[0].unflatten(1, (3, 2, 16)).permute(1, 2, 0, 3)  # (2, 10, 16) each
    all_keys = torch.cat([keys[1, :9].unflatten(1, (2, 16)).transpose(0, 1), k], dim=1)
    all_values = torch.cat([values[1, :9].unflatten(1, (2, 16)).transpose(0, 1), v], dim=1)
    queries, all_keys, all_values = exact(q, all_keys, all_values)
    wanted = ((queries @ all_keys.mT / 4).softmax(2) @ all_values).transpose(0, 1).flatten(1)
    got = attend(window, keys, values, slots, position, valid, commit, 2, 0.25, None, 0)
    _compare("attend", got[0], wanted)
    _compare("attend's ring", keys[1, 9:14], window[0, :5, 32:64])


def _compare(what: str, got: Tensor, wanted: Tensor) -> None:
    error: Any = (got - wanted).abs().max() / wanted.abs().max()
    if not float(error) <= TOLERANCE:
        raise RuntimeError(f"{what} is off by {float(error):.1e} of its largest value")
