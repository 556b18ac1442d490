"""All sessions of a server: placement, resuming, eviction, and shutdown.

A session holds a place from its start until nothing is computed for it any more, also while its connection is lost, but
not while it is parked. Lost sessions are evicted if no other place is free, the longest-lost first. A parked session
that needs a place and finds none waits in order.
"""

import asyncio
import hashlib
import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.budget import Budget
from neucodec_streaming.errors import CapacityError, ConfigError, LimitError, StreamingError
from neucodec_streaming.protocol.messages import Ready, Resume
from neucodec_streaming.protocol.query import SessionRequest
from neucodec_streaming.server.auth.gate import Caller, Gate
from neucodec_streaming.server.metrics import Metrics
from neucodec_streaming.server.model import Model, latency_ms
from neucodec_streaming.server.sessions.admission import Admission
from neucodec_streaming.server.sessions.session import Session
from neucodec_streaming.server.settings.fields import Settings
from neucodec_streaming.server.workers.handle import WorkerHandle

TOKEN_BYTES = 16
SESSION_STATES = ATTACHED, DETACHED, PARKED = "attached", "detached", "parked"


@dataclass
class _Registration:
    """A session that is open or can be resumed."""

    caller: Caller
    session: Session
    worker: int | None
    """The worker of its place; None without a place."""

    @property
    def state(self) -> str:
        """Whether it has a connection and a place, one of SESSION_STATES."""
        if self.worker is None:
            return PARKED
        return DETACHED if self.session.is_lost else ATTACHED


class Sessions:
    """Sessions of one model, stepped by these devices."""

    def __init__(
        self,
        model: Model,
        gate: Gate,
        devices: Sequence[WorkerHandle],
        settings: Settings,
        metrics: Metrics,
        token_prefix: str = "",
    ) -> None:
        self.model = model
        self._gate = gate
        self._devices = devices
        self._settings = settings
        self._metrics = metrics
        self._token_prefix = token_prefix
        self._admission = Admission(model.budget, settings.max_sessions, len(devices))
        self._entries: dict[str, _Registration] = {}  # by token
        self._parked: dict[str, Session] = {}  # by token, in order of parking
        self._waking: dict[str, Session] = {}  # waiting for a place, in order
        self._released = asyncio.Event()
        self.capacity: dict[tuple[str, str], int] = {}
        """Number of sessions that fit on the empty server, by kind and profile."""
        self.use_budget(model.budget)
        metrics.max_load.set(model.budget.max_load)
        metrics.slots_limit.set(settings.max_sessions)

    def use_budget(self, budget: Budget) -> None:
        """Replaces the measured step times by which sessions are admitted."""
        self._admission.budget = budget
        for name, config in self.model.profiles.items():
            for kind in self.model.kinds:
                self.capacity[kind, name] = self._admission.capacity(kind, config)
                self._metrics.capacity.labels(kind, name).set(self.capacity[kind, name])

    @property
    def count(self) -> int:
        """Number of reserved places."""
        return self._admission.sessions

    @property
    def load(self) -> float:
        """Share of time in which the sessions keep the devices busy."""
        return self._admission.load

    async def emptied(self, down_to: int = 0) -> None:
        """Waits until at most `down_to` places are reserved."""
        while self.count > down_to:
            self._released.clear()
            await self._released.wait()

    def find(self, asked: SessionRequest, caller: Caller) -> Session | None:
        """The session that `asked` resumes; None if it is gone or lacks output that the client needs."""
        entry = self._entries.get(asked.resume) if asked.resume is not None else None
        if entry is None or entry.caller.name != caller.name:
            return None
        return entry.session if entry.session.can_resume(asked.at_rate(self.model.output_rate)) else None

    def open(self, asked: SessionRequest, caller: Caller) -> Session:
        """Opens a new session, which continues a lost one's input if `asked` says so.

        Raises ConfigError, CapacityError, and LimitError for a key or an address.
        """
        asked = asked.at_rate(self.model.output_rate)
        profile, config = self.model.profile(asked.profile)
        if asked.kind not in self.model.kinds:
            raise ConfigError(f"{asked.kind} sessions are not served here: choose {' or '.join(self.model.kinds)}")
        if asked.voice is not None:
            self.model.voices.named(asked.voice)
        self._enter(caller)
        try:
            worker = self._admit(asked.kind, config)
        except StreamingError:
            self._gate.leave(caller)
            raise
        ready, computed_from = self._ready(asked, profile, config)
        session = Session(
            asked,
            ready,
            config,
            self._devices[worker],
            self._settings,
            self._metrics,
            owner=self,
            voices=self.model.voices,
            computed_from=computed_from,
        )
        self._entries[ready.resume.token] = _Registration(caller, session, worker)
        return session

    def check(self, asked: SessionRequest, caller: Caller) -> None:
        """Raises what `open` would raise now, without reserving anything or evicting a lost session."""
        _, config = self.model.profile(asked.profile)
        if asked.voice is not None:
            self.model.voices.named(asked.voice)
        self._gate.enter(caller)
        try:
            self._admission.release(self._admission.admit(asked.kind, config), asked.kind, config)
        finally:
            self._gate.leave(caller)

    def measure(self) -> None:
        """Updates gauges and counters."""
        metrics = self._metrics
        for session in self._all(lambda entry: True):
            session.count_bytes()
        open_entries = [entry for entry in self._entries.values() if entry.session.slot.is_live]
        counts = Counter(
            (entry.session.request.kind, entry.session.ready.profile, entry.state) for entry in open_entries
        )
        for (kind, profile), state in product(self.capacity, SESSION_STATES):
            metrics.sessions.labels(kind, profile, state).set(counts[kind, profile, state])
        metrics.parked_bytes.set(self._parked_bytes)
        metrics.slots_used.set(self.count)
        metrics.load.set(self.load)
        slots, load = self.count / self._settings.max_sessions, self.load / self.model.budget.max_load
        metrics.utilization.set(max(slots, load))
        metrics.pending_input.set(sum(entry.session.pending_s for entry in open_entries))
        metrics.queued_output.set(sum(entry.session.queued_bytes for entry in open_entries))

    def fail(self, device: WorkerHandle, error: StreamingError) -> None:
        """Ends every session of a device with an error."""
        for session in self._all(lambda entry: entry.session.slot.device is device):
            session.fail(error)

    def give_up_idle(self) -> None:
        """Stops waiting for lost and parked sessions: their clients resume elsewhere."""
        for session in self._all(lambda entry: entry.session.is_lost):
            session.give_up("stop")
        for session in self._all(lambda entry: entry.session.slot.is_parked):
            session.restart()

    def restart(self) -> None:
        """Ends every session; clients are told to resume elsewhere."""
        for session in self._all(lambda entry: True):
            session.restart()

    def _ready(self, asked: SessionRequest, profile: str, config: StreamConfig) -> tuple[Ready, int | None]:
        """The client's `ready`, and the output position that belongs to the input position to replay from."""
        fingerprint = self._fingerprint(asked, config)
        start = asked.utterance or asked.tail if asked.resume is not None else None
        resumed = "new"
        if start is not None and asked.resume is not None:
            same_bits = bool(fingerprint) and asked.resume.partition(".")[2] == fingerprint
            resumed = "exact" if asked.utterance is not None and same_bits else "approximate"
        ready = Ready(
            session=uuid.uuid4().hex[:12],
            model=self.model.name,
            profile=profile,
            chunk_frames=config.chunk_frames,
            lookahead_frames=config.lookahead_frames,
            latency_ms=latency_ms(asked.kind, config, asked.input, asked.output, self.model.output_rate),
            input=asked.input,
            output=asked.output,
            resume=Resume(
                f"{self._token_prefix}{secrets.token_hex(TOKEN_BYTES)}.{fingerprint}", self._settings.resume_s
            ),
            resumed=resumed,
            input_position=0 if start is None else start.input,
            output_position=0 if start is None else max(start.output, asked.received),
            capacity=self.capacity[asked.kind, profile],
        )
        return ready, None if start is None else start.output

    def _fingerprint(self, asked: SessionRequest, config: StreamConfig) -> str:
        """Hash of what determines the bits of such a session, with its voice; "" if they are not determined.

        A session that decodes without naming a voice may name one later.
        """
        if not self.model.fingerprint:
            return ""
        voices = "" if asked.kind == "encode" else self.model.voices.fingerprint(asked.voice)
        return hashlib.sha256(f"{self.model.fingerprint}{voices} {config}".encode()).hexdigest()[:16]

    def _enter(self, caller: Caller) -> None:
        """Counts a caller's session; the caller's own lost sessions are evicted first."""
        try:
            self._gate.enter(caller)
        except LimitError:
            if not self._give_way(lambda entry: entry.caller == caller):
                raise
            self._gate.enter(caller)

    def _admit(self, kind: str, config: StreamConfig) -> int:
        """Reserves a place, evicting lost sessions as long as necessary."""
        while True:
            try:
                return self._admission.admit(kind, config)
            except CapacityError:
                if not self._give_way(lambda entry: True):
                    raise

    def _give_way(self, may: Callable[[_Registration], bool]) -> bool:
        """Evicts the longest-lost session, if any."""
        lost = [
            (entry.session.lost_s, entry.session)
            for entry in self._entries.values()
            if entry.worker is not None and entry.session.is_lost and may(entry)
        ]
        if lost:
            min(lost, key=lambda pair: pair[0])[1].give_up("full")
        return bool(lost)

    def _all(self, wanted: Callable[[_Registration], bool]) -> list[Session]:
        return [entry.session for entry in self._entries.values() if wanted(entry)]

    # What sessions ask of their owner

    def park(self, session: Session) -> None:
        """Its place is free for others; if parked sessions exceed their memory limit, the oldest is evicted."""
        token = session.ready.resume.token
        self._waking.pop(token, None)
        self._parked[token] = session
        self._free(self._entries[token])
        while self._parked_bytes > self._settings.max_parked_bytes:
            next(iter(self._parked.values())).evict()

    def wake(self, session: Session) -> None:
        """Opens the session on a worker as soon as there is a place."""
        token = session.ready.resume.token
        self._parked.pop(token, None)
        self._waking[token] = session
        self._place_waking()

    def release(self, session: Session) -> None:
        """The session needs no place any more."""
        token = session.ready.resume.token
        self._parked.pop(token, None)
        self._waking.pop(token, None)
        self._gate.leave(self._entries[token].caller)
        self._free(self._entries[token])

    def end(self, session: Session) -> None:
        """The session cannot be resumed any more."""
        del self._entries[session.ready.resume.token]

    @property
    def _parked_bytes(self) -> int:
        return sum(session.slot.parked_bytes for session in self._parked.values())

    def _free(self, entry: _Registration) -> None:
        if entry.worker is None:
            return
        session = entry.session
        self._admission.release(entry.worker, session.request.kind, self.model.profiles[session.ready.profile])
        entry.worker = None
        self._released.set()
        self._place_waking()

    def _place_waking(self) -> None:
        """Gives free places to waiting sessions."""
        while self._waking:
            token, session = next(iter(self._waking.items()))
            try:
                worker = self._admit(session.request.kind, self.model.profiles[session.ready.profile])
            except CapacityError:
                return
            del self._waking[token]
            self._entries[token].worker = worker
            session.slot.open(self._devices[worker])
