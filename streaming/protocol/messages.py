"""Every message of `neucodec.v1` as a frozen dataclass, with JSON encoding and decoding. Standard library only.

Text messages are JSON objects with a `type`; binary messages carry only payload (audio or tokens), have no class and
pass through unchanged. Sessions exchange these objects; only the edges (WebSocket, MQTT) handle JSON. A client message
of an unknown type is an error that lists the known ones. Unknown fields are ignored in both directions, and unknown
types from a server too, so that the protocol can grow (docs/protocol.md).
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, get_args, overload

from neucodec_streaming.config import (
    CODEBOOK_SIZE,
    FRAME_MS,
    INPUT_HOP,
    INPUT_RATE,
    MIN_VOICE_TOKENS,
    OUTPUT_HOP,
    OUTPUT_RATE,
    TOKENS_PER_SECOND,
)
from neucodec_streaming.errors import AudioError, InputError, ProtocolError, TokenError
from neucodec_streaming.formats import PCM_FORMATS

SUBPROTOCOL = "neucodec.v1"
MAX_MARK_ID_LENGTH = 256
"""Limit of a mark's id, in characters."""
BUNDLED = "nano"
MAX_VOICE_TOKENS = 750
"""Fifteen seconds; computing a longer voice would delay other sessions."""
UNIT_BYTES = {form.name: form.sample_bytes for form in PCM_FORMATS.values()} | {"u16le": 2}
"""Bytes of one sample or token on the wire, by format."""


@dataclass(frozen=True)
class StreamFormat:
    """Payload of one direction: kind "audio" or "tokens", format, and rate in units a second.

    A frame of 20 ms is a whole number of units, so `rate` is a multiple of 50.
    """

    kind: str
    format: str
    rate: int

    @cached_property
    def unit_bytes(self) -> int:
        """Bytes of one sample or token."""
        return UNIT_BYTES[self.format]

    @cached_property
    def hop(self) -> int:
        """Samples or tokens in a frame of 20 ms."""
        return self.rate * FRAME_MS // 1000

    @property
    def unit(self) -> str:
        """The name of a unit, for error messages."""
        return "token" if self.kind == "tokens" else "sample"

    def count(self, payload: bytes) -> int:
        """Number of samples or tokens in `payload`. Raises AudioError or TokenError for a partial one."""
        units, rest = divmod(len(payload), self.unit_bytes)
        if rest:
            error = TokenError if self.kind == "tokens" else AudioError
            raise error(
                f"binary message of {len(payload)} bytes is not a whole number of {self.format} {self.unit}s"
                f" ({self.unit_bytes} bytes each): send whole {self.unit}s"
            )
        return units


TOKENS = StreamFormat("tokens", "u16le", TOKENS_PER_SECOND)
INPUT_AUDIO = StreamFormat("audio", "s16le", INPUT_RATE)
OUTPUT_AUDIO = StreamFormat("audio", "s16le", OUTPUT_RATE)
assert (TOKENS.hop, INPUT_AUDIO.hop, OUTPUT_AUDIO.hop) == (1, INPUT_HOP, OUTPUT_HOP)


@dataclass(frozen=True)
class Resume:
    """How to resume a lost session: its token, and the seconds that its slot is kept (0: not at all)."""

    token: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Flush:
    """Client: ends the utterance; the server sends its rest, then `flushed`, and resets the stream."""

    type: ClassVar[str] = "flush"


@dataclass(frozen=True)
class Clear:
    """Client: barge-in; the server drops pending input and unsent output, sends `cleared`, and resets the stream."""

    type: ClassVar[str] = "clear"


@dataclass(frozen=True)
class Mark:
    """Client: requests `mark` after the output of the last whole frame before it. `id`: a string or an integer.

    Raises ProtocolError for another type of id, or one that is too long.
    """

    id: str | int
    type: ClassVar[str] = "mark"

    def __post_init__(self) -> None:
        whole = isinstance(self.id, int) and not isinstance(self.id, bool) and abs(self.id) < 1 << 53
        if not whole and not (isinstance(self.id, str) and len(self.id) <= MAX_MARK_ID_LENGTH):
            raise ProtocolError(
                f"mark has id {_shown(self.id)}: use a string of at most {MAX_MARK_ID_LENGTH} characters, or an integer"
                " below 2^53"
            )


@dataclass(frozen=True)
class Prime:
    """Client: starts the stream, and each one after `flush` and `clear`, from a voice: the name of a voice of the
    server, or tokens (none: no voice). Within an utterance it takes effect at its end. Answered by `primed` at once.

    Raises ProtocolError unless exactly one is given, and InputError or TokenError for invalid tokens.
    """

    voice: str | None = None
    tokens: tuple[int, ...] | None = None
    type: ClassVar[str] = "prime"

    def __post_init__(self) -> None:
        if (self.voice is None) == (self.tokens is None):
            raise ProtocolError("prime needs either a voice or tokens: send the name of a voice, or a list of tokens")
        if self.voice is not None and not isinstance(self.voice, str):
            raise ProtocolError(f"prime has voice {_shown(self.voice)}: expected a name")
        if self.tokens is None:
            return
        if not isinstance(self.tokens, tuple):
            raise ProtocolError(f"prime has tokens {_shown(self.tokens)}: expected a list of integers")
        if self.tokens and not MIN_VOICE_TOKENS <= len(self.tokens) <= MAX_VOICE_TOKENS:
            raise InputError(
                f"the voice has {len(self.tokens)} tokens: use {MIN_VOICE_TOKENS} to {MAX_VOICE_TOKENS}, ideally 250 of"
                " clean speech"
            )
        for token in self.tokens:
            if type(token) is not int or not 0 <= token < CODEBOOK_SIZE:
                raise TokenError(f"the voice has token {_shown(token)}: tokens range from 0 to {CODEBOOK_SIZE - 1}")

    def check_for(self, output: StreamFormat) -> None:
        """Raises InputError if a session with that output has no decoder, which alone can be primed."""
        if output.kind == "tokens":
            raise InputError("an encode session has no voice: prime a decode or roundtrip session")


@dataclass(frozen=True)
class End:
    """Client: flush, `done`, close 1000."""

    type: ClassVar[str] = "end"


@dataclass(frozen=True)
class Ready:
    """Server: the session is open; always the first message of a connection.

    `capacity`: sessions of this kind and profile that fit on the empty server; 0: unknown. In a resumed session
    (`resumed` "exact" or "approximate"): the input position to replay from, the output position where output continues,
    and the number of the client's text messages that the session has received (docs/protocol.md).
    """

    session: str
    model: str
    profile: str
    chunk_frames: int
    lookahead_frames: int
    latency_ms: float
    input: StreamFormat
    output: StreamFormat
    resume: Resume = Resume()
    resumed: str = "new"
    input_position: int = 0
    output_position: int = 0
    requests: int = 0
    capacity: int = 0
    frame_ms: int = FRAME_MS
    type: ClassVar[str] = "ready"

    @property
    def has_own_tokens(self) -> bool:
        """Whether the model is the bundled one, which decodes tokens of NeuTTS or neuphonic/neucodec to noise."""
        return self.model.partition("-")[0] == BUNDLED


@dataclass(frozen=True)
class Flushed:
    """Server: all output of the utterance has been sent."""

    type: ClassVar[str] = "flushed"


@dataclass(frozen=True)
class Cleared:
    """Server: nothing of the old utterance follows. Positions: units accepted and sent since the start."""

    input: int
    output: int
    type: ClassVar[str] = "cleared"


@dataclass(frozen=True)
class Marked:
    """Server: the output of the last whole frame before the mark was sent, or dropped (`cleared`)."""

    id: str | int
    cleared: bool = False
    type: ClassVar[str] = "mark"


@dataclass(frozen=True)
class Primed:
    """Server: the number of the voice's tokens."""

    tokens: int
    type: ClassVar[str] = "primed"


@dataclass(frozen=True)
class Done:
    """Server: the session's totals; then close 1000.

    `dropped` counts input units without output: remainders under one frame, and input dropped by `clear`. So input =
    output in frames, times the input's hop, + dropped.
    """

    input: int
    output: int
    dropped: int
    type: ClassVar[str] = "done"


@dataclass(frozen=True)
class Stats:
    """Server: once a second on request. `buffered_ms`: input waiting to be computed; `behind_ms`: lateness of the
    session.
    """

    buffered_ms: float
    behind_ms: float
    input: int = 0
    output: int = 0
    type: ClassVar[str] = "stats"


@dataclass(frozen=True)
class Failure:
    """Server: the error; the connection then closes with the code's WebSocket status."""

    code: str
    message: str
    type: ClassVar[str] = "error"


ClientMessage = Flush | Clear | Mark | Prime | End
ServerMessage = Ready | Flushed | Cleared | Marked | Primed | Done | Stats | Failure
Message = ClientMessage | ServerMessage
AnswerMessage = Flushed | Cleared | Marked | Primed | Done
"""The server's answers to a client's requests."""
REQUEST_OF: dict[type[AnswerMessage], type[ClientMessage]] = {
    Flushed: Flush,
    Cleared: Clear,
    Marked: Mark,
    Primed: Prime,
    Done: End,
}
"""The request that each answer belongs to."""

_BARE_MESSAGES: dict[str, Flush | Clear | End] = {bare.type: bare for bare in (Flush(), Clear(), End())}
CLIENT_MESSAGES = (*_BARE_MESSAGES, Mark.type, Prime.type)
SERVER_MESSAGES: dict[str, type[ServerMessage]] = {kind.type: kind for kind in get_args(ServerMessage)}


@overload
def encode_message(message: Message) -> str: ...
@overload
def encode_message(message: bytes | Message) -> bytes | str: ...
def encode_message(message: bytes | Message) -> bytes | str:
    """The JSON text of `message`, its `type` first; payload unchanged."""
    return message if isinstance(message, bytes) else json.dumps(message_to_json(message), separators=(",", ":"))


def parse_client_message(data: bytes | str) -> bytes | ClientMessage:
    """Decodes a client's message; payload unchanged. Raises ProtocolError naming the fault."""
    return data if isinstance(data, bytes) else client_message_from_json(_json_object(data))


def parse_server_message(data: bytes | str) -> bytes | ServerMessage | None:
    """Decodes a server's message; payload unchanged; None for an unknown type. Raises ProtocolError if malformed."""
    return data if isinstance(data, bytes) else server_message_from_json(_json_object(data))


def message_to_json(message: Message) -> dict[str, Any]:
    """The JSON object of `message`, its `type` first."""
    body: dict[str, Any] = {"type": message.type}
    for field in fields(message):
        value = getattr(message, field.name)
        if value is not None:
            body[field.name] = asdict(value) if isinstance(value, (StreamFormat, Resume)) else value
    return body


def client_message_from_json(body: dict[str, Any]) -> ClientMessage:
    """Decodes a client's JSON object. Raises ProtocolError naming the fault."""
    kind = body.get("type")
    if not isinstance(kind, str) or kind not in CLIENT_MESSAGES:
        raise ProtocolError(f"message type {_shown(kind)} is unknown: send one of {', '.join(CLIENT_MESSAGES)}")
    if kind == Mark.type:
        return Mark(body.get("id"))  # type: ignore[arg-type]
    if kind == Prime.type:
        tokens = body.get("tokens")
        return Prime(body.get("voice"), tuple(tokens) if isinstance(tokens, list) else tokens)
    return _BARE_MESSAGES[kind]


def server_message_from_json(body: dict[str, Any]) -> ServerMessage | None:
    """Decodes a server's JSON object; None for an unknown type. Raises ProtocolError if malformed."""
    kind = body.get("type")
    if not isinstance(kind, str):
        raise ProtocolError(f"message type {_shown(kind)} is not a string: is this a {SUBPROTOCOL} server?")
    if kind not in SERVER_MESSAGES:
        return None
    values = {}
    for field in fields(SERVER_MESSAGES[kind]):
        if field.name in body:
            values[field.name] = _field(kind, field.name, field.type, body[field.name])
    try:
        return SERVER_MESSAGES[kind](**values)
    except TypeError as error:
        raise ProtocolError(f"{kind} lacks a field: {error}") from None


def _json_object(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"text message {_shown(text)} is not JSON ({error}): send an object with a type") from None
    if not isinstance(body, dict):
        raise ProtocolError(f"text message {_shown(text)} is not a JSON object: send an object with a type")
    return body


def _field(kind: str, name: str, expected: Any, value: Any) -> Any:
    reader = _READERS[expected]
    try:
        return reader(value)
    except (TypeError, ValueError, KeyError):
        raise ProtocolError(f"{kind} has invalid {name} {_shown(value)}: is this a {SUBPROTOCOL} server?") from None


def _exactly(*types: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) not in types:
            raise TypeError
        return value

    return read


def _read_format(value: Any) -> StreamFormat:
    text, number = _READERS[str], _READERS[int]
    return StreamFormat(text(value["kind"]), text(value["format"]), number(value["rate"]))


def _read_resume(value: Any) -> Resume:
    return Resume(_READERS[str](value["token"]), _READERS[float](value["seconds"]))


_READERS: dict[Any, Callable[[Any], Any]] = {
    str: _exactly(str),
    int: _exactly(int),
    float: _exactly(int, float),
    bool: _exactly(bool),
    str | int: _exactly(str, int),
    StreamFormat: _read_format,
    Resume: _read_resume,
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
