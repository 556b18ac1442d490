"""What a connection gives its user, in the order in which the server sent it.

Audio and Tokens carry payload as arrays with their position in the session; the rest are the protocol's own messages.
"""

from dataclasses import dataclass

import numpy as np

from streaming.protocol.messages import Cleared, Done, Flushed, Marked, Stats

__all__ = ["Audio", "Cleared", "Done", "Event", "Flushed", "Marked", "Stats", "Tokens"]


@dataclass(frozen=True, eq=False)
class Audio:
    """Decoded audio: float32 (m,) at `ready.output.rate`; `position` of its first sample since the session began."""

    samples: np.ndarray
    position: int


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens: uint16 (n,); `position` is that of the first since the session began."""

    tokens: np.ndarray
    position: int


Event = Audio | Tokens | Flushed | Cleared | Marked | Stats | Done
