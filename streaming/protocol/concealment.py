"""What stands for lost units of a stream: tokens that lead from the one before the gap to the one behind it, silence.

A gap is known when what follows it is there, so both its ends are. Each of the eight levels of a lost token is drawn to
the level of its neighbours, half as much with every frame between, and rests in the middle where both are far: one lost
token is the mean of its neighbours, a long gap is mostly the codebook's middle. docs/mqtt.md has what that is worth.
"""

import struct
from math import floor

from neucodec_streaming.protocol.messages import StreamFormat

LEVELS_PER_TOKEN = 8
BITS_PER_LEVEL = 2
MIDDLE_TOKEN = 0xAAAA
"""The code whose eight levels are all zero."""
_MIDDLE, _HIGHEST = 2, 3
_SILENCE = {"s16le": b"\0\0", "f32le": b"\0\0\0\0", "mulaw": b"\xff", "alaw": b"\xd5"}


def concealed(stream: StreamFormat, before: bytes, units: int, after: bytes) -> bytes:
    """`units` of payload for a gap between two stretches, of which the ends that meet it count; either may be empty."""
    if stream.kind != "tokens":
        return _SILENCE[stream.format] * units
    first, second = (
        int.from_bytes(token or MIDDLE_TOKEN.to_bytes(2, "little"), "little") for token in (before[-2:], after[:2])
    )
    tokens = (_between(first, second, place, units + 1 - place) for place in range(1, units + 1))
    return struct.pack(f"<{units}H", *tokens)


def _between(first: int, second: int, after: int, before: int) -> int:
    """The token so many frames after the one and before the other."""
    token = 0
    for shift in range(0, LEVELS_PER_TOKEN * BITS_PER_LEVEL, BITS_PER_LEVEL):
        ends = (((one >> shift & _HIGHEST) - _MIDDLE) * 0.5**away for one, away in ((first, after), (second, before)))
        token |= min(max(floor(_MIDDLE + sum(ends) + 0.5), 0), _HIGHEST) << shift
    return token
