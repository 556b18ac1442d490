"""`neucodec.v1` over MQTT: topics, requests, answers and the retained status of a session. Standard library only.

    neucodec/v1/SESSION/audio | tokens | speech     frames (mqtt_frames), by whoever has them
    neucodec/v1/SESSION/control                     requests: `open`, then the client messages of the WebSocket
    neucodec/v1/SESSION/status                      retained: whose the session is, how far it is, what was lost

A request is JSON with the `position` of the input at which it applies; its answer goes to its response topic with its
correlation data, and is the server message of the WebSocket with the `position` of the output at which it belongs.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from neucodec_streaming.config import FRAME_MS
from neucodec_streaming.errors import ConfigError, ProtocolError
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
"""A longer gap is not filled: the utterance ends there, and another begins behind it."""
_SESSION = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_STREAM = re.compile(rf"{ROOT}/({_SESSION.pattern})/({AUDIO}|{TOKENS}|{SPEECH})")
_HERMES = re.compile(rf"hermes/audioServer/({_SESSION.pattern})/({HERMES_INPUT}|{HERMES_OUTPUT})")


def topic(session: str, name: str) -> str:
    """The session's topic of that name. Raises ConfigError for what cannot be a session's name."""
    if not _SESSION.fullmatch(session):
        raise ConfigError(f"session {session[:80]!r} cannot be: give 1 to 64 letters, digits, dots, dashes")
    return f"{ROOT}/{session}/{name}"


def hermes_topic(site: str, name: str) -> str:
    """The topic of a Rhasspy satellite. Raises ConfigError for what cannot be a site's name."""
    if not _SESSION.fullmatch(site):
        raise ConfigError(f"site {site[:80]!r} cannot be: give 1 to 64 letters, digits, dots, dashes")
    return f"hermes/audioServer/{site}/{name}"


def is_hermes(stream_topic: str) -> bool:
    """Whether WAV goes over that topic, and no frames of ours."""
    return _HERMES.fullmatch(stream_topic) is not None


def session_of(any_topic: str) -> str:
    """The session that a topic of ours belongs to."""
    return any_topic.split("/")[2]


@dataclass(frozen=True)
class OpenRequest:
    """A session as its `open` asks for it: path and query as for a WebSocket, and what MQTT has beside that.

    `qos` of the output, `redundancy` (tokens that each frame repeats), `packet_frames` (the least that a frame of
    tokens holds; 0: as they come), `input` and `output`: other topics than the session's own: a stream of another
    session, the audioFrame of a Rhasspy satellite or its playBytes. Raises ConfigError.
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
                raise ConfigError(f"{name} is {value!r:.80}: give a whole number from 0 to {most}")
        for name in ("target", "input", "output"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{name} is {value!r:.80}: give a text")
        self._check_topics()

    def _check_topics(self) -> None:
        request = self.session
        hermes, stream = _HERMES.fullmatch(self.input or ""), _STREAM.fullmatch(self.input or "")
        fits = (hermes and hermes[2] == HERMES_INPUT and request.input.kind == "audio") or (
            stream and (stream[2] == TOKENS) == (request.input.kind == "tokens")
        )
        if self.input is not None and not fits:
            raise ConfigError(f"input {self.input[:80]!r} is no topic that a session with {request.input} can take")
        for side, value, stream_format in (
            ("input", self.input, request.input),
            ("output", self.output, request.output),
        ):
            if is_hermes(value or "") and stream_format.format != "s16le":
                raise ConfigError(f"{side}_format is {stream_format.format}: satellites speak s16le")
        hermes = _HERMES.fullmatch(self.output or "")
        if self.output is not None and not (hermes and hermes[2] == HERMES_OUTPUT and request.output.kind == "audio"):
            raise ConfigError(f"output {self.output[:80]!r} is not the playBytes of a site, for audio")

    @property
    def session(self) -> SessionRequest:
        """The target, parsed. Raises ConfigError."""
        request = parse_target(self.target)
        if request is None:
            raise ConfigError(f"target {self.target!r:.80} is unknown: give /v1/encode, /v1/decode or /v1/roundtrip")
        return request

    def input_topic(self, session: str) -> str:
        """Where the input comes from."""
        return self.input or topic(session, AUDIO if self.session.input.kind == "audio" else TOKENS)

    def output_topic(self, session: str) -> str:
        """Where the output goes."""
        return self.output or topic(session, TOKENS if self.session.output.kind == "tokens" else SPEECH)


@dataclass(frozen=True)
class Reply:
    """Where the answer to a request goes: its response topic and correlation data (hexadecimal in JSON)."""

    topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True)
class Gone:
    """The last will of a client: its session ends unless it is heard of again soon."""


@dataclass(frozen=True)
class Request:
    """One message on a control topic: `open`, or a message of the client at a position of its input (None: at once).

    An `open` has the position of the first input that will come.
    """

    message: OpenRequest | Gone | ClientMessage
    position: int | None = None


GONE_PAYLOAD = json.dumps({"type": GONE}).encode()


def encode_open(request: OpenRequest, position: int = 0) -> bytes:
    """The payload of an `open`."""
    return json.dumps({"type": OPEN, "position": position, **asdict(request)}, separators=(",", ":")).encode()


def encode_request(message: ClientMessage, position: int) -> bytes:
    """The payload of a request at a position of the input."""
    return _with_position(message, position)


def parse_request(payload: bytes) -> Request:
    """What a control topic carries. Raises ProtocolError, ConfigError."""
    body = _object(payload)
    if body.get("type") == OPEN:
        return Request(_open_request(body), _position(body) or 0)
    if body.get("type") == GONE:
        return Request(Gone())
    return Request(client_message_from_json(body), _position(body))


def encode_answer(message: ServerMessage, position: int) -> bytes:
    """The payload of an answer that belongs behind the output before `position`."""
    return _with_position(message, position)


def parse_answer(payload: bytes) -> tuple[ServerMessage | None, int | None]:
    """Message and position; None for a message of a type that this version does not know. Raises ProtocolError."""
    body = _object(payload)
    return server_message_from_json(body), _position(body)


class SessionStatus:
    """What a status says of its session: `open`, `lost` (by its bridge, whose last will this is) or `closed`."""

    OPEN, LOST, CLOSED = "open", "lost", "closed"


@dataclass(frozen=True)
class Status:
    """The retained payload of a status topic: enough for another bridge to take the session over.

    `bridge` owns it; positions are those of the input taken and the output sent.
    """

    state: str
    bridge: str
    request: OpenRequest
    reply: Reply = Reply()
    input: int = 0
    output: int = 0
    loss: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The payload."""
        correlation = self.reply.correlation.hex() if self.reply.correlation is not None else None
        return json.dumps(
            asdict(self) | {"reply": {"topic": self.reply.topic, "correlation": correlation}}, separators=(",", ":")
        ).encode()


def parse_status(payload: bytes) -> Status:
    """What a status topic carries. Raises ProtocolError, ConfigError."""
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
        raise ProtocolError(f"status {payload[:80]!r} cannot be read: is it of another version?") from None


def content_type(stream: StreamFormat) -> str:
    """The MQTT content type of a stream's frames; its rate is a user property of its own."""
    return "application/x-neucodec-tokens" if stream.kind == "tokens" else f"audio/x-{stream.format}"


def _open_request(body: dict[str, Any]) -> OpenRequest:
    known = {name: body[name] for name in OpenRequest.__dataclass_fields__ if name in body}
    if "target" not in known:
        raise ConfigError('open has no target: give one like "/v1/encode?profile=low"')
    return OpenRequest(**known)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ProtocolError(f"payload {payload[:80]!r} is no JSON object: send an object with a type")
    return body


def _position(body: dict[str, Any]) -> int | None:
    position = body.get("position")
    if position is not None and (type(position) is not int or position < 0):
        raise ProtocolError(f"position is {position!r:.80}: give a whole number of samples or tokens")
    return position


def _with_position(message: ClientMessage | ServerMessage, position: int) -> bytes:
    return json.dumps(message_to_json(message) | {"position": position}, separators=(",", ":")).encode()
