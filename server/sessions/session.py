"""One session from start to end; its connections and its slots come and go.

The client's messages go to the worker and the results back in order; the ServerSession decides what is sent when. Input
is read ahead of computing up to a limit, then the transport is held; too much unsent output pauses the worker. If the
connection is lost without a closing handshake, the session waits for its client (docs/protocol.md). A quiet session is
parked (slot.py).
"""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Any
from typing import Protocol as Interface

import numpy as np

from neucodec_streaming.config import FRAME_MS, TOKENS_PER_SECOND, StreamConfig
from neucodec_streaming.errors import ProtocolError, StreamingError
from neucodec_streaming.protocol.messages import Clear, ClientMessage, End, Flush, Prime, Ready, Stats
from neucodec_streaming.protocol.query import SessionRequest
from neucodec_streaming.protocol.session import ServerSession
from neucodec_streaming.protocol.states import OVER, UNGREETED, State
from neucodec_streaming.server.lifecycle import moved
from neucodec_streaming.server.metrics import Metrics
from neucodec_streaming.server.sessions.backlog import EarlyMessages
from neucodec_streaming.server.sessions.limits import SessionLimits
from neucodec_streaming.server.sessions.phases import ATTACHMENTS, Attachment, SlotPhase
from neucodec_streaming.server.sessions.slot import SessionSlot
from neucodec_streaming.server.sessions.transport import Transport
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.voices import Voices
from neucodec_streaming.server.workers.handle import WorkerHandle
from neucodec_streaming.server.workers.messages import EventKind, SessionSpec

STATS_INTERVAL_S = 1.0
RESTART_STATUS = 1012
"""RFC 6455's registry: service restart; reconnect, possibly to another server."""

_ENDED, _OPENING, _OUTPUT = Attachment.ENDED, SlotPhase.OPENING, EventKind.OUTPUT
"""Compared for every packet: looking up a member of an enum takes as long as a call."""
_log = logging.getLogger(__name__)


class SessionOwner(Interface):
    """The owner of places (registry.py)."""

    def wake(self, session: "Session") -> None:
        """A place is needed; `session.slot.open` is called once there is one."""

    def park(self, session: "Session") -> None:
        """The place is free for others, until `wake`."""

    def release(self, session: "Session") -> None:
        """The session needs no place any more. Called once."""

    def end(self, session: "Session") -> None:
        """The session cannot be resumed any more. Called once."""


class Session:
    """Serves one session; the SessionHandler of its present transport, and the SlotOwner of its slot.

    `ready` is the first connection's first message, with `computed_from` as in ServerSession.
    """

    def __init__(
        self,
        request: SessionRequest,
        ready: Ready,
        config: StreamConfig,
        device: WorkerHandle,
        settings: Settings,
        metrics: Metrics,
        owner: SessionOwner,
        voices: Voices,
        computed_from: int | None = None,
    ) -> None:
        self.ready = ready
        self.request = request
        self.lost_s = 0.0
        """When the connection was lost, if it `is_lost`."""
        self._logged = {"session": ready.session}
        self._conversation = ServerSession(
            ready, computed_from=computed_from, max_replay_bytes=settings.max_replay_bytes if settings.resume_s else 0
        )
        self._settings = settings
        self._metrics = metrics
        self._owner = owner
        self._voices = voices
        self._early = EarlyMessages()
        self._loop = asyncio.get_running_loop()
        self._transport: Transport | None = None
        self._attachment = Attachment.NEW
        self._outcome = "ok"
        self._behind_ms = 0.0
        self._limits = SessionLimits(settings, self.fail, self._park)
        self._first_input_s: float | None = None
        self._has_output = False
        self._counted_input, self._output_bytes = ready.input_position, 0  # already counted, and not yet
        voice = None if request.voice is None else voices.named(request.voice)
        spec = SessionSpec(request.kind, config, request.input, request.output, voice=voice)
        self.slot = SessionSlot(self, self._conversation, spec, settings)
        self.slot.open(device)

    # The client comes back

    def can_resume(self, asked: SessionRequest) -> bool:
        """Whether `asked` resumes this session, and everything that its client lacks is available."""
        is_this = asked.anew == self.request.anew and self.slot.phase is not SlotPhase.OPENING
        return is_this and self._conversation.can_resume(asked.received, asked.answers)

    def resume(self, asked: SessionRequest) -> None:
        """The next connection continues for the client; an existing one is cut."""
        if self._transport is not None:
            self._transport.drop()
            self._detach()
        self._conversation.resume(replace(self.ready, resumed="exact"), asked.received, asked.answers)

    def give_up(self, why: str) -> None:
        """Stops waiting for the client: "late" (it did not return), "full" (others need the place), "stop" (the server
        stops), or "parked" (too much memory).
        """
        self._metrics.evictions.labels(why).inc()
        self._outcome = why
        self._end("given up")

    def count_bytes(self) -> None:
        """Adds the traffic since the last call to the metrics, so that packets do not wait for their locks."""
        conversation = self._conversation
        units = conversation.input_position - self._counted_input
        self._metrics.input_bytes.labels(self.request.kind).inc(units * conversation.input.unit_bytes)
        self._metrics.output_bytes.labels(self.request.kind).inc(self._output_bytes)
        self._counted_input, self._output_bytes = conversation.input_position, 0

    @property
    def pending_s(self) -> float:
        """Seconds of input without output yet."""
        return self._conversation.owed_frames / TOKENS_PER_SECOND

    @property
    def queued_bytes(self) -> int:
        """Bytes of unsent output."""
        return self._conversation.queued_units * self._conversation.output.unit_bytes

    # As the owner of its slot

    def parked(self) -> None:
        """The slot needs no place for now."""
        self._limits.cancel("wake")
        self._owner.park(self)

    def wake(self) -> None:
        """The slot needs a place again."""
        self._limits.wake()
        self._owner.wake(self)

    @property
    def is_lost(self) -> bool:
        """Whether its connection was lost and it waits for its client."""
        return self._attachment is Attachment.LOST

    # The transport

    def opened(self, transport: Transport) -> None:
        self._transport = transport
        self._attachment = moved(ATTACHMENTS, self._attachment, Attachment.ATTACHED)
        self._limits.attached()
        if self.request.stats:
            self._limits.after("stats", STATS_INTERVAL_S, self._report)
        self._loop.call_soon(self._pump)  # messages that came with the request arrived before `ready`

    def received(self, message: bytes | ClientMessage | StreamingError) -> None:
        """Accepts a client's message; an invalid one, or the error of one, ends the session."""
        conversation = self._conversation
        if self._attachment is _ENDED or conversation.failure is not None or conversation.state in OVER:
            return
        self._limits.heard()
        try:
            if conversation.state in UNGREETED:
                waits = self._queue_early(message)
            elif isinstance(message, bytes):
                conversation.receive(message)
                if self._first_input_s is None:
                    self._first_input_s = self._limits.active_s
                waits = self.slot.feed(message)  # true: it completes a window, which may have to wait
            elif isinstance(message, StreamingError):
                self.fail(message)
                return
            else:
                waits = self._obey(message)
        except StreamingError as error:
            self.fail(error)
            return
        except Exception:
            _log.exception("session %s failed", self.ready.session, extra=self._logged)
            self.fail(StreamingError("internal error: reconnect"))
            return
        if waits and self._transport is not None and not self._has_room():
            self._transport.hold()

    def writable(self) -> None:
        self._pump()

    def lost(self, is_clean: bool) -> None:
        """The connection is closed; without a closing handshake its client may return."""
        if self._attachment is Attachment.ENDED:
            return
        conversation = self._conversation
        is_over = is_clean or conversation.failure is not None or conversation.state is State.OPENING
        if is_over or not self._settings.resume_s:
            self._end("closed")
            return
        conversation.lose()
        self._detach()
        self._limits.after("return", self._settings.resume_s, partial(self.give_up, "late"))
        _log.info(
            "session %s lost its connection: keeping it for %.0f s",
            *(self.ready.session, self._settings.resume_s),
            extra=self._logged,
        )

    def fail(self, error: StreamingError) -> None:
        """Ends the session with an error for the client."""
        self._conversation.fail(error)
        self._release()
        if self.is_lost:
            self._end("closed")
        else:
            self._pump()

    def restart(self) -> None:
        """The server stops: the client is told to resume elsewhere."""
        self._outcome = "stop"
        if self._transport is not None:
            self._transport.close(RESTART_STATUS, "the server is shutting down: resume elsewhere")
        else:
            self.give_up("stop")

    def evict(self) -> None:
        """Parked sessions exceed their memory limit: the client is told to resume, by replay."""
        if self._transport is not None:
            self._transport.close(RESTART_STATUS, "parked sessions exceed their memory limit: resume")
        self.give_up("parked")

    # Input

    def _queue_early(self, message: bytes | ClientMessage | StreamingError) -> bool:
        """Accepts a message before `ready`; it is always queued. Raises ProtocolError if the client must wait for
        `ready`.
        """
        if self.request.resume is not None or self._conversation.state is not State.OPENING:
            raise ProtocolError("message before ready, which says where a resumed session continues: wait for ready")
        self._early.put(message)
        return True

    def _obey(self, message: ClientMessage) -> bool:
        """Accepts any other message, which may have to wait."""
        if isinstance(message, Prime):
            message = self._voices.resolved(message)
        self._conversation.receive(message)
        if isinstance(message, Clear):
            self.slot.clear()
        elif isinstance(message, Prime):
            self.slot.prime(np.array(message.tokens, np.uint16))
        elif isinstance(message, (Flush, End)):
            self.slot.end()
        self._pump()
        return True

    def _has_room(self) -> bool:
        """Back-pressure: holds the transport while too much is queued."""
        conversation, settings = self._conversation, self._settings
        return conversation.failure is not None or (
            self._early.bytes + self.slot.backlog.bytes <= settings.max_read_ahead_bytes
            and conversation.queued_messages <= settings.max_queue_messages
        )

    # Output

    def deliver(self, news: EventKind, data: Any) -> None:
        if self._attachment is _ENDED:
            return
        try:
            if news is _OUTPUT:
                payload, epoch, self._behind_ms = data
                self._limits.active_s = self._loop.time()
                self._metrics.behind.observe(self._behind_ms / 1000)
                if not self._has_output:
                    self._count_first_output()
                self._conversation.output_ready(payload, epoch)
            elif news is EventKind.FINISHED:
                self._conversation.flush_finished(data)
            elif news is EventKind.ENDED:
                self.fail(data)
                return
            elif news is EventKind.OPENED:
                self._limits.cancel("slot", "wake")
            self._pump()
        except Exception:
            _log.exception("session %s failed", self.ready.session, extra=self._logged)
            self.fail(StreamingError("internal error: reconnect"))

    def _count_first_output(self) -> None:
        if self._first_input_s is not None:
            self._has_output = True
            waited_s = self._limits.active_s - self._first_input_s
            self._metrics.first_output.labels(self.request.kind, self.ready.profile).observe(waited_s)

    def _pump(self) -> None:
        """Sends messages, and lets the worker produce as much as the queues have room for."""
        conversation, transport = self._conversation, self._transport
        if transport is not None and self.slot.phase is not _OPENING:
            while transport.is_writable and transport.is_open and (message := conversation.next_message()) is not None:
                transport.send(message)
                if isinstance(message, bytes):
                    self._output_bytes += len(message)
            if conversation.is_over:
                failure = conversation.failure
                transport.close(conversation.close_code, failure.code if failure is not None else "")
                self._release()
            if self._early and conversation.is_greeted:
                for early in self._early.take():
                    self.received(early)
            if transport.is_held and self._has_room():
                transport.release()
        self.slot.pause(self.queued_bytes)
        self.slot.hand_on()

    def _report(self) -> None:
        conversation = self._conversation
        buffered_ms = float(conversation.owed_frames * FRAME_MS)
        behind_ms = round(self._behind_ms, 3)
        conversation.report(Stats(buffered_ms, behind_ms, conversation.input_position, conversation.output_position))
        self._limits.after("stats", STATS_INTERVAL_S, self._report)
        self._pump()

    def _park(self) -> None:
        """There has been no traffic for a while."""
        conversation = self._conversation
        if not conversation.queued_messages and (self.is_lost or conversation.is_greeted):
            self.slot.park()

    # The end

    def _detach(self) -> None:
        self._transport = None
        self._attachment = moved(ATTACHMENTS, self._attachment, Attachment.LOST)
        self.lost_s = self._loop.time()
        self._limits.cancel("idle", "stats")

    def _release(self) -> None:
        if self.slot.phase is not SlotPhase.RELEASED:
            self.slot.release()
            self._limits.cancel("slot", "wake", "park")
            self._owner.release(self)

    def _end(self, how: str) -> None:
        if self._attachment is Attachment.ENDED:
            return
        self._release()
        self._attachment = moved(ATTACHMENTS, self._attachment, Attachment.ENDED)
        self._transport = None
        self._limits.stop()
        self.count_bytes()
        conversation = self._conversation
        outcome = conversation.failure.code if conversation.failure is not None else self._outcome
        if conversation.failure is not None:
            self._metrics.errors.labels(outcome).inc()
        _log.info(
            "session %s %s: %s, %d in, %d out",
            *(self.ready.session, how, outcome, conversation.input_position, conversation.output_position),
            extra=self._logged,
        )
        self._owner.end(self)
