"""PCM formats on the wire, one row each. Standard library only.

A new format needs its row here and its conversion in audio.py and server/web/payload.js; everything else reads this
table.
"""

import struct
from typing import NamedTuple


class PcmFormat(NamedTuple):
    """One PCM format. `sample_type`: numpy dtype that audio.py reads and writes. `silence`: one silent sample.

    `can_be_invalid`: some byte patterns are not samples (NaN, infinity).
    """

    name: str
    sample_type: str
    silence: bytes
    can_be_invalid: bool = False

    @property
    def sample_bytes(self) -> int:
        return len(self.silence)


PCM_FORMATS = {
    row.name: row
    for row in (
        PcmFormat("s16le", "<i2", b"\0\0"),
        PcmFormat("f32le", "<f4", b"\0\0\0\0", can_be_invalid=True),
        PcmFormat("mulaw", "|u1", b"\xff"),  # ITU-T G.711
        PcmFormat("alaw", "|u1", b"\xd5"),
    )
}
"""The formats by their name on the wire."""


def streaming_wav_header(rate: int) -> bytes:
    """The header of a mono s16le WAV whose length is not known yet: both sizes are the largest ones."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 0xFFFF_FFFF, b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16,
        b"data", 0xFFFF_FFFF,
    )  # fmt: skip
