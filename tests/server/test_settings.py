import pytest

from server.settings import PROFILES, Settings, parse_batch_sizes, parse_profiles
from streaming.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", -1),
        ("port", 70_000),
        ("port", "80"),
        ("threads", 0),
        ("dtype", "int4"),
        ("max_sessions", 0),
        ("max_sessions", True),
        ("batch_sizes", ()),
        ("batch_sizes", (4, 2)),
        ("batch_sizes", (0, 1)),
        ("gather_ms", -1),
        ("gather_ms", float("nan")),
        ("send_timeout_s", 0),
        ("max_pending_seconds", -1.0),
        ("max_message_bytes", 1),
        ("profiles", {}),
    ],
)
def test_a_value_that_cannot_be_is_refused_naming_field_and_value(field, value):
    with pytest.raises(ConfigError, match=field):
        Settings(**{field: value})


def test_profiles_are_names_of_known_ones_or_pairs():
    assert parse_profiles("default,low") == {"default": None, "low": PROFILES["low"]}
    assert parse_profiles("mine=4:6") == {"mine": (4, 6)}
    for text in ("best", "mine=4", "mine=0:1", "=1:2", "", "mine=a:b"):
        with pytest.raises(ConfigError, match="default"):
            parse_profiles(text)


def test_the_default_profile_is_the_one_of_that_name_or_the_first():
    assert Settings(profiles=parse_profiles("low,default")).default_profile == "default"
    assert Settings(profiles=parse_profiles("low,high")).default_profile == "low"


def test_batch_sizes_are_read():
    assert parse_batch_sizes("1, 4,8") == (1, 4, 8)
    with pytest.raises(ConfigError, match="1,x"):
        parse_batch_sizes("1,x")
