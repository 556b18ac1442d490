"""A worker: the one thread that steps its engine. Commands go in by a queue, results of a step come back in one hop.

The event loop talks to it through a Link for each session. A link may have QUOTA commands under way, so the queue is
bounded by the sessions there are; whoever is over its quota waits for Handled (policy: wait). What fails for one
session is reported to that session; the thread lives on.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from streaming.audio import Resampler, pcm_from_bytes, pcm_to_bytes
from streaming.config import INPUT_RATE, OUTPUT_RATE, StreamConfig
from streaming.engine.engine import Engine, Failed, FlushFinished, Output, Result, pools_of
from streaming.engine.scheduler import Pool
from streaming.errors import DeviceError, StreamingError
from streaming.protocol.messages import StreamFormat
from streaming.tokens import tokens_from_bytes, tokens_to_bytes

QUOTA = 64
"""Commands of one session that may be under way."""

_log = logging.getLogger(__name__)


class Verb(Enum):
    """What can be asked of the device thread for one session."""

    OPEN = auto()
    FEED = auto()
    FLUSH = auto()
    CLEAR = auto()
    PAUSE = auto()
    RESUME = auto()
    CLOSE = auto()


@dataclass(frozen=True)
class Opened:
    """The session has its slots."""


@dataclass(frozen=True)
class Payload:
    """Output of a session as bytes of its format."""

    data: bytes
    epoch: int
    behind_ms: float


@dataclass(frozen=True)
class Handled:
    """The commands of this session that waited have been taken."""


Event = Opened | Payload | FlushFinished | Failed | Handled


class Link:
    """One session as the event loop and the device thread share it.

    The loop writes `submitted` and `notify`, the thread `handled`, `engine_id` and `behind_ms` (of the latest output);
    each is a plain value, read by the other side at its leisure. `deliver` runs in the loop, the conversion between
    wire and engine in the thread.
    """

    def __init__(
        self,
        kind: str,
        config: StreamConfig,
        input: StreamFormat,
        output: StreamFormat,
        deliver: Callable[[Event], None],
    ) -> None:
        self.kind = kind
        self.pools = pools_of(kind, config)
        self.input, self.output = input, output
        self._from_wire = _resampler(input.rate, INPUT_RATE) if input.kind == "audio" else None
        self._to_wire = _resampler(OUTPUT_RATE, output.rate) if output.kind == "audio" else None
        self.deliver = deliver
        self.submitted = 0
        self.handled = 0
        self.notify = False
        self.engine_id: int | None = None
        self.behind_ms = 0.0

    @property
    def has_quota(self) -> bool:
        """Whether one more command may be submitted."""
        return self.submitted - self.handled < QUOTA

    def read(self, data: bytes) -> np.ndarray:
        """Input bytes as the array that the engine takes, as far as the resampler can tell by now."""
        if self.input.kind == "tokens":
            return tokens_from_bytes(data)
        audio = pcm_from_bytes(data, self.input.format)
        return audio if self._from_wire is None else self._from_wire.feed(audio)

    def read_rest(self) -> np.ndarray | None:
        """At the end of an utterance: what `read` still owes."""
        return None if self._from_wire is None else self._from_wire.flush()

    def written(self, data: np.ndarray) -> bytes:
        """The engine's output as bytes, as far as the resampler can tell by now."""
        if self.output.kind == "tokens":
            return tokens_to_bytes(data)
        return pcm_to_bytes(data if self._to_wire is None else self._to_wire.feed(data), self.output.format)

    def written_rest(self) -> bytes:
        """At the end of an utterance: what `written` still owes."""
        return b"" if self._to_wire is None else pcm_to_bytes(self._to_wire.flush(), self.output.format)

    def clear(self) -> None:
        """The stream starts anew."""
        for resampler in (self._from_wire, self._to_wire):
            if resampler is not None:
                resampler.clear()


def _resampler(input_rate: int, output_rate: int) -> Resampler | None:
    return None if input_rate == output_rate else Resampler(input_rate, output_rate)


class DeviceThread:
    """Runs the engine that `load` makes (in the thread itself). `clock` gives monotonic seconds.

    `on_step` is told, in the thread, whose batch was stepped and in how many seconds.
    """

    def __init__(
        self, load: Callable[[], Engine], clock: Callable[[], float], on_step: Callable[[Pool, float], None]
    ) -> None:
        self._load = load
        self._clock = clock
        self._on_step = on_step
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._wakeup = threading.Condition()
        self._outbox: list[tuple[Link, Verb, bytes]] = []  # the loop's own
        self._commands: list[tuple[Link, Verb, bytes]] = []
        self._stopping = False
        self._busy_since: float | None = None
        self._links: dict[int, Link] = {}
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        """Starts the thread; `loaded` tells when the engine is there."""
        self._thread.start()

    async def loaded(self) -> None:
        """Returns when the model is loaded and warm; raises what prevented it."""
        await asyncio.shield(self._loaded)

    def stuck_for_s(self) -> float:
        """How long the thread has been busy with what it does now."""
        since = self._busy_since
        return 0.0 if since is None else self._clock() - since

    @property
    def alive(self) -> bool:
        """Whether the engine is loaded and the thread runs."""
        return self._loaded.done() and self._thread.is_alive() and not self._stopping

    def submit(self, link: Link, verb: Verb, data: bytes = b"") -> None:
        """Queues a command; of FEED, FLUSH and CLEAR a link may have QUOTA under way, which the caller minds."""
        link.submitted += 1
        if not self._outbox:
            self._loop.call_soon(self._hand_over)  # once for all that this round of the loop brings
        self._outbox.append((link, verb, data))

    def _hand_over(self) -> None:
        outbox, self._outbox = self._outbox, []
        with self._wakeup:
            self._commands += outbox
            self._wakeup.notify()

    async def stop(self, timeout_s: float) -> None:
        """Ends the thread after the step under way; gives up waiting after `timeout_s`."""
        with self._wakeup:
            self._stopping = True
            self._wakeup.notify()
        await asyncio.to_thread(self._thread.join, timeout_s)
        if self._thread.is_alive():
            _log.error("the device thread did not end within %.0f s", timeout_s)

    def _run(self) -> None:
        try:
            self._busy_since = self._clock()
            engine = self._load()
        except Exception as error:
            self._post(self._loaded.set_exception, error)
            return
        self._post(self._loaded.set_result, None)
        while (commands := self._wait(engine)) is not None:
            self._busy_since = self._clock()
            events: list[tuple[Link, Event]] = []
            for link, verb, data in commands:
                self._apply(engine, link, verb, data, events)
            try:
                begin_s = self._clock()
                results = engine.step(begin_s)
                if engine.stepped is not None:
                    self._on_step(engine.stepped, self._clock() - begin_s)
                for result in results:
                    self._translate(engine, result, events)
            except Exception:
                _log.exception("the engine failed")
                self._fail_all(engine, events)
            if events:
                self._post(_deliver_all, events)

    def _wait(self, engine: Engine) -> list[tuple[Link, Verb, bytes]] | None:
        """The commands since the last call, at once or when the engine has something to do; None: stop."""
        self._busy_since = None
        with self._wakeup:
            while not self._commands and not self._stopping:
                wake_s = engine.wake_s()
                wait_s = None if wake_s is None else wake_s - self._clock()
                if wait_s is not None and wait_s <= 0:
                    break
                self._wakeup.wait(wait_s)
            if self._stopping:
                return None
            commands, self._commands = self._commands, []
            return commands

    def _apply(self, engine: Engine, link: Link, verb: Verb, data: bytes, events: list[tuple[Link, Event]]) -> None:
        link.handled += 1
        if link.notify and link.has_quota:
            link.notify = False
            events.append((link, Handled()))
        try:
            if verb is Verb.OPEN:
                link.engine_id = engine.open(link.kind, link.pools)
                self._links[link.engine_id] = link
                events.append((link, Opened()))
            elif link.engine_id is not None:
                self._command(engine, link, link.engine_id, verb, data)
        except StreamingError as error:
            self._drop(engine, link, error, events)
        except Exception:
            _log.exception("%s failed", verb.name)
            self._drop(engine, link, DeviceError("the device failed: connect again"), events)

    def _command(self, engine: Engine, link: Link, session: int, verb: Verb, data: bytes) -> None:
        now_s = self._clock()
        match verb:
            case Verb.FEED:
                engine.feed(session, link.read(data), now_s)
            case Verb.FLUSH:
                rest = link.read_rest()
                if rest is not None:
                    engine.feed(session, rest, now_s)
                engine.flush(session, now_s)
            case Verb.CLEAR:
                link.clear()
                engine.clear(session)
            case Verb.PAUSE:
                engine.pause(session)
            case Verb.RESUME:
                engine.resume(session, now_s)
            case Verb.CLOSE:
                link.engine_id = None
                del self._links[session]
                engine.close(session)

    def _translate(self, engine: Engine, result: Result, events: list[tuple[Link, Event]]) -> None:
        link = self._links.get(result.session)
        if link is None:
            return
        if isinstance(result, Failed):
            self._forget(link)
            events.append((link, result))
            return
        try:
            data = link.written(result.data) if isinstance(result, Output) else link.written_rest()
        except StreamingError:
            _log.exception("the model made output that cannot be sent")
            self._drop(engine, link, DeviceError("the model made output that cannot be sent: connect again"), events)
            return
        if isinstance(result, Output):
            link.behind_ms = result.behind_ms
        if data:
            events.append((link, Payload(data, result.epoch, link.behind_ms)))
        if isinstance(result, FlushFinished):
            events.append((link, result))

    def _drop(self, engine: Engine, link: Link, error: StreamingError, events: list[tuple[Link, Event]]) -> None:
        """Ends the engine's session of a link and tells it why."""
        session = self._forget(link)
        if session is not None:
            engine.close(session)
        events.append((link, Failed(session or 0, error)))

    def _fail_all(self, engine: Engine, events: list[tuple[Link, Event]]) -> None:
        for link in list(self._links.values()):
            self._drop(engine, link, DeviceError("the device failed: connect again"), events)

    def _forget(self, link: Link) -> int | None:
        session, link.engine_id = link.engine_id, None
        if session is not None:
            self._links.pop(session, None)
        return session

    def _post(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            _log.debug("the event loop is closed: results are dropped")


def _deliver_all(events: list[tuple[Link, Event]]) -> None:
    for link, event in events:
        link.deliver(event)
