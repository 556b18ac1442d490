"""The states of a conversation of `neucodec.v1`, and the literal table of what takes it from one to the other.

The table is keyed by the class of a message, in either direction; payload and the loss of the connection have classes
that are never instantiated. server/web/states.js is this table in JavaScript (tests/server/web/states_js.py writes it).
"""

from enum import Enum, auto

from neucodec_streaming.errors import ProtocolError
from neucodec_streaming.protocol.messages import (
    Clear,
    Cleared,
    Done,
    End,
    Failure,
    Flush,
    Flushed,
    Mark,
    Marked,
    Prime,
    Primed,
    Ready,
    Stats,
)


class State(Enum):
    """Where a conversation is. DONE: all has been said; CLOSED: it has failed."""

    __hash__ = object.__hash__  # that of Enum is written in Python, and every packet looks up two
    OPENING = auto()
    STREAMING = auto()
    ENDING = auto()
    LOST = auto()
    LOST_ENDING = auto()
    DONE = auto()
    CLOSED = auto()


class InputPayload:
    """A binary message of the client."""


class OutputPayload:
    """A binary message of the server."""


class ConnectionLost:
    """The connection has ended without a closing handshake."""


TRANSITIONS: dict[State, dict[type, State]] = {
    State.OPENING: {
        Ready: State.STREAMING,
        Failure: State.CLOSED,
        ConnectionLost: State.CLOSED,
    },
    State.STREAMING: {
        InputPayload: State.STREAMING,
        OutputPayload: State.STREAMING,
        Flush: State.STREAMING,
        Flushed: State.STREAMING,
        Clear: State.STREAMING,
        Cleared: State.STREAMING,
        Mark: State.STREAMING,
        Marked: State.STREAMING,
        Prime: State.STREAMING,
        Primed: State.STREAMING,
        Stats: State.STREAMING,
        End: State.ENDING,
        Failure: State.CLOSED,
        ConnectionLost: State.LOST,
    },
    State.ENDING: {
        OutputPayload: State.ENDING,
        Flushed: State.ENDING,
        Cleared: State.ENDING,
        Marked: State.ENDING,
        Primed: State.ENDING,
        Stats: State.ENDING,
        Done: State.DONE,
        Failure: State.CLOSED,
        ConnectionLost: State.LOST_ENDING,
    },
    State.LOST: {  # a client goes on, and sends when the session is resumed
        InputPayload: State.LOST,
        Flush: State.LOST,
        Clear: State.LOST,
        Mark: State.LOST,
        Prime: State.LOST,
        End: State.LOST_ENDING,
        Ready: State.STREAMING,
        Failure: State.CLOSED,
        ConnectionLost: State.LOST,
    },
    State.LOST_ENDING: {
        Ready: State.ENDING,
        Failure: State.CLOSED,
        ConnectionLost: State.LOST_ENDING,
    },
    State.DONE: {
        ConnectionLost: State.LOST_ENDING,  # the client may not have heard it
    },
    State.CLOSED: {
        ConnectionLost: State.CLOSED,
    },
}

EVENT_NAMES: dict[type, str] = {
    InputPayload: "input",
    OutputPayload: "output",
    ConnectionLost: "loss",
    Ready: "ready",
    Flush: "flush",
    Flushed: "flushed",
    Clear: "clear",
    Cleared: "cleared",
    Mark: "mark",
    Marked: "marked",
    Prime: "prime",
    Primed: "primed",
    End: "end",
    Done: "done",
    Stats: "stats",
    Failure: "error",
}
"""What errors and the JavaScript table call them."""


def next_state(state: State, event: type, error: type[ProtocolError] = ProtocolError) -> State:
    """The state after `event`, a key of the table; raises `error` when the state has no such event."""
    after = TRANSITIONS[state].get(event)
    if after is None:
        allowed = ", ".join(EVENT_NAMES[known] for known in TRANSITIONS[state])
        raise error(f"{EVENT_NAMES[event]} is not allowed while the session is {state.name.lower()}: only {allowed}")
    return after
