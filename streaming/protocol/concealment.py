"""Fills lost units of a stream: silence for audio; tokens interpolated across the gap.

Each of the eight levels of a lost token is drawn to the levels of its neighbours, half as much with every frame of
distance, and rests in the middle of the codebook where both are far. A single lost token is the mean of its neighbours;
a long gap is mostly the middle. Measured in docs/results.md. `gap_tokens` has a JavaScript twin,
server/web/page/tokens.js.
"""

import struct
from math import floor

from neucodec_streaming.formats import PCM_FORMATS
from neucodec_streaming.protocol.messages import StreamFormat

LEVELS_PER_TOKEN = 8
BITS_PER_LEVEL = 2
MIDDLE_TOKEN = 0xAAAA
"""The code whose eight levels are all zero."""
_MIDDLE, _HIGHEST = 2, 3
_SHIFTS = tuple(range(0, LEVELS_PER_TOKEN * BITS_PER_LEVEL, BITS_PER_LEVEL))


def gap_tokens(before: int, count: int, after: int, distance: int = 1) -> list[int]:
    """Tokens for `count` lost ones.

    `before` is the last known token, `distance` frames before the first lost one; `after` is the known token after the
    gap. MIDDLE_TOKEN if unknown.
    """
    return [_between(before, distance + place, after, count - place) for place in range(count)]


def concealed(stream: StreamFormat, before: bytes, units: int, after: bytes) -> bytes:
    """`units` of payload for a gap between two pieces, of which either may be empty."""
    if stream.kind != "tokens":
        return PCM_FORMATS[stream.format].silence * units
    first, last = (int.from_bytes(token, "little") if token else MIDDLE_TOKEN for token in (before[-2:], after[:2]))
    return struct.pack(f"<{units}H", *gap_tokens(first, units, last))


def _between(first: int, frames_since: int, last: int, frames_until: int) -> int:
    """The token `frames_since` frames after `first` and `frames_until` before `last`."""
    token = 0
    for shift in _SHIFTS:
        pull = ((first >> shift & _HIGHEST) - _MIDDLE) * 0.5**frames_since
        pull += ((last >> shift & _HIGHEST) - _MIDDLE) * 0.5**frames_until
        token |= min(max(floor(_MIDDLE + pull + 0.5), 0), _HIGHEST) << shift
    return token
