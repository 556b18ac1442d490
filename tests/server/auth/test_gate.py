"""Admission: origins, keys, limits on attempts and on sessions per key or address, and addresses behind proxies."""

import random
from http import HTTPStatus
from ipaddress import ip_network

import pytest
from websockets.datastructures import Headers

from neucodec_streaming.client.errors import error_of
from neucodec_streaming.errors import (
    AuthError,
    CapacityError,
    ConfigError,
    DeviceError,
    LimitError,
    OriginError,
    StreamingError,
)
from neucodec_streaming.server.auth.gate import (
    MAX_REMEMBERED,
    Attempts,
    Caller,
    Gate,
    client_address,
    counted_address,
)
from neucodec_streaming.server.auth.keys import Keys, key_line, new_key
from neucodec_streaming.server.http.responses import status_and_headers
from tests.server.auth.test_keys import Clock

PEER = "192.0.2.7"


def gate(clock: Clock | None = None, keys: list[str] | None = None, **options) -> Gate:
    clock = clock or Clock()
    return Gate(Keys(None, keys or [], clock), clock=clock, **options)


def bearer(key: str) -> Headers:
    return Headers(Authorization=f"Bearer {key}")


def test_an_open_gate_admits_everyone_without_limits():
    the_gate = gate()
    for _ in range(1000):
        caller = the_gate.check(Headers(Origin="https://anywhere.example"), None, PEER)
        the_gate.enter(caller)
    assert caller == Caller(None, PEER)


def test_a_visitor_is_named_after_the_key():
    key = new_key()
    the_gate = gate(keys=[key])
    assert the_gate.check(bearer(key), None, PEER) == Caller("plain-1", PEER)
    assert the_gate.check(Headers(), key, PEER) == Caller("plain-1", PEER)
    for headers, token in ((Headers(), None), (bearer("wrong"), None), (bearer("wrong"), key)):
        with pytest.raises(AuthError):
            the_gate.check(headers, token, PEER)


# Origins


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://example.org", True),
        ("HTTPS://Example.ORG", True),
        ("https://example.org:8443", False),
        ("http://example.org", False),
        ("https://example.org.attacker.example", False),
        ("https://attackerexample.org", False),
        ("https://a.example.net", True),
        ("https://a.b.example.net", True),
        ("https://example.net", False),
        ("https://.example.net", False),
        ("https://attacker.example/.example.net", False),
        ("https://attacker.example?.example.net", False),
        ("https://user@.example.net", False),
        ("http://localhost:3000", True),
        ("http://localhost", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_listed_origins_are_admitted(origin, allowed):
    the_gate = gate(origins=["https://example.org", "https://*.example.net", "http://localhost:3000"])
    if allowed:
        the_gate.check(Headers(Origin=origin), None, PEER)
    else:
        with pytest.raises(OriginError):
            the_gate.check(Headers(Origin=origin), None, PEER)


def test_requests_without_an_origin_are_admitted():
    gate(origins=["https://example.org"]).check(Headers(), None, PEER)


def test_if_two_origins_are_sent_both_must_be_allowed():
    the_gate = gate(origins=["https://example.org"])
    with pytest.raises(OriginError):
        the_gate.check(Headers([("Origin", "https://example.org"), ("Origin", "https://attacker.example")]), None, PEER)


@pytest.mark.parametrize(
    "origin", ["example.org", "*.example.org", "https://example.org/", "https://*", "https://a*.b", ""]
)
def test_a_malformed_origin_is_refused_at_startup(origin):
    with pytest.raises(ConfigError, match="allow_origins has"):
        gate(origins=[origin])


# Attempts


def test_attempts_per_address_are_limited_and_refill_evenly():
    clock = Clock()
    the_gate = gate(clock, max_attempts_per_minute=6)
    for _ in range(6):
        the_gate.check(Headers(), None, PEER)
    for _ in range(3):  # refused attempts cost nothing
        with pytest.raises(
            LimitError, match=r"address 192.0.2.7 connects too often \(the limit is 6 a minute"
        ) as caught:
            the_gate.check(Headers(), None, PEER)
    assert caught.value.after_s == 10
    the_gate.check(Headers(), None, "192.0.2.8")
    clock.now_s += 10
    the_gate.check(Headers(), None, PEER)
    with pytest.raises(LimitError):
        the_gate.check(Headers(), None, PEER)


def test_a_retry_after_the_announced_wait_succeeds():
    clock, choose = Clock(), random.Random(7)
    attempts = Attempts(7, clock)
    for _ in range(200):
        clock.now_s += choose.random() * 10
        try:
            attempts.take("address", PEER)
        except LimitError as error:
            clock.now_s += error.after_s
            attempts.take("address", PEER)


def test_at_most_twice_the_limit_passes_in_a_minute_and_the_limit_holds_over_an_hour():
    clock, choose = Clock(), random.Random(8)
    attempts, taken = Attempts(60, clock), []
    for _ in range(20_000):
        clock.now_s += choose.random() * 0.36
        try:
            attempts.take("address", PEER)
        except LimitError:
            continue
        taken.append(clock.now_s)
    assert len(taken) <= 60 + (clock.now_s - 1000)
    assert max(sum(start <= at < start + 60 for at in taken) for start in taken[::50]) <= 120


def test_attempts_with_one_key_share_a_limit_across_addresses():
    key, other = new_key(), new_key()
    the_gate = gate(keys=[key, other], max_attempts_per_minute=3)
    for host in range(3):
        the_gate.check(bearer(key), None, f"192.0.2.{host}")
    with pytest.raises(LimitError, match="key plain-1 connects too often"):
        the_gate.check(bearer(key), None, "192.0.2.99")
    the_gate.check(bearer(other), None, "192.0.2.99")


def test_attempts_with_wrong_keys_count_for_the_address_and_not_for_a_key():
    key = new_key()
    the_gate = gate(keys=[key], max_attempts_per_minute=3)
    for _ in range(3):
        with pytest.raises(AuthError):
            the_gate.check(bearer("guess"), None, PEER)
    with pytest.raises(LimitError):
        the_gate.check(bearer(key), None, PEER)
    the_gate.check(bearer(key), None, "192.0.2.8")


def test_memory_is_bounded_for_any_number_of_addresses():
    clock = Clock()
    attempts = Attempts(1, clock)
    for number in range(MAX_REMEMBERED + 100):
        attempts.take("address", str(number))
    assert len(attempts._buckets) == MAX_REMEMBERED
    with pytest.raises(LimitError):
        attempts.take("address", str(MAX_REMEMBERED))
    attempts.take("address", "0")  # the oldest address was evicted


# Sessions


def test_sessions_per_address_are_limited_until_one_ends():
    the_gate = gate(max_sessions_per_address=2)
    caller, other = Caller(None, PEER), Caller(None, "192.0.2.8")
    the_gate.enter(caller)
    the_gate.enter(caller)
    with pytest.raises(LimitError, match=r"address 192.0.2.7 has reached its session limit \(2\)"):
        the_gate.enter(caller)
    the_gate.enter(other)
    the_gate.leave(caller)
    the_gate.enter(caller)


def test_sessions_per_key_are_limited_across_addresses_and_refusals_do_not_count():
    the_gate = gate(max_sessions_per_key=2, max_sessions_per_address=1)
    first, second = Caller("alice", "192.0.2.1"), Caller("alice", "192.0.2.2")
    the_gate.enter(first)
    the_gate.enter(second)
    with pytest.raises(LimitError, match=r"key alice has reached its session limit \(2\)"):
        the_gate.enter(Caller("alice", "192.0.2.3"))
    with pytest.raises(LimitError, match=r"address 192.0.2.1 has reached its session limit \(1\)"):
        the_gate.enter(Caller("bob", "192.0.2.1"))
    the_gate.enter(Caller("bob", "192.0.2.3"))
    the_gate.leave(first)
    the_gate.enter(Caller("bob", "192.0.2.1"))


def test_callers_without_sessions_are_forgotten():
    the_gate = gate(max_sessions_per_address=3)
    visitors = [Caller("alice", f"192.0.2.{number}") for number in range(100)]
    for caller in visitors:
        the_gate.enter(caller)
    for caller in visitors:
        the_gate.leave(caller)
    assert not the_gate._sessions


# Addresses

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", [], "192.0.2.7"),
        ("192.0.2.7", ["198.51.100.1"], "192.0.2.7"),  # not one of our proxies, so its claim is not trusted
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.66, 198.51.100.1"], "198.51.100.1"),  # the left address was invented by the client
        ("10.0.0.1", ["203.0.113.66", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.2.2.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["", ","], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_the_client_address_is_the_last_one_that_is_not_a_trusted_proxy(peer, forwarded, address):
    assert client_address(peer, forwarded, TRUSTED) == address


def test_without_trusted_proxies_forwarded_addresses_are_ignored():
    assert client_address("10.0.0.1", ["198.51.100.1"], []) == "10.0.0.1"


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_ipv6_addresses_of_one_network_share_a_limit(address, counted):
    assert counted_address(address) == counted


def test_a_gate_behind_a_proxy_counts_clients_and_not_the_proxy():
    the_gate = gate(max_attempts_per_minute=1, trusted_proxies=["10.0.0.1"])
    for host in range(5):
        headers = Headers({"X-Forwarded-For": f"192.0.2.{host}"})
        assert the_gate.check(headers, None, "10.0.0.1").address == f"192.0.2.{host}"
    with pytest.raises(LimitError):
        the_gate.check(headers, None, "10.0.0.1")


def test_a_proxy_that_is_not_an_address_is_refused_at_startup():
    with pytest.raises(ConfigError, match="trusted_proxies has 'nginx'"):
        gate(trusted_proxies=["nginx"])


# Statuses


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (AuthError("x"), HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"}),
        (OriginError("x"), HTTPStatus.FORBIDDEN, {}),
        (LimitError("x", 7), HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": "7"}),
        (CapacityError("x"), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"}),
        (DeviceError("x"), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"}),
        (ConfigError("x"), HTTPStatus.BAD_REQUEST, {}),
        (StreamingError("x"), HTTPStatus.INTERNAL_SERVER_ERROR, {}),
    ],
)
def test_an_error_has_its_status_and_the_headers_that_go_with_it(error, status, headers):
    assert status_and_headers(error) == (status, headers)


@pytest.mark.parametrize("kind", [AuthError, OriginError, LimitError])
def test_an_error_code_maps_back_to_its_class(kind):
    assert type(error_of(kind.code, "why")) is kind and str(error_of(kind.code, "why")) == "why"


def test_the_gate_accepts_keys_from_the_key_file(tmp_path):
    key, clock, path = new_key(), Clock(), tmp_path / "keys"
    path.write_text(key_line("alice", key) + "\n")
    assert str(Gate(Keys(path, [], clock), clock=clock).check(bearer(key), None, "::1")) == "alice at ::/64"
