from dataclasses import fields

import pytest

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.settings.fields import PROFILES, Settings, parse_batch_sizes, parse_profiles
from neucodec_streaming.server.settings.spec import entry_of


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", -1),
        ("port", 70_000),
        ("port", "80"),
        ("threads", 0),
        ("threads", 1.5),
        ("nice", -1),
        ("dtype", "int4"),
        ("model", None),
        ("max_sessions", 0),
        ("max_sessions", True),
        ("max_sessions_per_key", 0),
        ("batch_sizes", ()),
        ("batch_sizes", (4, 2)),
        ("batch_sizes", (0, 1)),
        ("batch_sizes", [1]),
        ("gather_ms", -1),
        ("gather_ms", float("nan")),
        ("send_timeout_s", 0),
        ("max_pending_seconds", -1.0),
        ("max_message_bytes", 1),
        ("max_load", 0),
        ("profiles", {}),
        ("profiles", {"mine": (0, 5)}),
        ("profiles", {"mine": (5, -1)}),
        ("profiles", {"mine": (5,)}),
        ("profiles", {"mine": 5}),
        ("web", 1),
        ("trusted_proxies", ("10.0.0.0/33",)),
        ("trusted_proxies", ("proxy.example.org",)),
        ("allow_origins", ("example.org",)),
        ("allow_origins", ("https://example.org/",)),
        ("allow_origins", ("",)),
        ("log_format", "xml"),
    ],
)
def test_an_invalid_value_is_refused_naming_field_and_value(field, value):
    with pytest.raises(ConfigError, match=field):
        Settings(**{field: value})


def test_optional_settings_may_be_none():
    Settings(max_attempts_per_minute=None)
    Settings(trusted_proxies=("10.0.0.0/8", "::1"), allow_origins=("https://example.org:8443",))


def test_a_certificate_needs_its_key():
    Settings(tls_cert="cert.pem", tls_key="key.pem")
    with pytest.raises(ConfigError, match="tls_key is missing"):
        Settings(tls_cert="cert.pem")
    with pytest.raises(ConfigError, match="tls_cert is missing"):
        Settings(tls_key="key.pem")


def test_every_setting_has_a_help_text_and_every_number_a_limit():
    for item in fields(Settings):
        entry = entry_of(item)
        assert entry.group and entry.help
        if item.type in (int, float, int | None, float | None):
            assert entry.least is not None or entry.above is not None, item.name


def test_a_secret_is_never_shown():
    assert "s3cret" not in repr(Settings(api_keys=("s3cret",)))
    with pytest.raises(ConfigError) as caught:
        Settings(api_keys=("s3cret", ""))
    assert "s3cret" not in str(caught.value)


def test_a_profile_is_a_known_name_or_a_pair():
    assert parse_profiles("default,low") == {"default": None, "low": PROFILES["low"]}
    assert parse_profiles("mine=4:6, theirs = own") == {"mine": (4, 6), "theirs": None}
    for text in ("best", "mine=4", "mine=0:1", "=1:2", "", "mine=a:b"):
        with pytest.raises(ConfigError, match="default"):
            parse_profiles(text)


def test_the_default_profile_is_the_one_named_default_or_the_first():
    assert Settings(profiles=parse_profiles("low,default")).default_profile == "default"
    assert Settings(profiles=parse_profiles("low,high")).default_profile == "low"


def test_batch_sizes_are_read():
    assert parse_batch_sizes("1, 4,8") == (1, 4, 8)
    with pytest.raises(ConfigError, match="1,x"):
        parse_batch_sizes("1,x")
