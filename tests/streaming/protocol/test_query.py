import pytest

from streaming.errors import ConfigError
from streaming.protocol.messages import INPUT_AUDIO, OUTPUT_AUDIO, TOKENS
from streaming.protocol.query import QUERIES, SessionRequest, parse_target, session_request


def test_a_bare_path_asks_for_the_defaults():
    assert parse_target("/v1/encode") == SessionRequest("encode", INPUT_AUDIO, TOKENS)
    assert parse_target("/v1/decode") == SessionRequest("decode", TOKENS, OUTPUT_AUDIO)
    assert parse_target("/v1/roundtrip") == SessionRequest("roundtrip", INPUT_AUDIO, OUTPUT_AUDIO)


@pytest.mark.parametrize("target", ["/", "/v1", "/v1/encode/", "/v2/encode", "/v1/Encode", ""])
def test_other_paths_are_not_known(target):
    assert parse_target(target) is None


def test_every_parameter_is_read():
    request = parse_target(
        "/v1/roundtrip?input_rate=16000&input_format=f32le&output_rate=24000&output_format=f32le"
        "&profile=low&stats=1&resume=abc&received=12&access_token=secret"
    )
    assert request.input.format == request.output.format == "f32le"
    assert (request.profile, request.stats, request.resume, request.received) == ("low", True, "abc", 12)
    assert request.access_token == "secret"


def test_secrets_are_not_shown():
    assert "secret" not in repr(parse_target("/v1/encode?access_token=secret&resume=secret"))


@pytest.mark.parametrize("kind", ["encode", "decode", "roundtrip"])
@pytest.mark.parametrize("form", ["s16le", "f32le"])
def test_a_request_survives_its_url(kind, form):
    request = session_request(kind, input_format=form, output_format=form, profile="a b&c", stats=True)
    assert parse_target(request.target) == request


def test_an_unknown_parameter_is_refused_naming_the_known():
    with pytest.raises(ConfigError) as error:
        parse_target("/v1/encode?colour=blue")
    assert "colour" in str(error.value) and all(name in str(error.value) for name in QUERIES)


@pytest.mark.parametrize("form", ["mulaw", "alaw"])
def test_telephony_formats_are_refused_for_now(form):
    with pytest.raises(ConfigError, match="later"):
        parse_target(f"/v1/encode?input_format={form}")


def test_other_rates_are_refused_for_now():
    with pytest.raises(ConfigError, match="later"):
        parse_target("/v1/encode?input_rate=48000")
    with pytest.raises(ConfigError, match="later"):
        parse_target("/v1/decode?output_rate=8000")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("input_format=ogg", "ogg"),
        ("input_format=", "input_format"),
        ("input_rate=7", "7"),
        ("input_rate=x", "x"),
        ("output_rate=24000", "output_rate"),
        ("output_format=s16le", "output_format"),
        ("stats=yes", "yes"),
        ("received=-1", "-1"),
        ("received=1e3", "1e3"),
        ("stats=1&stats=1", "twice"),
        ("&".join(f"a{i}=1" for i in range(100)), "query"),
    ],
)
def test_a_value_that_cannot_be_is_named(query, named):
    with pytest.raises(ConfigError, match=named):
        parse_target("/v1/encode?" + query)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="sing"):
        session_request("sing")
