"""A session's slots on a worker: opened, parked and woken; and the input that waits for them.

A quiet session is parked: it releases its slots. A fresh stream leaves nothing behind; within an utterance the worker
returns a snapshot, from which any worker continues (law 4). The next input wakes the session.

    Session -> feed, end, prime, clear -> Backlog -> worker;   worker -> SlotOwner.deliver -> Session
"""

from typing import Any
from typing import Protocol as Interface

import numpy as np

from neucodec_streaming.config import TOKENS_PER_SECOND
from neucodec_streaming.protocol.session import ServerSession
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
"""Bytes that a parked session counts for in addition to its snapshot."""


class SlotOwner(Interface):
    """A slot's interface to its session."""

    def deliver(self, kind: EventKind, data: Any) -> None:
        """Accepts OPENED, OUTPUT, FINISHED or ENDED from the worker, with the session's epochs."""

    def parked(self) -> None:
        """The place is free for others."""

    def wake(self) -> None:
        """A place is needed: `SessionSlot.open` is called once there is one."""


class SessionSlot:
    """The slots of the session that `spec` describes. `device` is its worker, None while parked."""

    def __init__(self, owner: SlotOwner, conversation: ServerSession, spec: SessionSpec, settings: Settings) -> None:
        self.phase = SlotPhase.OPENING
        self.device: WorkerHandle | None = None
        self.backlog = Backlog(spec.input)
        self._owner = owner
        self._conversation = conversation
        self._spec = spec
        self._window_buffer = WindowBuffer(spec.input, spec.config)
        self._max_owed_frames = max(
            int(settings.max_pending_seconds * TOKENS_PER_SECOND), 4 * spec.config.window_frames
        )
        self._max_queue_bytes = settings.max_queue_bytes
        self._link: WorkerLink | None = None
        self._stream: ParkedStream | None = None
        self._epoch = 0  # the session's epoch at the worker's epoch 0
        self._is_paused = False
        self._voice = spec.voice  # latest voice given to the worker
        self._next_voice: np.ndarray | None = None  # in effect at the end of this utterance
        self._is_begun = False

    @property
    def is_live(self) -> bool:
        """Whether anything may still be computed."""
        return self.phase is not SlotPhase.RELEASED

    @property
    def is_parked(self) -> bool:
        """Whether the session is alive without slots."""
        return self.phase in (SlotPhase.PARKED, SlotPhase.WAKING)

    @property
    def parked_bytes(self) -> int:
        """Memory of the parked state."""
        return PARKED_BYTES + (0 if self._stream is None else len(self._stream.snapshot))

    @property
    def _owed_frames(self) -> int:
        """Frames of input without output yet."""
        conversation = self._conversation
        return conversation.owed_frames - conversation.queued_units // conversation.output.hop

    def open(self, device: WorkerHandle) -> None:
        """Requests slots from a worker with a reserved place."""
        self.device = device
        self._epoch = self._conversation.epoch
        self._is_paused = False
        self._link = device.open(self._spec._replace(parked=self._stream, voice=self._voice), self._take)

    def feed(self, payload: bytes) -> bool:
        """Appends input; returns whether the worker can compute something from it now."""
        if payload:
            self._is_begun = True
        ready = self._window_buffer.put(payload)
        if not ready:
            return False
        link, may_pass = self._link, self.phase is _OPEN and not self.backlog.bytes
        if link is not None and may_pass and link.has_quota and self._owed_frames <= self._max_owed_frames:
            link.submit(_FEED, ready)
        else:
            self.backlog.put(ready)
            self.hand_on()
        return True

    def end(self) -> None:
        if rest := self._window_buffer.end():
            self.backlog.put(rest)
        self.backlog.end()
        self._is_begun = False
        if self._next_voice is not None:
            self.backlog.prime(self._next_voice)
            self._next_voice = None
        self.hand_on()

    def prime(self, voice: np.ndarray) -> None:
        """Starts streams in this voice; within an utterance, from its end on."""
        if self._is_begun:
            self._next_voice = voice
        else:
            self.backlog.prime(voice)
            self.hand_on()

    def clear(self) -> None:
        """Drops all input and resets the stream to the latest voice."""
        self._window_buffer.clear()
        waiting = self.backlog.clear()
        voice, self._next_voice = waiting if self._next_voice is None else self._next_voice, None
        self._is_begun = False
        self._stream = None
        if self._link is not None:
            if voice is not None:
                self._link.submit(CommandKind.PRIME, voice)
            self._link.submit(CommandKind.CLEAR)
        elif self.phase is SlotPhase.WAKING:  # no input is left to compute
            self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.PARKED)
            self._owner.parked()
        self._voice = self._voice if voice is None else voice

    def hand_on(self) -> None:
        """Passes input to the worker as far as it has room, and wakes the session if needed."""
        if not self.backlog.bytes:
            return
        if self.phase is SlotPhase.PARKED:
            self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.WAKING)
            self._owner.wake()
        if self.phase is not SlotPhase.OPEN or self._link is None:
            return
        backlog, link = self.backlog, self._link
        while backlog and link.has_quota:
            room_frames = self._max_owed_frames - (self._owed_frames - backlog.frames)
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
        """Pauses the worker's output while too much waits to be sent; resumes it at half of that."""
        is_full = queued_bytes > self._max_queue_bytes // (2 if self._is_paused else 1)
        if is_full is not self._is_paused and self._link is not None:
            self._is_paused = is_full
            self._link.submit(CommandKind.PAUSE if is_full else CommandKind.RESUME)

    def park(self) -> None:
        """Releases the slots and keeps accepting input."""
        if self.phase is not SlotPhase.OPEN or self.backlog or self._link is None:
            return
        if self._conversation.is_fresh:
            self._stay_parked(None)
        else:
            self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.PARKING)
            self._link.submit(CommandKind.PARK)

    def release(self) -> None:
        """Releases the place for good."""
        self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.RELEASED)
        self.backlog.clear()
        self._stream = None
        self._leave()
        del self._owner  # breaks the reference cycle

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
        if kind is _OUTPUT:
            payload, epoch, behind_ms = data
            data = payload, self._epoch + epoch, behind_ms
        elif kind is EventKind.FINISHED:
            data += self._epoch
        elif kind is EventKind.OPENED:
            self._stream = None
            self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.OPEN)
        elif kind is EventKind.PARKED:
            if data is None or self.backlog or self._epoch + data.epoch != self._conversation.epoch:  # no longer quiet
                self.phase = moved(SLOT_PHASES, self.phase, SlotPhase.OPEN)
            else:
                self._stay_parked(data)
        self._owner.deliver(kind, data)
