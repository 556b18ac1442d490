"""What a connection gives its user, in the order in which the server sent it.

Audio and Tokens carry payload as arrays with their position in the session; the rest are the protocol's own messages.
"""

from dataclasses import dataclass

import numpy as np

from neucodec_streaming.protocol.messages import Cleared, Done, Flushed, Marked, Primed, Stats

__all__ = ["Audio", "Cleared", "Done", "Event", "Flushed", "Marked", "Primed", "Resumed", "Stats", "Tokens"]


NO_SAMPLES = np.zeros(0, np.float32)
NO_SAMPLES.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Audio:
    """Decoded audio: float32 (m,) at `ready.output.rate`; `position` of its first sample since the session began.

    With `connect(..., raw=True)` `data` holds the bytes as they came, in the format of `ready.output`, and `samples`
    nothing.
    """

    samples: np.ndarray
    position: int
    data: bytes = b""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens: uint16 (n,); `position` is that of the first since the session began."""

    tokens: np.ndarray
    position: int


HOWS = ("exact", "approximate", "new")
"""How a session was resumed, from best to worst (docs/protocol.md)."""


@dataclass(frozen=True)
class Resumed:
    """The connection was lost and is back: output goes on at `position`, after a `gap` of samples or tokens that will
    not come. `how`: "exact" to the byte; "approximate", computed again by a server that may differ in the last bits or
    had not all of the utterance; "new", another session from its start. `dropped_seconds` of input were too old for a
    live session and were not sent; the next sample took the position of the first of them.
    """

    how: str
    gap: int
    position: int
    dropped_seconds: float = 0.0

    def followed_by(self, later: "Resumed") -> "Resumed":
        """Both in one, when a second loss came before the first was told."""
        return Resumed(
            max(self.how, later.how, key=HOWS.index),
            self.gap + later.gap,
            later.position,
            self.dropped_seconds + later.dropped_seconds,
        )


Event = Audio | Tokens | Flushed | Cleared | Marked | Primed | Stats | Done | Resumed
