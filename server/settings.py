"""Every setting of the server with its limit and default, checked when made. No I/O, no torch."""

from dataclasses import dataclass, field, fields
from typing import Any

from streaming.engine.budget import DEFAULT_MAX_LOAD
from streaming.engine.overload import DEFAULT_MAX_BEHIND_S
from streaming.errors import ConfigError

DEFAULT_PORT = 8765
DEFAULT_PROFILE = "default"
PROFILES: dict[str, tuple[int, int] | None] = {DEFAULT_PROFILE: None, "low": (2, 3), "high": (5, 15)}
"""Named pairs of chunk and lookahead, in frames; None is the model's own."""
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """How the server runs. Raises ConfigError naming the field, its value and what would do."""

    model: str = "nano"
    """"nano", a folder with config.json and model.safetensors, or a hub id."""
    stream_json: str | None = None
    """File with defaults and priors, instead of the stream.json beside the weights."""
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0: any free port; the ready line says which."""
    api_keys_file: str | None = None
    """Lines of NAME:HASH, as `python -m server.auth NAME` prints them; None, and no api_keys: everyone may come in."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Plain keys; never a flag, since a machine's users see each other's command lines."""
    allow_origins: tuple[str, ...] = ()
    """Of web pages whose browsers may connect; none: every one."""
    tls_cert: str | None = None
    tls_key: str | None = None
    """Files in PEM, both or none; read again when they change."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose X-Forwarded-For is believed."""
    max_attempts_per_minute: int | None = None
    """Of one address, sessions refused and opened; None: no limit. So are the next two."""
    max_sessions_per_key: int | None = None
    max_sessions_per_address: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    """Of weights and arithmetic, one of DTYPES."""
    workers: int | None = None
    """Device threads, each of which steps a share of the sessions; None: one for each core, on CUDA one."""
    threads: int | None = None
    """Of torch in each worker, on the CPU; None: what cores there are for each."""
    profiles: dict[str, tuple[int, int] | None] = field(default_factory=lambda: dict(PROFILES))
    max_sessions: int = 64
    """Slots. What the device can step in time is measured, and may be less."""
    max_load: float = DEFAULT_MAX_LOAD
    """The share of the time that steps may take, by their measured times; a session beyond it is refused."""
    max_behind_s: float = DEFAULT_MAX_BEHIND_S
    """When the most urgent chunk is later than that and the device does not catch up, the newest session is closed."""
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    gather_ms: float = 4.0
    """The longest that a lone window waits for others to be stepped with."""
    max_message_bytes: int = 262_144
    max_pending_seconds: float = 10.0
    """Of input that is not yet answered by output; a client that sends more is slowed by back-pressure."""
    max_queue_bytes: int = 262_144
    """Of output that a client has not taken; then its session is stepped no further until it has."""
    max_queue_messages: int = 1024
    """Of any kind that a client has not taken; then nothing more is read from it."""
    send_timeout_s: float = 20.0
    """A client that takes nothing for so long is disconnected."""
    open_timeout_s: float = 10.0
    """For the HTTP request of a new connection."""
    close_timeout_s: float = 5.0
    slot_timeout_s: float = 10.0
    """For the device thread to give a new session its slots."""
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    stuck_after_s: float = 20.0
    """A device thread that is busy with one step for so long counts as stuck: /readyz says no."""
    stop_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type in (int, float) and not _is_number(value, item.type):
                raise ConfigError(f"{item.name} is {value!r}: give a number")
        self._least("max_sessions", 1)
        self._least("max_message_bytes", 2)
        self._least("max_queue_bytes", 1)
        self._least("max_queue_messages", 1)
        self._least("gather_ms", 0)
        if self.max_load <= 0:
            raise ConfigError(f"max_load is {self.max_load}: give a share of the time above 0, such as 0.7")
        for item in fields(self):
            if item.name.endswith(("_s", "_seconds")) and getattr(self, item.name) <= 0:
                raise ConfigError(f"{item.name} is {getattr(self, item.name)}: give seconds above 0")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port is {self.port}: give 0 to 65535")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError(f"tls_cert is {self.tls_cert!r} and tls_key {self.tls_key!r}: give both or none")
        for name in (
            *("workers", "threads"),
            *("max_attempts_per_minute", "max_sessions_per_key", "max_sessions_per_address"),
        ):
            value = getattr(self, name)
            if value is not None and not (_is_number(value, int) and value >= 1):
                raise ConfigError(f"{name} is {value!r}: give a whole number, at least 1")
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}: give one of {', '.join(DTYPES)}")
        sizes = self.batch_sizes
        if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
            raise ConfigError(f"batch_sizes is {sizes}: give whole numbers from 1 on, ascending")
        if not self.profiles:
            raise ConfigError(f"profiles is empty: name at least one, such as {DEFAULT_PROFILE}")

    @property
    def default_profile(self) -> str:
        """What a session gets that asks for none: "default" where there is one, or the first."""
        return DEFAULT_PROFILE if DEFAULT_PROFILE in self.profiles else next(iter(self.profiles))

    def _least(self, name: str, least: int) -> None:
        if getattr(self, name) < least:
            raise ConfigError(f"{name} is {getattr(self, name)}: give at least {least}")


def parse_profiles(text: str) -> dict[str, tuple[int, int] | None]:
    """`default,low,mine=4:6` -> names with chunk and lookahead. Raises ConfigError."""
    profiles: dict[str, tuple[int, int] | None] = {}
    for part in text.split(","):
        name, given, pair = part.strip().partition("=")
        if not given and name in PROFILES:
            profiles[name] = PROFILES[name]
            continue
        chunk, _, lookahead = pair.partition(":")
        if not (name and chunk.isdecimal() and lookahead.isdecimal() and int(chunk) >= 1):
            known = ", ".join(PROFILES)
            raise ConfigError(f"profile {part.strip()!r} is unknown: give {known}, or NAME=CHUNK:LOOKAHEAD in frames")
        profiles[name] = (int(chunk), int(lookahead))
    return profiles


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """`1,4,8` -> (1, 4, 8). Raises ConfigError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"batch sizes {text!r} cannot be read: give whole numbers such as 1,4,8")
    return tuple(int(part) for part in parts)


def _is_number(value: Any, kind: Any) -> bool:
    allowed = (int, float) if kind is float else (int,)
    return isinstance(value, allowed) and not isinstance(value, bool) and abs(value) < float("inf")
