"""Access control: by origin, API key, and rates and numbers of sessions for each key and address.

Sans-I/O except for the key file; the clock is an argument. `check` decides about one request before anything is
reserved for it; a session counts from `enter` to `leave`. Memory is bounded for any number of addresses.
"""

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from websockets.datastructures import Headers

from neucodec_streaming.errors import ConfigError, LimitError, OriginError
from neucodec_streaming.server.auth.keys import Keys, key_from

MAX_REMEMBERED = 10_000
"""Limit of addresses and keys with attempt counts; beyond it the least recent one is forgotten."""
SESSION_RETRY_AFTER_S = 5
IPV6_PREFIX = 64
"""Network of one household or host: its addresses count as one."""
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*://)(\*(?=\.))?([^\s/*]+)")


@dataclass(frozen=True)
class Caller:
    """A caller. `name`: of its key, None if no key is required. `address`: as counted, of IPv6 the /64."""

    name: str | None
    address: str

    def __str__(self) -> str:
        return self.address if self.name is None else f"{self.name} at {self.address}"


class Attempts:
    """Rate limit of attempts for each of many callers: token buckets of `per_minute` that refill evenly."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # attempts left, and when

    def take(self, kind: str, who: str) -> None:
        """Counts one attempt. Raises LimitError if none is left, at no cost to the caller."""
        if self._per_minute is None:
            return
        now_s, per_s = self._clock(), self._per_minute / 60
        left, then_s = self._buckets.pop((kind, who), (float(self._per_minute), now_s))
        left = min(left + (now_s - then_s) * per_s, float(self._per_minute))
        self._buckets[kind, who] = (left if left < 1 else left - 1), now_s
        if len(self._buckets) > MAX_REMEMBERED:
            self._buckets.popitem(last=False)
        if left < 1:
            after_s = math.ceil((1 - left) / per_s)
            raise LimitError(
                f"{kind} {who} connects too often (the limit is {self._per_minute} a minute): try again in {after_s} s",
                after_s,
            )


class Gate:
    """Access control of one server. A limit of None means no limit; `origins` () allows every web page.

    `origins`: as browsers send them, `https://example.org` or `https://*.example.org` (every subdomain).
    `trusted_proxies`: addresses or networks whose X-Forwarded-For is trusted. Raises ConfigError.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        clock: Callable[[], float],
        origins: Sequence[str] = (),
        trusted_proxies: Sequence[str] = (),
        max_attempts_per_minute: int | None = None,
        max_sessions_per_key: int | None = None,
        max_sessions_per_address: int | None = None,
    ) -> None:
        self._keys = keys
        self._origins = [_origin_pattern(origin) for origin in origins]
        self._trusted = [_network(text) for text in trusted_proxies]
        self._attempts = Attempts(max_attempts_per_minute, clock)
        self._most = {"key": max_sessions_per_key, "address": max_sessions_per_address}
        self._sessions: Counter[tuple[str, str]] = Counter()

    @property
    def is_open(self) -> bool:
        """Whether everybody is admitted without a key."""
        return not self._keys.required

    def check(self, headers: Headers, access_token: str | None, peer: str) -> Caller:
        """The caller at socket address `peer`. Raises LimitError, OriginError or AuthError, in that order.

        Every call counts as an attempt of the address, and with a valid key also of the key.
        """
        address = counted_address(client_address(peer, headers.get_all("X-Forwarded-For"), self._trusted))
        self._attempts.take("address", address)
        self._check_origin(headers.get_all("Origin"))
        name = self._keys.name_of(key_from(headers, access_token))
        if name is not None:
            self._attempts.take("key", name)
        return Caller(name, address)

    def sharing(self, headers: Headers) -> dict[str, str]:
        """CORS headers that let the requesting page read the answer, if its origin may use this server."""
        shared = {"Access-Control-Expose-Headers": "Retry-After"}
        if not self._origins:
            return shared | {"Access-Control-Allow-Origin": "*"}
        try:
            self._check_origin(headers.get_all("Origin"))
            return shared | {"Access-Control-Allow-Origin": headers["Origin"], "Vary": "Origin"}
        except (OriginError, LookupError):
            return {"Vary": "Origin"}

    def enter(self, caller: Caller) -> None:
        """Counts a session until `leave`. Raises LimitError, and then counts nothing."""
        counted = _counted(caller)
        for kind, who in counted:
            most = self._most[kind]
            if most is not None and self._sessions[kind, who] >= most:
                raise LimitError(
                    f"{kind} {who} has reached its session limit ({most}): close a session first", SESSION_RETRY_AFTER_S
                )
        self._sessions.update(counted)

    def leave(self, caller: Caller) -> None:
        self._sessions -= Counter(_counted(caller))  # drops callers without sessions

    def _check_origin(self, origins: Sequence[str]) -> None:
        """Checks the origin; programs send none and are admitted, browsers always do. Raises OriginError."""
        for origin in origins if self._origins else ():
            if not any(pattern.fullmatch(origin.lower()) for pattern in self._origins):
                raise OriginError(f"origin {origin[:80]!r} is not allowed: ask the operator of this server to allow it")


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[IPv4Network | IPv6Network]) -> str:
    """The nearest address that is not a trusted proxy: the peer, then the forwarded ones from last to first.

    `forwarded`: the X-Forwarded-For headers, each a comma-separated list. Entries from untrusted senders are ignored.
    """
    address = peer
    for said in map(str.strip, reversed(",".join(forwarded).split(","))):
        sender = _parsed(address)
        if sender is None or not any(sender in network for network in trusted) or _parsed(said) is None:
            break
        address = said
    return address


def counted_address(address: str) -> str:
    """The address as counted: IPv4 itself, also if mapped into IPv6; of IPv6 one household's network."""
    found = _parsed(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found), IPV6_PREFIX), strict=False))
    return address if found is None else str(found)  # a socket may have no address


def _counted(caller: Caller) -> list[tuple[str, str]]:
    counted = [("address", caller.address)]
    return counted if caller.name is None else [*counted, ("key", caller.name)]


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """IPv4 also if mapped into IPv6; None if it is not an address."""
    try:
        found = ip_address(address)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f"trusted_proxies has {text!r}: expected an address or network such as 127.0.0.1 or 10.0.0.0/8"
        ) from None


def _origin_pattern(origin: str) -> re.Pattern[str]:
    found = _ORIGIN.fullmatch(origin.lower())
    if not found:
        raise ConfigError(
            f"allow_origins has {origin!r}: expected https://example.org or https://*.example.org, with :port unless it"
            " is the default, and without a path"
        )
    scheme, below, rest = found.groups()
    names = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*" if below else ""
    return re.compile(re.escape(scheme) + names + re.escape(rest))
