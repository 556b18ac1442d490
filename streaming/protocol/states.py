"""The states of a conversation of `neucodec.v1`, and the literal table of what takes it from one to the other."""

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
    Ready,
    Stats,
)


class State(Enum):
    """Where a conversation is."""

    __hash__ = object.__hash__  # that of Enum is written in Python, and every packet looks up two
    OPENING = auto()
    STREAMING = auto()
    ENDING = auto()
    LOST = auto()
    LOST_ENDING = auto()
    CLOSED = auto()


class Move(Enum):
    """What takes a conversation from state to state: a message in either direction, or the loss of the connection."""

    __hash__ = object.__hash__
    READY = "ready"
    INPUT = "input payload"
    OUTPUT = "output payload"
    FLUSH = "flush"
    FLUSHED = "flushed"
    CLEAR = "clear"
    CLEARED = "cleared"
    MARK = "mark"
    MARKED = "mark answered"
    END = "end"
    DONE = "done"
    STATS = "stats"
    ERROR = "error"
    LOSS = "connection lost"


TRANSITIONS: dict[State, dict[Move, State]] = {
    State.OPENING: {
        Move.READY: State.STREAMING,
        Move.ERROR: State.CLOSED,
        Move.LOSS: State.CLOSED,
    },
    State.STREAMING: {
        Move.INPUT: State.STREAMING,
        Move.OUTPUT: State.STREAMING,
        Move.FLUSH: State.STREAMING,
        Move.FLUSHED: State.STREAMING,
        Move.CLEAR: State.STREAMING,
        Move.CLEARED: State.STREAMING,
        Move.MARK: State.STREAMING,
        Move.MARKED: State.STREAMING,
        Move.STATS: State.STREAMING,
        Move.END: State.ENDING,
        Move.ERROR: State.CLOSED,
        Move.LOSS: State.LOST,
    },
    State.ENDING: {
        Move.OUTPUT: State.ENDING,
        Move.FLUSHED: State.ENDING,
        Move.CLEARED: State.ENDING,
        Move.MARKED: State.ENDING,
        Move.STATS: State.ENDING,
        Move.DONE: State.CLOSED,
        Move.ERROR: State.CLOSED,
        Move.LOSS: State.LOST_ENDING,
    },
    State.LOST: {  # a client goes on, and sends when the session is resumed
        Move.INPUT: State.LOST,
        Move.FLUSH: State.LOST,
        Move.CLEAR: State.LOST,
        Move.MARK: State.LOST,
        Move.END: State.LOST_ENDING,
        Move.READY: State.STREAMING,
        Move.ERROR: State.CLOSED,
        Move.LOSS: State.LOST,
    },
    State.LOST_ENDING: {
        Move.READY: State.ENDING,
        Move.ERROR: State.CLOSED,
        Move.LOSS: State.LOST_ENDING,
    },
    State.CLOSED: {
        Move.LOSS: State.CLOSED,
    },
}

MOVES: dict[type, Move] = {
    Ready: Move.READY,
    Flush: Move.FLUSH,
    Flushed: Move.FLUSHED,
    Clear: Move.CLEAR,
    Cleared: Move.CLEARED,
    Mark: Move.MARK,
    Marked: Move.MARKED,
    End: Move.END,
    Done: Move.DONE,
    Stats: Move.STATS,
    Failure: Move.ERROR,
}


def next_state(state: State, move: Move, error: type[ProtocolError] = ProtocolError) -> State:
    """The state after `move`; raises `error` when the table has no such move."""
    after = TRANSITIONS[state].get(move)
    if after is None:
        allowed = ", ".join(known.value for known in TRANSITIONS[state])
        raise error(f"{move.value} is not allowed while the session is {state.name.lower()}: only {allowed}")
    return after
