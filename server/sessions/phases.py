"""The two lifecycles of a session: of its slots on a worker, and of its connection."""

from enum import Enum, auto


class SlotPhase(Enum):
    """OPENING: waits for its first slots. OPEN: has slots. PARKING: waits for the worker's snapshot. PARKED: a quiet
    session without slots. WAKING: waits for a place and slots. RELEASED: final; the client may still fetch output.
    """

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
    """NEW: had no connection yet. ATTACHED: has one. LOST: waits for its client. ENDED: cannot be resumed."""

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
