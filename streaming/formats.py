"""PCM formats on the wire, one row each. Standard library only.

A new format needs its row here and, in audio.py, its conversion; everything else reads this table.
"""

from typing import NamedTuple


class PcmFormat(NamedTuple):
    """One PCM format. `sample_type`: array-interface type of a sample. `silence`: one silent sample as bytes.

    `can_be_invalid`: some byte patterns are not samples (NaN, infinity).
    """

    name: str
    sample_type: str
    silence: bytes
    can_be_invalid: bool = False

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
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
