"""The two lifecycles of a session: what it has on a worker, and whether it has a connection."""

from enum import Enum, auto


class SlotPhase(Enum):
    """OPENING: the worker has not given the first slots yet. OPEN: it has. PARKING: the worker is asked for a snapshot.
    PARKED: a quiet session holds no slots. WAKING: it waits for a place and its slots. RELEASED: for good; the client
    may still fetch what there is."""

    OPENING = auto()
    OPEN = auto()
    PARKING = auto()
    PARKED = auto()
    WAKING = auto()
    RELEASED = auto()


SLOT_PHASES = {
    SlotPhase.OPENING: frozenset({SlotPhase.OPEN, SlotPhase.RELEASED}),
    SlotPhase.OPEN: frozenset({SlotPhase.PARKING, SlotPhase.PARKED, SlotPhase.RELEASED}),
    SlotPhase.PARKING: frozenset({SlotPhase.OPEN, SlotPhase.PARKED, SlotPhase.RELEASED}),
    SlotPhase.PARKED: frozenset({SlotPhase.WAKING, SlotPhase.RELEASED}),
    SlotPhase.WAKING: frozenset({SlotPhase.OPEN, SlotPhase.PARKED, SlotPhase.RELEASED}),
    SlotPhase.RELEASED: frozenset(),
}


class Attachment(Enum):
    """NEW: it has had no connection yet. ATTACHED: it has one. LOST: it waits for its client. ENDED: nobody can come
    back to it."""

    NEW = auto()
    ATTACHED = auto()
    LOST = auto()
    ENDED = auto()


ATTACHMENTS = {
    Attachment.NEW: frozenset({Attachment.ATTACHED, Attachment.ENDED}),
    Attachment.ATTACHED: frozenset({Attachment.LOST, Attachment.ENDED}),
    Attachment.LOST: frozenset({Attachment.ATTACHED, Attachment.ENDED}),
    Attachment.ENDED: frozenset(),
}
