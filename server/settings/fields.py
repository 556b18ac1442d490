"""Every setting of the server with its default, limits and help, validated on construction. No I/O, no torch.

A new setting is one field of `Settings`: its flag, environment variable, file key and help follow from it
(server/settings/sources.py). Valid values are given by the type, `least` or `above`, and `choices`.
"""

# ruff: noqa: RUF009 (`setting` declares a dataclass field)

from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from ipaddress import ip_network
from typing import Any, get_args, get_origin
from urllib.parse import urlsplit

from neucodec_streaming.config import StreamConfig
from neucodec_streaming.engine.budget import DEFAULT_MAX_LOAD
from neucodec_streaming.engine.overload import DEFAULT_MAX_BEHIND_S
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.speech_lm import APIS, check_url
from neucodec_streaming.server.settings.spec import entry_of, kind_of, setting

# The groups of settings
MODEL = "model and device"
NETWORK = "network"
ACCESS = "access"
MQTT = "sessions over MQTT"
SPEECH = "POST /v1/audio/speech"
SESSIONS = "sessions and load"
QUEUES = "queues"
TIMES = "times"
LOGGING = "logging"

Profiles = dict[str, tuple[int, int] | None]
"""Names of chunk and lookahead in frames; None is the model's own pair."""

DEFAULT_PORT = 8765
DEFAULT_MAX_MESSAGE_BYTES = 262_144
DEFAULT_PROFILE = "default"
PROFILES: Profiles = {DEFAULT_PROFILE: None, "low": (2, 3), "high": (10, 10)}
OWN_PAIR = "own"
"""Text form of the model's own pair."""
PARTS = ("encode", "decode")
DTYPES = ("float32", "bfloat16", "float16", "int8")
FLOAT32_PRODUCTS = ("exact", "tf32")
CUDA_GRAPHS = ("auto", "on", "off")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True)
class Settings:
    """The server's settings. Raises ConfigError naming the field, its value and valid ones."""

    model: str = setting("nano", MODEL, "nano (bundled), a folder, or a hub id such as neuphonic/neucodec")
    stream_json: str | None = setting(
        None, MODEL, "stream.json to use instead of the model's own: defaults and priors of its streams", is_file=True
    )
    device: str = setting("cpu", MODEL, "torch device; cuda is not yet run on hardware (docs/gpu.md)")
    kinds: tuple[str, ...] = setting(
        PARTS, MODEL, "parts of the model to load and serve: encode, decode, or both (adds round trips)"
    )
    dtype: str = setting("float32", MODEL, "data type of weights and arithmetic", on_cuda="bfloat16", choices=DTYPES)
    profiles: Profiles = setting(
        PROFILES,
        MODEL,
        f"profiles to offer: any of {', '.join(PROFILES)}, and NAME=CHUNK:LOOKAHEAD in frames of 20 ms",
    )
    voices: str | None = setting(
        None,
        MODEL,
        "folder of voices that sessions can start from: .pt, .npy, .npz, .json or .tok files (none: no voices)",
    )
    workers: int | None = setting(
        None, MODEL, "worker processes that share the sessions (none: one for each core; on CUDA one)", least=1
    )
    threads: int | None = setting(None, MODEL, "torch threads in each worker on a CPU (none: one)", least=1)
    nice: int = setting(
        0, MODEL, "niceness of the worker processes; above 0, processes that carry messages run before steps", least=0
    )
    float32_products: str = setting(
        "exact", MODEL, "float32 products on CUDA: exact, or tf32, which is faster", choices=FLOAT32_PRODUCTS
    )
    cuda_graphs: str = setting(
        "auto", MODEL, "capture steps as CUDA graphs; auto: if a replay gives the same bits", choices=CUDA_GRAPHS
    )
    batch_sizes: tuple[int, ...] = setting(
        (1, 2, 3, 4, 6, 8, 12, 16),
        MODEL,
        "batch sizes to warm up; a single one gives the same bits under any load",
        on_cuda=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    )
    gather_ms: float = setting(4.0, MODEL, "longest wait of a lone chunk for others to share its step", least=0)

    host: str = setting("127.0.0.1", NETWORK, "address to listen on; 0.0.0.0 for all addresses of this machine")
    port: int = setting(
        DEFAULT_PORT, NETWORK, "port to listen on; 0 for any free port, which the ready line shows", least=0
    )
    tls_cert: str | None = setting(None, NETWORK, "certificate chain (PEM); with tls_key, enables TLS", is_file=True)
    tls_key: str | None = setting(None, NETWORK, "private key of tls_cert (PEM)", is_file=True)
    trusted_proxies: tuple[str, ...] = setting(
        (), NETWORK, "addresses or networks of proxies whose X-Forwarded-For is trusted"
    )
    web: bool = setting(True, NETWORK, "serve the web page at /")

    api_keys_file: str | None = setting(None, ACCESS, "file of accepted API keys", is_file=True)
    api_keys: tuple[str, ...] = setting(
        (), ACCESS, "accepted API keys; without keys and file, everybody is admitted", secret=True
    )
    allow_origins: tuple[str, ...] = setting(
        (), ACCESS, "origins of allowed web pages, such as https://example.org (empty: any)"
    )
    max_sessions_per_key: int | None = setting(
        None, ACCESS, "limit of open sessions for each API key (none: no limit)", least=1
    )
    max_sessions_per_address: int | None = setting(
        None, ACCESS, "limit of open sessions for each address (none: no limit)", least=1
    )
    max_attempts_per_minute: int | None = setting(
        600, ACCESS, "limit of connection attempts a minute for each address and each key (none: no limit)", least=1
    )

    mqtt: str | None = setting(
        None, MQTT, "broker whose sessions to serve: mqtt://HOST:PORT, or mqtts:// for TLS (none: no bridge)"
    )
    mqtt_username: str | None = setting(None, MQTT, "user at the broker")
    mqtt_password: str | None = setting(None, MQTT, "password at the broker", secret=True)
    mqtt_ca: str | None = setting(
        None, MQTT, "certificate authorities (PEM) for the broker (none: the system's)", is_file=True
    )
    mqtt_cert: str | None = setting(None, MQTT, "client certificate (PEM) for the broker", is_file=True)
    mqtt_key: str | None = setting(None, MQTT, "private key of mqtt_cert (PEM)", is_file=True)
    mqtt_hermes_sites: tuple[str, ...] = setting((), MQTT, "Rhasspy satellites to encode without a request")

    speech_lm_url: str | None = setting(
        None, SPEECH, "base URL of a speech language model's server, ending in /v1 (none: no /v1/audio/speech)"
    )
    speech_lm_api: str = setting("completions", SPEECH, "API of the language model's server", choices=tuple(APIS))
    speech_lm_template: str | None = setting(
        None,
        SPEECH,
        "prompt file with {text}, or a .json file with the whole request (none: only the text)",
        is_file=True,
    )
    speech_lm_key: str | None = setting(None, SPEECH, "API key of the language model's server", secret=True)

    max_sessions: int = setting(
        64, SESSIONS, "limit of sessions; more get HTTP 503 (max_load may refuse earlier)", on_cuda=256, least=1
    )
    max_load: float = setting(
        DEFAULT_MAX_LOAD,
        SESSIONS,
        "limit of the share of time for steps, as measured at startup; more sessions get 503",
        above=0,
    )
    max_behind_s: float = setting(
        DEFAULT_MAX_BEHIND_S,
        SESSIONS,
        "lateness of live chunks beyond which overload closes the newest live session (never the last)",
        above=0,
    )

    max_session_s: float | None = setting(None, SESSIONS, "limit of a session's duration (none: no limit)", above=0)
    resume_s: float = setting(
        30.0,
        SESSIONS,
        "how long to keep a session whose connection was lost, for its client to resume; 0: not at all",
        least=0,
    )

    max_messages_per_s: float = setting(
        500.0,
        QUEUES,
        "limit of requests and control frames a second for each connection; more are delayed",
        above=0,
    )
    max_message_bytes: int = setting(
        DEFAULT_MAX_MESSAGE_BYTES,
        QUEUES,
        "limit of a message; a longer one closes the session with status 1009",
        least=2,
    )
    max_pending_seconds: float = setting(10.0, QUEUES, "limit of a session's input queued at its worker", above=0)
    max_read_ahead_bytes: int = setting(
        1_048_576,
        QUEUES,
        "limit of a connection's input read ahead of its worker; beyond it the client is slowed",
        least=1,
    )
    max_parked_bytes: int = setting(
        268_435_456,
        QUEUES,
        "limit of memory for parked sessions; beyond it the oldest is closed, and its client resumes by replay",
        least=0,
    )
    max_queue_bytes: int = setting(
        262_144, QUEUES, "limit of unread output of a session; beyond it the session is not stepped", least=1
    )
    max_queue_messages: int = setting(
        1024, QUEUES, "limit of unread messages of a session; beyond it the client is not read", least=1
    )
    max_replay_bytes: int = setting(
        2_097_152, QUEUES, "sent output kept for a client whose connection is lost", least=0
    )

    open_timeout_s: float = setting(10.0, TIMES, "timeout of the HTTP request of a new connection", above=0)
    slot_timeout_s: float = setting(10.0, TIMES, "timeout of allocating a new session's slots", above=0)
    send_timeout_s: float = setting(20.0, TIMES, "timeout of a client that reads nothing; it is disconnected", above=0)
    park_after_s: float = setting(
        10.0, TIMES, "time without traffic after which a session is parked and releases its slots", above=0
    )
    wake_timeout_s: float = setting(
        10.0, TIMES, "how long a parked session with new input waits for a slot before it is closed", above=0
    )
    first_message_timeout_s: float | None = setting(
        None, TIMES, "timeout of a new session's first message (none: no limit)", above=0
    )
    idle_timeout_s: float | None = setting(
        None, TIMES, "time without traffic after which a session is closed (none: no limit)", above=0
    )
    ping_interval_s: float = setting(20.0, TIMES, "interval of pings", above=0)
    ping_timeout_s: float = setting(20.0, TIMES, "timeout of the answer to a ping", above=0)
    close_timeout_s: float = setting(5.0, TIMES, "timeout of the closing handshake", above=0)
    stuck_after_s: float = setting(
        20.0, TIMES, "time of a single step after which the server reports not ready", above=0
    )
    drain_s: float = setting(
        30.0, TIMES, "time for open sessions to end after SIGTERM; the rest resume elsewhere", least=0
    )
    stop_timeout_s: float = setting(10.0, TIMES, "timeout of shutting down after the sessions are closed", above=0)

    log_level: str = setting("info", LOGGING, "lowest level to log", choices=LOG_LEVELS)
    log_format: str = setting("text", LOGGING, "format of the log; json: one object a line", choices=LOG_FORMATS)

    def __post_init__(self) -> None:
        for item in fields(self):
            entry = entry_of(item)
            if entry.on_cuda is not None and getattr(self, item.name) is None:
                on_cuda = str(self.device).startswith("cuda")
                object.__setattr__(self, item.name, entry.on_cuda if on_cuda else entry.default)
            check(item, getattr(self, item.name))
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_key is None else ("tls_key", "tls_cert")
            raise ConfigError(f"{missing} is missing, but {given} is {getattr(self, given)!r}: set both or neither")

    @property
    def default_profile(self) -> str:
        """The profile of sessions that name none: "default" if offered, else the first."""
        return DEFAULT_PROFILE if DEFAULT_PROFILE in self.profiles else next(iter(self.profiles))


def check(item: Field, value: Any) -> None:
    """Raises ConfigError if a field cannot have the value."""
    wrong = _wrong(item, value)
    if wrong:
        shown = "set" if entry_of(item).secret else _shown(value)
        raise ConfigError(f"{item.name} is {shown}: {wrong}")


def _shown(value: Any) -> str:
    """The value as given: a list as texts with commas, or empty."""
    return repr(",".join(map(str, value))) if isinstance(value, tuple) else repr(value)


def _wrong(item: Field, value: Any) -> str | None:
    """Advice for an invalid value; None for a valid one."""
    entry = entry_of(item)
    kind, may_be_none = kind_of(item)
    if value is None and may_be_none:
        return None
    if not _is_a(kind, value):
        return f"expected {_NOUNS[kind]}"
    if entry.least is not None and value < entry.least:
        return f"expected at least {entry.least}"
    if entry.above is not None and value <= entry.above:
        return f"expected a number above {entry.above}"
    if entry.choices and value not in entry.choices:
        return f"choose one of {', '.join(entry.choices)}"
    return _FURTHER[item.name](value) if item.name in _FURTHER else None


_NOUNS = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[int, ...]: "whole numbers",
    tuple[str, ...]: "non-empty strings",
    Profiles: "names with a chunk and a lookahead each",
}


def _is_a(kind: Any, value: Any) -> bool:
    if kind in (int, float):
        allowed = (int, float) if kind is float else int
        return isinstance(value, allowed) and not isinstance(value, bool) and abs(value) < float("inf")
    if get_origin(kind) is tuple:
        each = get_args(kind)[0]
        return isinstance(value, tuple) and all(_is_a(each, part) and part != "" for part in value)
    return isinstance(value, get_origin(kind) or kind)


def _wrong_port(port: int) -> str | None:
    return "expected 0 to 65535" if port > 65_535 else None


def _wrong_kinds(kinds: tuple[str, ...]) -> str | None:
    is_some = bool(kinds) and len(set(kinds)) == len(kinds) and set(kinds) <= set(PARTS)
    return None if is_some else f"choose {', '.join(PARTS)}, or both"


def _wrong_profiles(profiles: Profiles) -> str | None:
    for name, pair in profiles.items():
        try:
            chunk, lookahead = (1, 0) if pair is None else pair
            StreamConfig(chunk, lookahead)
        except (ConfigError, TypeError, ValueError):
            return f"profile {name!r} has {pair!r}, expected a chunk of at least 1 and a lookahead, in frames, or None"
    return None if profiles else f"choose at least one, such as {DEFAULT_PROFILE}"


def _wrong_speech_lm_url(url: str) -> str | None:
    try:
        check_url(url)
    except ConfigError:
        return "expected the base URL of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1"
    return None


def _wrong_batch_sizes(sizes: tuple[int, ...]) -> str | None:
    rising = bool(sizes) and list(sizes) == sorted(set(sizes)) and sizes[0] >= 1
    return None if rising else "expected ascending whole numbers of at least 1"


def _wrong_origins(origins: tuple[str, ...]) -> str | None:
    for origin in origins:
        split = urlsplit(origin)
        if split.scheme not in ("http", "https") or origin != f"{split.scheme}://{split.netloc}" or not split.netloc:
            return f"expected origins as browsers send them, such as https://example.org, not {origin!r}"
    return None


def _wrong_proxies(proxies: tuple[str, ...]) -> str | None:
    for proxy in proxies:
        try:
            ip_network(proxy)
        except ValueError as error:
            return f"expected addresses or networks such as 10.0.0.0/8 ({error})"
    return None


_FURTHER: dict[str, Callable[[Any], str | None]] = {
    "port": _wrong_port,
    "kinds": _wrong_kinds,
    "profiles": _wrong_profiles,
    "speech_lm_url": _wrong_speech_lm_url,
    "batch_sizes": _wrong_batch_sizes,
    "allow_origins": _wrong_origins,
    "trusted_proxies": _wrong_proxies,
}
"""Validations beyond type, limits and choices."""


def parse_profiles(text: str) -> Profiles:
    """Parses `default,low,mine=4:6,theirs=own` to names with chunk and lookahead. Raises ConfigError."""
    profiles: Profiles = {}
    for part in text.split(","):
        name, given, pair = (piece.strip() for piece in part.partition("="))
        if not given and name in PROFILES:
            profiles[name] = PROFILES[name]
            continue
        chunk, _, lookahead = pair.partition(":")
        if name and pair == OWN_PAIR:
            profiles[name] = None
        elif name and chunk.isdecimal() and lookahead.isdecimal() and int(chunk) >= 1:
            profiles[name] = (int(chunk), int(lookahead))
        else:
            known = ", ".join(PROFILES)
            raise ConfigError(
                f"profile {part.strip()!r} is unknown: choose from {known}, NAME=CHUNK:LOOKAHEAD in frames, or"
                f" NAME={OWN_PAIR} for the model's own pair"
            )
    return profiles


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """Parses `1,4,8` to (1, 4, 8). Raises ConfigError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"batch sizes {text!r} are not whole numbers: use a list such as 1,4,8")
    return tuple(int(part) for part in parts)
