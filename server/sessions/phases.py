"""The two lifecycles of a session: what it has on a worker, and whether it has a connection."""

from enum import Enum, auto


class SlotPhase(Enum):
    """OPENING: it waits for its slots. OPEN: it has them. RELEASED: they are free for others, since all is computed or
    it has failed; the client may still fetch what there is. ENDED: nobody can come back to it."""

    OPENING = auto()
    OPEN = auto()
    RELEASED = auto()
    ENDED = auto()


SLOT_PHASES = {
    SlotPhase.OPENING: frozenset({SlotPhase.OPEN, SlotPhase.RELEASED}),
    SlotPhase.OPEN: frozenset({SlotPhase.RELEASED}),
    SlotPhase.RELEASED: frozenset({SlotPhase.ENDED}),
    SlotPhase.ENDED: frozenset(),
}


class Attachment(Enum):
    """NEW: it has had no connection yet. ATTACHED: it has one. LOST: it waits for its client to come back."""

    NEW = auto()
    ATTACHED = auto()
    LOST = auto()


ATTACHMENTS = {
    Attachment.NEW: frozenset({Attachment.ATTACHED}),
    Attachment.ATTACHED: frozenset({Attachment.LOST}),
    Attachment.LOST: frozenset({Attachment.ATTACHED}),
}
