"""A client's replay log: its payload and requests since the start of the oldest unanswered utterance, and its voice.

Payload beyond a limit is dropped from the front in whole frames; the log then holds only the tail of the utterance
(`whole` is false). Sans-I/O; owned by ClientSession. Its JavaScript twin is server/web/replay.js.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from neucodec_streaming.protocol.messages import ClientMessage, Mark, Prime, StreamFormat


@dataclass(frozen=True)
class Positions:
    """An input position and its output position, in units since the session began."""

    input: int
    output: int


@dataclass(frozen=True)
class Asked:
    """An unanswered request, the `number`th of the session, sent at input position `at`.

    `is_cut`: part of the input before it was not sent. `is_again`: it was answered, by a server that has lost the
    session.
    """

    message: ClientMessage
    number: int
    at: int
    is_cut: bool = False
    is_again: bool = False


class ReplayLog:
    """The log of a session with those formats; keeps at most `max_units` of payload."""

    def __init__(self, input: StreamFormat, output: StreamFormat, max_units: int) -> None:
        self.whole = True
        self.start = Positions(0, 0)
        self.asked: deque[Asked] = deque()
        self._input, self.output = input, output
        self._max_units = max_units
        self._payload: deque[tuple[int, bytes]] = deque()  # with the position of its first unit
        self._end = 0
        self._requests = 0
        self._voice: Asked | None = None  # in effect when the oldest utterance started
        self._voices: deque[Asked] = deque()  # answered ones that came later

    def add_payload(self, payload: bytes) -> None:
        self._payload.append((self._end, payload))
        self._end += self._input.count(payload)
        if self._end - self.start.input > self._max_units:
            self._shorten()

    def add_request(self, message: ClientMessage) -> None:
        self.asked.append(Asked(message, self._requests, self._end))
        self._requests += 1

    def find(self, kind: type[ClientMessage], id: str | int | None = None) -> Asked | None:
        """The oldest unanswered request of a type; of a mark, the one with that id."""
        for asked in self.asked:
            if isinstance(asked.message, kind) and (not isinstance(asked.message, Mark) or asked.message.id == id):
                return asked
        return None

    def settle(self, asked: Asked, output: int) -> None:
        """Marks a request as answered. All but a mark end an utterance; the next one's output starts at `output`."""
        if isinstance(asked.message, (Mark, Prime)):
            self.asked.remove(asked)
            if isinstance(asked.message, Prime):
                self._voices.append(replace(asked, is_again=True))
            return
        while self.asked.popleft() is not asked:
            pass
        self.start, self.whole = Positions(asked.at, output), True
        self._begin_in_voice()
        self._drop_before(asked.at)

    def drop(self, position: int, units: int) -> None:
        """Forgets `units` of payload from a position on; later payload moves down to it."""
        if not units:
            return
        end = position + units
        kept: deque[tuple[int, bytes]] = deque()
        for first, payload in self._payload:
            if before := payload[: max(0, position - first) * self._input.unit_bytes]:
                kept.append((first, before))
            if after := payload[max(0, end - first) * self._input.unit_bytes :]:
                kept.append((max(first, end) - units, after))
        self._payload = kept
        self.asked, self._voices = (
            deque(
                replace(asked, at=max(position, asked.at - units), is_cut=True) if asked.at > position else asked
                for asked in each
            )
            for each in (self.asked, self._voices)
        )
        if self.start.input > position:  # the log had been shortened
            frames = (self.start.input - position) // self._input.hop
            self.start = Positions(position, self.start.output - frames * self.output.hop)
        self._end -= units

    def move(self, units: int) -> None:
        """The server counts input differently: adds `units` to every input position."""
        self.start = replace(self.start, input=self.start.input + units)
        self.asked, self._voices = (
            deque(replace(asked, at=asked.at + units) for asked in each) for each in (self.asked, self._voices)
        )
        self._payload = deque((first + units, payload) for first, payload in self._payload)
        self._end += units

    def renumber(self) -> None:
        """A new session counts requests from 0: first the needed voices, then the unanswered requests."""
        voices, self._voices = self._voices, deque()
        again = [replace(asked, at=max(asked.at, self.start.input + (not self.whole))) for asked in voices]
        if self._voice is not None:
            again.insert(0, replace(self._voice, at=self.start.input))
        self._voice = None
        merged = sorted([*again, *self.asked], key=lambda asked: asked.at)  # stable: answered ones came before
        self.asked = deque(replace(asked, number=number) for number, asked in enumerate(merged))
        self._requests = len(self.asked)

    def restart(self) -> None:
        """A new session counts positions from 0: the log is its first input."""
        self.move(-self.start.input)
        self.start, self.whole = Positions(0, 0), True

    def after(self, position: int, requests: int) -> Iterator[bytes | ClientMessage]:
        """Payload and requests after an input position and a number of requests, in order."""
        waiting = deque(asked for asked in self.asked if asked.number >= requests)
        for first, payload in self._payload:
            while waiting and waiting[0].at <= first:
                yield waiting.popleft().message
            rest = payload[max(0, position - first) * self._input.unit_bytes :]
            if rest:
                yield rest
        for asked in waiting:
            yield asked.message

    def _begin_in_voice(self) -> None:
        """The voice in effect is the last one set before the oldest utterance started."""
        while self._voices and self._voices[0].at <= self.start.input:
            self._voice = self._voices.popleft()

    def _shorten(self) -> None:
        """Drops whole frames from the front of the oldest utterance."""
        ends = [asked.at for asked in self.asked if not isinstance(asked.message, (Mark, Prime))]
        excess = self._end - self.start.input - self._max_units
        most = (ends[0] if ends else self._end) - self.start.input
        frames = min(-(-excess // self._input.hop), most // self._input.hop)
        if frames:
            if self.whole:
                self._begin_in_voice()
            input, output = self.start.input, self.start.output
            self.start = Positions(input + frames * self._input.hop, output + frames * self.output.hop)
            self.whole = False
            self._drop_before(self.start.input)

    def _drop_before(self, position: int) -> None:
        while self._payload:
            first, payload = self._payload[0]
            units = self._input.count(payload)
            if first + units > position:
                skipped = max(0, position - first)
                self._payload[0] = first + skipped, payload[skipped * self._input.unit_bytes :]
                return
            self._payload.popleft()
