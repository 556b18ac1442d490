"""The request for a session: path and query of its URL, parsed and built. Standard library only.

Unknown parameters and values are refused with a ConfigError that lists the known ones. The fields from `resume` to
`tail` continue a session whose connection was lost (docs/protocol.md).
"""

from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, urlencode, urlsplit

from neucodec_streaming.config import INPUT_RATE, OUTPUT_RATE, TOKENS_PER_SECOND
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.formats import PCM_FORMATS
from neucodec_streaming.protocol.messages import TOKENS, StreamFormat
from neucodec_streaming.protocol.replay import Positions

PATHS = {"/v1/encode": "encode", "/v1/decode": "decode", "/v1/roundtrip": "roundtrip"}
"""Path to kind of session: audio to tokens, tokens to audio, audio to audio."""
FORMATS = tuple(PCM_FORMATS)
MIN_RATE = 8_000
MAX_RATE = 48_000
QUERIES = (
    "input_rate",
    "input_format",
    "output_rate",
    "output_format",
    "profile",
    "voice",
    "stats",
    "resume",
    "received",
    "answers",
    "utterance",
    "tail",
    "access_token",
)
DEFAULT_FORMAT = "s16le"


@dataclass(frozen=True)
class SessionRequest:
    """A session's request. `profile` None: the server's default. `voice`: a voice of the server to start decoding from.
    `has_model_rate`: the output has the rate of the model, which `ready` tells.

    To resume: the session's token in `resume`, the output units `received`, the `answers` received, and the position
    from which the client can replay: the whole `utterance`, or only its `tail`.
    """

    kind: str
    input: StreamFormat
    output: StreamFormat
    profile: str | None = None
    stats: bool = False
    resume: str | None = field(default=None, repr=False)
    received: int = 0
    answers: int | None = None
    utterance: Positions | None = None
    tail: Positions | None = None
    access_token: str | None = field(default=None, repr=False)
    voice: str | None = None
    has_model_rate: bool = field(default=False, compare=False)

    @property
    def anew(self) -> "SessionRequest":
        """The request for the same session from its beginning."""
        return SessionRequest(self.kind, self.input, self.output, self.profile, self.stats, voice=self.voice)

    def at_rate(self, model_rate: int) -> "SessionRequest":
        """The request with the rate of a model where it names none."""
        if not self.has_model_rate:
            return self
        return replace(self, output=replace(self.output, rate=model_rate), has_model_rate=False)

    @property
    def target(self) -> str:
        """Path and query that `parse_target` decodes to this request."""
        path = next(path for path, kind in PATHS.items() if kind == self.kind)
        query: dict[str, str] = {}
        for side, stream in (("input", self.input), ("output", self.output)):
            if stream.kind == "audio" and stream.format != DEFAULT_FORMAT:
                query[f"{side}_format"] = stream.format
        if self.input.kind == "audio" and self.input.rate != INPUT_RATE:
            query["input_rate"] = str(self.input.rate)
        if self.output.kind == "audio" and not self.has_model_rate:
            query["output_rate"] = str(self.output.rate)
        if self.stats:
            query["stats"] = "1"
        for name in ("profile", "voice", "resume", "answers", "access_token"):
            if getattr(self, name) is not None:
                query[name] = str(getattr(self, name))
        if self.received:
            query["received"] = str(self.received)
        for name in ("utterance", "tail"):
            positions = getattr(self, name)
            if positions is not None:
                query[name] = f"{positions.input},{positions.output}"
        return path + ("?" + urlencode(query) if query else "")


def session_request(
    kind: str,
    *,
    input_format: str = DEFAULT_FORMAT,
    output_format: str = DEFAULT_FORMAT,
    input_rate: int = INPUT_RATE,
    output_rate: int | None = None,
    profile: str | None = None,
    stats: bool = False,
    voice: str | None = None,
) -> SessionRequest:
    """The request for a session of `kind` ("encode", "decode", "roundtrip"); formats and rates apply to its audio.

    `output_rate` None: the model's.
    """
    if kind not in PATHS.values():
        raise ConfigError(f"kind {kind!r} is unknown: choose one of {', '.join(PATHS.values())}")
    query: dict[str, str] = {}
    if kind != "decode":
        query |= {"input_format": input_format, "input_rate": str(input_rate)}
    if kind != "encode":
        query |= {"output_format": output_format}
    if kind != "encode" and output_rate is not None:
        query |= {"output_rate": str(output_rate)}
    given = {"profile": profile, "stats": "1" if stats else None, "voice": voice}
    return _request(kind, query | {name: value for name, value in given.items() if value is not None})


def parse_target(target: str) -> SessionRequest | None:
    """Decodes a URL's path and query; None for a path that is not in PATHS.

    Raises ConfigError naming the parameter, its value and the valid ones.
    """
    try:
        split = urlsplit(target)
    except ValueError as error:
        raise ConfigError(f"the URL is invalid: {error}") from None
    kind = PATHS.get(split.path)
    if kind is None:
        return None
    query: dict[str, str] = {}
    try:
        pairs = parse_qsl(split.query, keep_blank_values=True, max_num_fields=64)
    except ValueError as error:
        raise ConfigError(f"the query is invalid ({error}): send name=value pairs joined by &") from None
    for name, value in pairs:
        if name not in QUERIES:
            raise ConfigError(f"query {name[:40]!r} is unknown: choose from {', '.join(QUERIES)}")
        if name in query:
            raise ConfigError(f"query {name!r} appears twice: send it once")
        query[name] = value
    return _request(kind, query)


def _request(kind: str, query: dict[str, str]) -> SessionRequest:
    source = _audio("input", query, INPUT_RATE) if kind != "decode" else _tokens("input", kind, query)
    sink = _audio("output", query, OUTPUT_RATE) if kind != "encode" else _tokens("output", kind, query)
    voice = query.get("voice")
    if voice is not None and kind == "encode":
        raise ConfigError(f"voice is {voice[:40]!r}, but an encode session has no voice: leave it out")
    received, utterance = _position("received", query.get("received", "0")), _positions("utterance", query)
    if utterance is not None and utterance.output > received:
        raise ConfigError(
            f"query utterance starts at output {utterance.output}, after received={received}: send the current"
            " utterance"
        )
    return SessionRequest(
        kind,
        source,
        sink,
        profile=query.get("profile"),
        stats=_flag("stats", query.get("stats", "0")),
        resume=query.get("resume"),
        received=received,
        answers=_position("answers", query["answers"]) if "answers" in query else None,
        utterance=utterance,
        tail=_positions("tail", query),
        access_token=query.get("access_token"),
        voice=voice,
        has_model_rate=sink.kind == "audio" and "output_rate" not in query,
    )


def _tokens(side: str, kind: str, query: dict[str, str]) -> StreamFormat:
    for name, fixed in ((f"{side}_format", TOKENS.format), (f"{side}_rate", str(TOKENS.rate))):
        if query.get(name, fixed) != fixed:
            raise ConfigError(
                f"{name} is {query[name][:40]!r}, but the {side} of {kind} is tokens"
                f" ({TOKENS.format}, {TOKENS.rate} a second): leave {name} out"
            )
    return TOKENS


def _audio(side: str, query: dict[str, str], native_rate: int) -> StreamFormat:
    form = query.get(f"{side}_format", DEFAULT_FORMAT)
    if form not in FORMATS:
        raise ConfigError(f"{side}_format {form[:40]!r} is unknown: choose one of {', '.join(FORMATS)}")
    rate = query.get(f"{side}_rate", str(native_rate))
    if not (rate.isascii() and rate.isdecimal() and len(rate) <= 6 and MIN_RATE <= int(rate) <= MAX_RATE):
        raise ConfigError(f"{side}_rate is {rate[:40]!r}: expected whole hertz from {MIN_RATE} to {MAX_RATE}")
    if int(rate) % TOKENS_PER_SECOND:
        raise ConfigError(
            f"{side}_rate {rate} has no whole number of samples in a frame of 20 ms: use a multiple of"
            f" {TOKENS_PER_SECOND}, such as 8000, 16000, 22050, 24000, 44100 or 48000"
        )
    return StreamFormat("audio", form, int(rate))


def _flag(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise ConfigError(f"query {name} is {value[:40]!r}: expected 0 or 1")
    return value == "1"


def _position(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= 16):
        raise ConfigError(f"query {name} is {value[:40]!r}: expected a position, a whole number >= 0")
    return int(value)


def _positions(name: str, query: dict[str, str]) -> Positions | None:
    if name not in query:
        return None
    input, comma, output = query[name].partition(",")
    if not comma:
        raise ConfigError(
            f"query {name} is {query[name][:40]!r}: expected an input and an output position, joined by a comma"
        )
    return Positions(_position(name, input), _position(name, output))
