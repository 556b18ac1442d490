"""What one session has on a worker: its slots, taken, parked and woken; and the input that waits for them.

A quiet session is parked: it gives its slots back. A fresh stream leaves nothing behind, one within an utterance its
snapshot, from which it goes on (law 4), on any worker. The first input wakes it.

    Session -> feed, end, prime, clear -> Backlog -> worker;   worker -> SlotOwner.deliver -> Session
"""

from typing import Any
from typing import Protocol as Interface

import numpy as np

from neucodec_streaming.config import TOKENS_PER_SECOND
from neucodec_streaming.server.lifecycle import moved
from neucodec_streaming.server.sessions.backlog import Backlog
from neucodec_streaming.server.sessions.phases import SLOT_PHASES, SlotPhase
from neucodec_streaming.server.sessions.window_buffer import WindowBuffer
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.handle import WorkerHandle, WorkerLink
from neucodec_streaming.server.workers.messages import CommandKind, EventKind, ParkedStream, SessionSpec

_OPEN, _FEED, _OUTPUT = SlotPhase.OPEN, CommandKind.FEED, EventKind.OUTPUT
"""Looked up once: a member of an enum takes as long as a call."""
PARKED_BYTES = 16_384
"""What a parked session counts for beside its snapshot."""


class SlotOwner(Interface):
    """What a slot asks of its session."""

    @property
    def owed_frames(self) -> int:
        """Frames of input whose output has not come yet."""

    @property
    def is_fresh(self) -> bool:
        """Whether the stream has had no input since it began."""

    @property
    def epoch(self) -> int:
        """How often it was cleared."""

    def deliver(self, kind: EventKind, data: Any) -> None:
        """OPENED, OUTPUT, FINISHED or ENDED, as the worker has it, with epochs of the session."""

    def parked(self) -> None:
        """The place is free for others."""

    def wake(self) -> None:
        """A place is wanted: `SessionSlot.open` is called once there is one."""


class SessionSlot:
    """Of the session that `spec` describes. `device` is the worker that it is at, None while it is parked."""

    def __init__(self, owner: SlotOwner, spec: SessionSpec, settings: Settings) -> None:
        self.phase = SlotPhase.OPENING
        self.device: WorkerHandle | None = None
        self.backlog = Backlog(spec.input)
        self._owner = owner
        self._spec = spec
        self._window_buffer = WindowBuffer(spec.input, spec.config)
        self._max_owed_frames = max(
            int(settings.max_pending_seconds * TOKENS_PER_SECOND), 4 * spec.config.window_frames
        )
        self._max_queue_bytes = settings.max_queue_bytes
        self._link: WorkerLink | None = None
        self._stream: ParkedStream | None = None
        self._epoch = 0  # of the session, when the worker began to count its own
        self._is_paused = False
        self._voice = spec.voice  # that the worker was given last
        self._next_voice: np.ndarray | None = None  # for the end of this utterance
        self._is_begun = False

    @property
    def is_live(self) -> bool:
        """Whether anything may still be computed."""
        return self.phase is not SlotPhase.RELEASED

    @property
    def is_parked(self) -> bool:
        """Whether it holds no slots, though the session lives."""
        return self.phase in (SlotPhase.PARKED, SlotPhase.WAKING)

    @property
    def parked_bytes(self) -> int:
        """What it takes while it is parked."""
        return PARKED_BYTES + (0 if self._stream is None else len(self._stream.snapshot))

    def open(self, device: WorkerHandle) -> None:
        """Asks a worker, at which there is a place, for slots."""
        self.device = device
        self._epoch = self._owner.epoch
        self._is_paused = False
        self._link = device.open(self._spec._replace(parked=self._stream, voice=self._voice), self._take)

    def feed(self, payload: bytes) -> bool:
        """More input; whether a worker can make something of it now."""
        if payload:
            self._is_begun = True
        ready = self._window_buffer.put(payload)
        if not ready:
            return False
        link, may_pass = self._link, self.phase is _OPEN and not self.backlog.bytes
        if link is not None and may_pass and link.has_quota and self._owner.owed_frames <= self._max_owed_frames:
            link.submit(_FEED, ready)
        else:
            self.backlog.put(ready)
            self.hand_on()
        return True

    def end(self) -> None:
        """The utterance ends here."""
        if rest := self._window_buffer.end():
            self.backlog.put(rest)
        self.backlog.end()
        self._is_begun = False
        if self._next_voice is not None:
            self.backlog.prime(self._next_voice)
            self._next_voice = None
        self.hand_on()

    def prime(self, voice: np.ndarray) -> None:
        """Streams start in this voice; within an utterance, from its end on."""
        if self._is_begun:
            self._next_voice = voice
        else:
            self.backlog.prime(voice)
            self.hand_on()

    def clear(self) -> None:
        """Everything inside is dropped, and the stream begins anew, in the latest voice."""
        self._window_buffer.clear()
        waiting = self.backlog.clear()
        voice, self._next_voice = waiting if self._next_voice is None else self._next_voice, None
        self._is_begun = False
        self._stream = None
        if self._link is not None:
            if voice is not None:
                self._link.submit(CommandKind.PRIME, voice)
            self._link.submit(CommandKind.CLEAR)
        elif self.phase is SlotPhase.WAKING:  # and need not any more
            self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.PARKED)
            self._owner.parked()
        self._voice = self._voice if voice is None else voice

    def hand_on(self) -> None:
        """Gives the worker what it has room for, and wakes the session for it."""
        if not self.backlog.bytes:
            return
        if self.phase is SlotPhase.PARKED:
            self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.WAKING)
            self._owner.wake()
        if self.phase is not SlotPhase.OPEN or self._link is None:
            return
        backlog, link = self.backlog, self._link
        while backlog and link.has_quota:
            room_frames = self._max_owed_frames - (self._owner.owed_frames - backlog.frames)
            if room_frames <= 0:
                return
            payload = backlog.take(room_frames)
            if payload is None:
                link.submit(CommandKind.FLUSH)
            elif isinstance(payload, np.ndarray):
                self._voice = payload
                link.submit(CommandKind.PRIME, payload)
            else:
                link.submit(CommandKind.FEED, payload)

    def pause(self, queued_bytes: int) -> None:
        """Has the worker make no more output while so much waits to be sent, and more once half of it is out."""
        is_full = queued_bytes > self._max_queue_bytes // (2 if self._is_paused else 1)
        if is_full is not self._is_paused and self._link is not None:
            self._is_paused = is_full
            self._link.submit(CommandKind.PAUSE if is_full else CommandKind.RESUME)

    def park(self) -> None:
        """Gives the slots back; input is taken on."""
        if self.phase is not SlotPhase.OPEN or self.backlog or self._link is None:
            return
        if self._owner.is_fresh:
            self._stay_parked(None)
        else:
            self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.PARKING)
            self._link.submit(CommandKind.PARK)

    def release(self) -> None:
        """Gives the place back for good; nothing is computed any more."""
        self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.RELEASED)
        self.backlog.clear()
        self._stream = None
        self._leave()
        del self._owner  # or the two would keep each other in memory

    def _stay_parked(self, stream: ParkedStream | None) -> None:
        self._stream = stream
        self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.PARKED)
        self._leave()
        self._owner.parked()

    def _leave(self) -> None:
        self.device = None
        if self._link is not None:
            self._link.submit(CommandKind.CLOSE)
            self._link = None

    def _take(self, kind: EventKind, data: Any) -> None:
        """What the worker has for the session."""
        if kind is _OUTPUT:
            payload, epoch, behind_ms = data
            data = payload, self._epoch + epoch, behind_ms
        elif kind is EventKind.FINISHED:
            data += self._epoch
        elif kind is EventKind.OPENED:
            self._stream = None
            self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.OPEN)
        elif kind is EventKind.PARKED:
            if data is None or self.backlog or self._epoch + data.epoch != self._owner.epoch:  # not quiet any more
                self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.OPEN)
            else:
                self._stay_parked(data)
        self._owner.deliver(kind, data)
