"""`neucodec.v1` over MQTT: topics, requests, answers and the retained status of a session. Standard library only.

    neucodec/v1/SESSION/audio | tokens | speech     frames (packets.py)
    neucodec/v1/SESSION/control                     requests: `open`, then the client messages of the WebSocket
    neucodec/v1/SESSION/status                      retained: the session's owner, positions and losses

A request is JSON with the `position` of the input at which it applies. Its answer goes to its response topic with its
correlation data; it is the WebSocket's server message plus the `position` of the output to which it belongs.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from neucodec_streaming.config import FRAME_MS
from neucodec_streaming.errors import ConfigError, ProtocolError
from neucodec_streaming.formats import PCM_FORMATS
from neucodec_streaming.protocol.messages import (
    ClientMessage,
    ServerMessage,
    StreamFormat,
    client_message_from_json,
    message_to_json,
    server_message_from_json,
)
from neucodec_streaming.protocol.mqtt.packets import MAX_REPEATED
from neucodec_streaming.protocol.query import SessionRequest, parse_target

ROOT = "neucodec/v1"
AUDIO, TOKENS, SPEECH, CONTROL, STATUS = "audio", "tokens", "speech", "control", "status"
HERMES_INPUT = "audioFrame"
HERMES_OUTPUT = "playBytes"
OPEN = "open"
GONE = "gone"
MAX_CONCEALED_FRAMES = 1000 // FRAME_MS
"""A longer gap is not filled: the utterance ends before it and another starts after it."""
_SESSION = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_STREAM = re.compile(rf"{ROOT}/({_SESSION.pattern})/({AUDIO}|{TOKENS}|{SPEECH})")
_HERMES = re.compile(rf"hermes/audioServer/({_SESSION.pattern})/({HERMES_INPUT}|{HERMES_OUTPUT})")


def topic(session: str, name: str) -> str:
    """The session's topic of that name. Raises ConfigError for an invalid session name."""
    if not _SESSION.fullmatch(session):
        raise ConfigError(
            f"session name {session[:80]!r} is invalid: use 1 to 64 of A-Z, a-z, 0-9, dot, dash and underscore"
        )
    return f"{ROOT}/{session}/{name}"


def hermes_topic(site: str, name: str) -> str:
    """The topic of a Rhasspy satellite. Raises ConfigError for an invalid site name."""
    if not _SESSION.fullmatch(site):
        raise ConfigError(f"site name {site[:80]!r} is invalid: use 1 to 64 of A-Z, a-z, 0-9, dot, dash and underscore")
    return f"hermes/audioServer/{site}/{name}"


def is_hermes(stream_topic: str) -> bool:
    """Whether the topic carries WAV messages instead of frames."""
    return _HERMES.fullmatch(stream_topic) is not None


def session_of(any_topic: str) -> str:
    """The session of one of our topics."""
    return any_topic.split("/")[2]


@dataclass(frozen=True)
class OpenRequest:
    """The `open` request of a session: path and query as for a WebSocket, plus options of MQTT.

    `qos` of the output. `redundancy`: tokens that each frame repeats. `packet_frames`: minimum number of tokens in a
    frame; 0: one chunk. `input` and `output`: other topics than the session's own, such as another session's stream, or
    the audioFrame or playBytes of a Rhasspy satellite. Raises ConfigError.
    """

    target: str
    qos: int = 1
    redundancy: int = 0
    packet_frames: int = 0
    input: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        for name, most in (("qos", 1), ("redundancy", MAX_REPEATED), ("packet_frames", MAX_CONCEALED_FRAMES)):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= most:
                raise ConfigError(f"{name} is {value!r:.80}: expected a whole number from 0 to {most}")
        for name in ("target", "input", "output"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{name} is {value!r:.80}: expected a string")
        self._check_topics()

    def _check_topics(self) -> None:
        request = self.session
        hermes, stream = _HERMES.fullmatch(self.input or ""), _STREAM.fullmatch(self.input or "")
        fits = (hermes and hermes[2] == HERMES_INPUT and request.input.kind == "audio") or (
            stream and (stream[2] == TOKENS) == (request.input.kind == "tokens")
        )
        if self.input is not None and not fits:
            raise ConfigError(
                f"input topic {self.input[:80]!r} is invalid: use a stream or audioFrame topic that carries"
                f" {request.input}"
            )
        for side, value, stream_format in (
            ("input", self.input, request.input),
            ("output", self.output, request.output),
        ):
            if is_hermes(value or "") and stream_format.format != "s16le":
                raise ConfigError(f"{side}_format is {stream_format.format}: satellites use s16le")
        hermes = _HERMES.fullmatch(self.output or "")
        if self.output is not None and not (hermes and hermes[2] == HERMES_OUTPUT and request.output.kind == "audio"):
            raise ConfigError(
                f"output topic {self.output[:80]!r} is invalid: use the playBytes topic of a site, for audio output"
            )

    @property
    def session(self) -> SessionRequest:
        """The parsed target. Raises ConfigError."""
        request = parse_target(self.target)
        if request is None:
            raise ConfigError(f"target {self.target!r:.80} is unknown: choose /v1/encode, /v1/decode or /v1/roundtrip")
        return request

    def input_topic(self, session: str) -> str:
        return self.input or topic(session, AUDIO if self.session.input.kind == "audio" else TOKENS)

    def output_topic(self, session: str) -> str:
        return self.output or topic(session, TOKENS if self.session.output.kind == "tokens" else SPEECH)


@dataclass(frozen=True)
class Reply:
    """Where to send the answer to a request: its response topic and correlation data (hexadecimal in JSON)."""

    topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True)
class Gone:
    """A client's last will: its session ends unless the client sends again soon."""


@dataclass(frozen=True)
class Request:
    """A message on a control topic: `open`, or a client message at a position of the input (None: at once).

    The position of an `open` is that of the first input.
    """

    message: OpenRequest | Gone | ClientMessage
    position: int | None = None


GONE_PAYLOAD = json.dumps({"type": GONE}).encode()


def encode_open(request: OpenRequest, position: int = 0) -> bytes:
    """Encodes an `open`."""
    return json.dumps({"type": OPEN, "position": position, **asdict(request)}, separators=(",", ":")).encode()


def encode_request(message: ClientMessage, position: int) -> bytes:
    """Encodes a request at a position of the input."""
    return _with_position(message, position)


def parse_request(payload: bytes) -> Request:
    """Decodes a message on a control topic. Raises ProtocolError, ConfigError."""
    body = _object(payload)
    if body.get("type") == OPEN:
        return Request(_open_request(body), _position(body) or 0)
    if body.get("type") == GONE:
        return Request(Gone())
    return Request(client_message_from_json(body), _position(body))


def encode_answer(message: ServerMessage, position: int) -> bytes:
    """Encodes an answer that follows the output before `position`."""
    return _with_position(message, position)


def parse_answer(payload: bytes) -> tuple[ServerMessage | None, int | None]:
    """Decodes an answer into message and position; None for an unknown type. Raises ProtocolError."""
    body = _object(payload)
    return server_message_from_json(body), _position(body)


class SessionStatus:
    """The state in a session's status: `open`, `lost` (the last will of its bridge) or `closed`."""

    OPEN, LOST, CLOSED = "open", "lost", "closed"


@dataclass(frozen=True)
class Status:
    """The retained status of a session: all that another bridge needs to take it over.

    `bridge` owns the session; positions are those of the received input and the sent output.
    """

    state: str
    bridge: str
    request: OpenRequest
    reply: Reply = Reply()
    input: int = 0
    output: int = 0
    loss: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        correlation = self.reply.correlation.hex() if self.reply.correlation is not None else None
        return json.dumps(
            asdict(self) | {"reply": {"topic": self.reply.topic, "correlation": correlation}}, separators=(",", ":")
        ).encode()


def parse_status(payload: bytes) -> Status:
    """Decodes a status. Raises ProtocolError, ConfigError."""
    body = _object(payload)
    try:
        reply, loss = body["reply"], body["loss"]
        correlation = None if reply["correlation"] is None else bytes.fromhex(reply["correlation"])
        return Status(
            str(body["state"]),
            str(body["bridge"]),
            _open_request(body["request"]),
            Reply(reply["topic"], correlation),
            int(body["input"]),
            int(body["output"]),
            {str(name): int(count) for name, count in loss.items()},
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise ProtocolError(f"status {payload[:80]!r} is invalid: was it sent by another version?") from None


def content_type(stream: StreamFormat) -> str:
    """The MQTT content type of a stream's frames; the rate is a separate user property."""
    return "application/x-neucodec-tokens" if stream.kind == "tokens" else f"audio/x-{stream.format}"


def audio_of(content_type: str | None, rate: int | None) -> StreamFormat | None:
    """The audio that a frame's properties describe; None if they describe none."""
    form = (content_type or "").removeprefix("audio/x-")
    return StreamFormat("audio", form, rate) if form in PCM_FORMATS and rate else None


def _open_request(body: dict[str, Any]) -> OpenRequest:
    known = {name: body[name] for name in OpenRequest.__dataclass_fields__ if name in body}
    if "target" not in known:
        raise ConfigError('open has no target: set it, for instance to "/v1/encode?profile=low"')
    return OpenRequest(**known)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ProtocolError(f"payload {payload[:80]!r} is not a JSON object: send an object with a type")
    return body


def _position(body: dict[str, Any]) -> int | None:
    position = body.get("position")
    if position is not None and (type(position) is not int or position < 0):
        raise ProtocolError(f"position is {position!r:.80}: expected a whole number of samples or tokens")
    return position


def _with_position(message: ClientMessage | ServerMessage, position: int) -> bytes:
    return json.dumps(message_to_json(message) | {"position": position}, separators=(",", ":")).encode()
