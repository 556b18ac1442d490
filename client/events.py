"""Events of a connection, in the order in which the server sent them.

Audio and Tokens carry payload as arrays with their position in the session; the others are the protocol's messages.
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

    With `connect(..., raw=True)`, `data` holds the bytes in the format of `ready.output`, and `samples` is empty.
    """

    samples: np.ndarray
    position: int
    data: bytes = b""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens: uint16 (n,); `position` of the first since the session began."""

    tokens: np.ndarray
    position: int


def units_of(event: Audio | Tokens) -> np.ndarray:
    """The samples or tokens of a payload event."""
    return event.samples if isinstance(event, Audio) else event.tokens


HOWS = ("exact", "approximate", "new")
"""Outcomes of resuming, from best to worst (docs/protocol.md)."""


@dataclass(frozen=True)
class Resumed:
    """A lost connection was resumed: output continues at `position`, after a `gap` of missing samples or tokens.

    `how`: "exact" to the byte; "approximate", recomputed by a server that may differ in the last bits or lacked part of
    the utterance; "new", another session from its start. `dropped_seconds` of input were too old for a live session and
    not sent; the next sample took the position of the first of them.
    """

    how: str
    gap: int
    position: int
    dropped_seconds: float = 0.0

    def followed_by(self, later: "Resumed") -> "Resumed":
        """Combines two losses, if the second came before the first was delivered."""
        return Resumed(
            max(self.how, later.how, key=HOWS.index),
            self.gap + later.gap,
            later.position,
            self.dropped_seconds + later.dropped_seconds,
        )


Event = Audio | Tokens | Flushed | Cleared | Marked | Primed | Stats | Done | Resumed
