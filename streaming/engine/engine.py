"""Many live sessions stepped together: `open`, `feed`, `flush`, `clear`, `close`, and `step` (schedule, run, deliver).

Pure: arrays in, results out of `step`; the owner provides thread and time. A session is one stage or, for a round trip,
two: the encoder's tokens go directly to the decoder's stage. Commands take effect in order: input after a flush waits
until the utterance before it has ended.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.overload import DEFAULT_MAX_BEHIND_S, Overload
from neucodec_streaming.engine.results import EngineResult, Failed, FlushFinished, Output
from neucodec_streaming.engine.scheduler import Pool, Scheduler, StepBatch
from neucodec_streaming.engine.session import EngineSession, StepInFlight
from neucodec_streaming.engine.slots import Slots
from neucodec_streaming.engine.stage import END, MAX_AHEAD_S, NextVoice, Stage
from neucodec_streaming.engine.steps import Steps
from neucodec_streaming.errors import ConfigError, DeviceError, LostDeviceError, StreamingError
from neucodec_streaming.windows import Window

STAGES = {"encode": ("encode",), "decode": ("decode",), "roundtrip": ("encode", "decode")}
"""Kind of session -> the parts of the model that it uses."""
DEFAULT_GATHER_S = 0.004
POLL_S = 0.0003
"""Interval of polling a step in flight, since the device does not signal its completion."""
MEASURE_STEP_S = 0.2
"""Approximate time limit of measuring one step size on an idle server."""
VOICE_STEP_EVERY_S = 0.02
"""A voice is computed in steps, between batches, and at least this often: other sessions are late by at most one such
step, and the waiting session does not starve.
"""


def pools_of(kind: str, config: StreamConfig) -> dict[str, Pool]:
    """The pool of each part of a session of `kind`."""
    return {part: Pool(part, config) for part in STAGES[kind]}


_log = logging.getLogger(__name__)


class Engine:
    """Sessions of the runner's pools.

    `gather_s`: longest wait of a lone window for others. `max_behind_s`: lateness of live windows beyond which overload
    closes the newest live session, unless it is the only one. `step_s`: pool -> batch size -> approximate step time, if
    known.
    """

    def __init__(
        self,
        runner: Steps,
        gather_s: float = DEFAULT_GATHER_S,
        max_behind_s: float = DEFAULT_MAX_BEHIND_S,
        step_s: Mapping[Pool, Mapping[int, float]] | None = None,
    ) -> None:
        self._runner = runner
        self._overload = Overload(max_behind_s)
        self._scheduler = Scheduler(runner.batch_sizes, gather_s, step_s, max_edges=runner.max_edges)
        self._pools = {pool: pool for pool in runner.pools}  # interns equal pools: lookups compare by identity
        self._slots = {pool: Slots(runner.slots) for pool in runner.pools}
        self._sessions: dict[int, EngineSession] = {}
        self._opened = 0
        self._results: list[EngineResult] = []
        self._in_flight: deque[StepInFlight] = deque()
        self._unready: dict[Stage, None] = {}  # stages waiting for their voice, in order; all their input waits too
        self._voice_stepped_s = float("-inf")
        self._stepped_s = 0.0
        self.stepped: StepInFlight | None = None
        """The step that the last `step` delivered, if any."""

    @property
    def depth(self) -> int:
        """Limit of steps in flight."""
        return self._runner.depth

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def open(self, kind: str, pools: dict[str, Pool]) -> int:
        """Opens a session of `kind` ("encode", "decode", "roundtrip"); `pools` has one for each of its parts.

        Raises CapacityError if a slot is missing, ConfigError for an unknown kind or pool, and the device's error if a
        slot cannot be reset; nothing has changed then.
        """
        if kind not in STAGES:
            raise ConfigError(f"kind {kind!r} is unknown: choose one of {', '.join(STAGES)}")
        for part in STAGES[kind]:
            if pools[part] not in self._pools:
                raise ConfigError(f"no slots for {pools[part]}: the runner has {self._runner.pools}")
        wanted = [self._pools[pools[part]] for part in STAGES[kind]]
        self._opened += 1
        stages: list[Stage] = []
        try:
            for place, pool in enumerate(wanted):
                stages.append(
                    Stage(self._opened, place, pool, self._slots[pool].acquire(), self._runner.windower(pool))
                )
                if stages[-1].slot.is_dirty:
                    self._runner.reset(pool, stages[-1].slot.index)
        except Exception:
            for stage in stages:
                self._slots[stage.pool].release(stage.slot, stage.slot.is_dirty)
            raise
        for stage in stages:
            self._scheduler.enrol(stage.pool)
        self._sessions[self._opened] = EngineSession(stages)
        return self._opened

    def measure(self, pool: Pool, size: int, clock: Callable[[], float]) -> float | None:
        """Measures a step at that batch size, in seconds; None while sessions are open."""
        is_busy = self._sessions or self._in_flight
        return None if is_busy else self._runner.measure_step(pool, size, clock, MEASURE_STEP_S)

    def is_idle(self, session: int) -> bool:
        """Whether the session has nothing to compute until it gets more input."""
        stages = self._sessions[session].stages
        return not any(
            self._scheduler.has(stage.pool, stage) or stage.ending or stage.inbox or stage in self._unready
            for stage in stages
        )

    def snapshot(self, session: int) -> bytes:
        """The session as versioned bytes, including pending input but not results that `step` has yet to deliver."""
        found = self._sessions[session]
        while any(stage.in_flight for stage in found.stages):
            self._land()
        return found.snapshot([self._runner.snapshot(stage.pool, stage.slot.index) for stage in found.stages])

    def restore(self, kind: str, pools: dict[str, Pool], snapshot: bytes, now_s: float) -> int:
        """Opens a session that continues from a snapshot, bit-identically at the same batch size.

        Raises SnapshotError for bytes of another kind, model or configuration, and the errors of `open`; nothing has
        changed then.
        """
        session = self.open(kind, pools)
        stages = self._sessions[session].stages
        try:
            for stage, state in zip(stages, self._sessions[session].restore(snapshot, now_s), strict=True):
                self._runner.restore(stage.pool, stage.slot.index, state)
        except Exception:
            self.close(session)
            raise
        for stage in stages:
            if stage.voice is not None and not stage.committed:  # it waited for its voice
                self._restart(stage)
                self._take_in_waiting(stage, now_s)
            self._proceed(stage, now_s)
        return session

    def feed(self, session: int, data: np.ndarray, now_s: float) -> None:
        """Feeds input of any length, from `check_audio` or `check_tokens`; the caller must not change it afterwards."""
        if len(data):
            self._put(self._sessions[session].stages[0], data, now_s)

    def flush(self, session: int, now_s: float) -> None:
        """Ends the utterance: its rest is delivered, then FlushFinished; later input starts a new one."""
        self._put(self._sessions[session].stages[0], END, now_s)

    def prime(self, session: int, voice: np.ndarray | None, now_s: float) -> None:
        """Starts the decoder's streams in this voice (from `check_voice`) from the next utterance on; None removes the
        voice.

        It applies to this utterance if it is still empty. Raises ConfigError for a session without a decoder.
        """
        found = self._sessions[session]
        if found.stages[-1].pool.kind != "decode":
            raise ConfigError("an encode session has no voice: prime a decode or roundtrip session")
        found.voice = voice
        self._put(found.stages[0], NextVoice(voice), now_s)

    def clear(self, session: int, now_s: float) -> None:
        """Drops everything and resets the session to its latest voice; its epoch rises by one."""
        found = self._sessions[session]
        found.epoch += 1
        found.stages[-1].voice = found.voice
        for stage in found.stages:
            self._scheduler.remove(stage.pool, stage)
            stage.inbox.clear()
            stage.next_voice = None
            stage.not_before_s = min(stage.not_before_s, now_s + MAX_AHEAD_S)
            self._restart(stage)

    def pause(self, session: int) -> None:
        """Pauses output: the session keeps its input and is not stepped."""
        found = self._sessions[session]
        found.paused = True
        for stage in found.stages:
            self._scheduler.remove(stage.pool, stage)

    def resume(self, session: int, now_s: float) -> None:
        found = self._sessions[session]
        found.paused = False
        for stage in found.stages:
            stage.rebase(now_s)
            self._proceed(stage, now_s)

    def close(self, session: int) -> None:
        """Closes the session and frees its slots; they are reset at their next use."""
        found = self._sessions.pop(session)
        for stage in found.stages:
            self._unready.pop(stage, None)
            stage.in_flight = None
            self._scheduler.remove(stage.pool, stage)
            self._scheduler.leave(stage.pool)
            self._slots[stage.pool].release(stage.slot, stage.dirty)

    def wake_s(self) -> float | None:
        """When `step` next has something to do; None if nothing. Undelivered results are due at once."""
        if self._results or self._unready or self._is_step_done:
            return float("-inf")
        due_s = self._scheduler.wake_s() if len(self._in_flight) < self._runner.depth else None
        if not self._in_flight:
            return due_s
        poll_s = self._stepped_s + POLL_S
        return poll_s if due_s is None else min(due_s, poll_s)

    def step(self, now_s: float) -> list[EngineResult]:
        """Launches at most one batch, unless `runner.depth` are in flight, and delivers the oldest one if the device is
        done with it; never waits for the device. Also delivers results of commands. Raises LostDeviceError.
        """
        self._stepped_s = now_s
        self._shed(now_s)
        batch = self._scheduler.next_batch(now_s) if len(self._in_flight) < self._runner.depth else None
        if batch is not None:
            self._launch(batch, now_s)
        self.stepped = self._land() if self._is_step_done else None
        if self._unready and (batch is None or now_s - self._voice_stepped_s >= VOICE_STEP_EVERY_S):
            self._voice_stepped_s = now_s
            self._prepare_voice(next(iter(self._unready)), now_s)
        results, self._results = self._results, []
        return results

    @property
    def _is_step_done(self) -> bool:
        """Whether the device is done with the oldest step in flight."""
        rows = self._in_flight[0].rows if self._in_flight else None
        return rows is not None and rows.is_done()

    def _shed(self, now_s: float) -> None:
        """Closes the newest live session if the device has been too slow for all of them."""
        due_s = self._scheduler.earliest_deadline_s()
        if due_s is not None and now_s - due_s > self._overload.max_behind_s:
            due_s = self._scheduler.earliest_live_deadline_s()
        behind_s = 0.0 if due_s is None else now_s - due_s
        if self._overload.sheds(behind_s, now_s):
            live = [session for session, found in self._sessions.items() if found.is_live and not found.paused]
            if len(live) < 2:
                return  # closing the only session would help nobody
            newest = max(live)
            _log.warning("%.1f s behind with %d sessions: closing the newest", behind_s, self.sessions)
            self._fail(newest, self._overload.error(behind_s))

    def _launch(self, batch: StepBatch, now_s: float) -> None:
        step = StepInFlight(batch.pool, batch.members, now_s)
        try:
            slots = [stage.slot.index for stage in step.stages]
            step.rows = self._runner.launch(batch.pool, slots, step.windows, batch.size)
        except Exception:
            self._fail_step(step)
        else:
            self._in_flight.append(step)

    def _land(self) -> StepInFlight | None:
        """Delivers and returns the oldest step in flight, if there is one and it has not failed."""
        if not self._in_flight:
            return None
        step = self._in_flight.popleft()
        assert step.rows is not None, "it was launched"
        try:
            rows = step.rows.wait()
        except Exception:
            self._fail_step(step)
            return None
        for stage, window, row, ends in zip(step.stages, step.windows, rows, step.last, strict=True):
            if stage.in_flight is step:  # neither closed nor cleared meanwhile
                stage.in_flight = None
                self._deliver(stage, window, row, ends, step.launched_s)
        return step

    def _fail_step(self, step: StepInFlight) -> None:
        _log.exception("step of %d %s sessions failed", len(step.stages), step.stages[0].pool.kind)
        self.check_device()
        for stage in step.stages:
            if stage.in_flight is step:
                self._fail(stage.session, DeviceError("the device failed in a step of this session: reconnect"))

    def check_device(self) -> None:
        """Handles an error of the runner. Raises LostDeviceError if every later call would fail too."""
        if not self._runner.is_alive():
            raise LostDeviceError("the device does not respond: restart the process")

    def _deliver(self, stage: Stage, window: Window, row: np.ndarray, ends: bool, now_s: float) -> None:
        stage.committed += window.commit
        output = stage.windower.output(window, row)
        if len(output):
            found = self._sessions[stage.session]
            if stage is found.stages[-1]:
                behind_ms = max(0.0, (now_s - stage.due_s) * 1000)
                self._results.append(Output(stage.session, found.epoch, output, behind_ms))
            else:  # as urgent as the chunk that it came from
                self._put(found.stages[stage.place + 1], output, stage.ready_s)
        if ends:
            self._finish(stage, now_s)
        self._proceed(stage, now_s)

    def _put(self, stage: Stage, data: np.ndarray | NextVoice, now_s: float) -> None:
        """Passes input, END or a voice to a stage, after its queue."""
        if stage.ending or stage in self._unready:
            stage.inbox.append(data)
        else:
            self._take_in(stage, data, now_s)
            self._proceed(stage, now_s)

    def _take_in(self, stage: Stage, data: np.ndarray | NextVoice, now_s: float) -> None:
        if data is END:
            stage.ending = True
        elif not isinstance(data, NextVoice):
            stage.push(data, now_s)
        elif not stage.windower.is_fresh:
            stage.next_voice = data
        elif stage is not self._sessions[stage.session].stages[-1]:
            self._put(self._sessions[stage.session].stages[stage.place + 1], data, now_s)
        else:
            stage.voice = data.tokens
            self._restart(stage)

    def _proceed(self, stage: Stage, now_s: float) -> None:
        """Schedules the stage's next window; an utterance's end without one takes effect at once."""
        if not (stage.windower.has_window or stage.ending):
            return  # the usual case: no complete window, no end
        if self._sessions[stage.session].paused or stage.in_flight or self._scheduler.has(stage.pool, stage):
            return
        while (entry := stage.entry(now_s)) is None:
            if not stage.ending:
                return
            self._finish(stage, now_s)
        self._scheduler.add(stage.pool, stage, entry)

    def _finish(self, stage: Stage, now_s: float) -> None:
        """Ends the stage's utterance: passes the end on, resets the stage, and takes input from its queue."""
        found = self._sessions[stage.session]
        next_voice, stage.next_voice = stage.next_voice, None
        self._restart(stage)
        if stage is found.stages[-1]:
            self._results.append(FlushFinished(stage.session, found.epoch))
        else:
            self._put(found.stages[stage.place + 1], END, now_s)
        if next_voice is not None:
            self._take_in(stage, next_voice, now_s)
        self._take_in_waiting(stage, now_s)

    def _take_in_waiting(self, stage: Stage, now_s: float) -> None:
        while stage.inbox and not stage.ending and stage not in self._unready:
            self._take_in(stage, stage.inbox.popleft(), now_s)

    def _prepare_voice(self, stage: Stage, now_s: float) -> None:
        """Computes a step of the voice that the stage waits for; after the last one the stage continues."""
        assert stage.voice is not None, "it waits for a voice"
        try:
            if not self._runner.prepare_voice(stage.pool, stage.voice, 1):
                return
            self._restart(stage)
        except Exception:
            _log.exception("computing a voice failed")
            self.check_device()
            self._fail(stage.session, DeviceError("the device failed to compute the voice of this session: reconnect"))
            return
        self._take_in_waiting(stage, now_s)
        self._proceed(stage, now_s)

    def _restart(self, stage: Stage) -> None:
        """Resets the stage to its voice at once, or when the voice is computed."""
        self._unready.pop(stage, None)
        if stage.voice is None:
            if stage.dirty:
                self._runner.reset(stage.pool, stage.slot.index)
            stage.restart(None)
        elif self._runner.prepare_voice(stage.pool, stage.voice, 0):
            stage.restart(self._runner.prime(stage.pool, stage.slot.index, stage.voice))
        else:
            is_dirty = stage.dirty
            stage.restart(None)
            stage.dirty = is_dirty
            self._unready[stage] = None

    def _fail(self, session: int, error: StreamingError) -> None:
        if session not in self._sessions:
            return
        self.close(session)
        self._results.append(Failed(session, error))
