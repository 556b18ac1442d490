from urllib.parse import quote

import pytest

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.protocol.messages import INPUT_AUDIO, OUTPUT_AUDIO, TOKENS, StreamFormat
from neucodec_streaming.protocol.query import QUERIES, SessionRequest, parse_target, session_request


def test_a_bare_path_means_the_defaults():
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
def test_a_request_survives_a_round_trip_through_its_url(kind, form):
    request = session_request(kind, input_format=form, output_format=form, profile="a b&c", stats=True)
    assert parse_target(request.target) == request


def test_an_unknown_parameter_is_refused_with_the_known_names():
    with pytest.raises(ConfigError) as error:
        parse_target("/v1/encode?colour=blue")
    assert "colour" in str(error.value) and all(name in str(error.value) for name in QUERIES)


@pytest.mark.parametrize("rate", [8_000, 11_050, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("form", ["s16le", "mulaw", "alaw"])
def test_every_rate_with_whole_frames_is_accepted_in_every_format(form, rate):
    request = session_request("roundtrip", input_format=form, output_format=form, input_rate=rate, output_rate=rate)
    assert request.input == request.output == StreamFormat("audio", form, rate)
    assert request.input.hop * 50 == rate
    assert parse_target(request.target) == request


def test_the_default_rate_is_independent_of_the_format():
    assert parse_target("/v1/encode?input_format=mulaw").input.rate == 16_000
    assert parse_target("/v1/decode?output_format=alaw").output.rate == 24_000


@pytest.mark.parametrize("rate", [11_025, 8_001, 47_999])
def test_a_rate_without_whole_frames_is_refused_with_valid_rates(rate):
    with pytest.raises(ConfigError, match=f"output_rate {rate} .* multiple of 50, such as 8000"):
        parse_target(f"/v1/decode?output_rate={rate}")
    with pytest.raises(ConfigError, match=f"input_rate {rate} .* multiple of 50, such as 8000"):
        session_request("encode", input_rate=rate)


@pytest.mark.parametrize(
    "rate", ["7950", "48050", "0", "-8000", "8000.0", "8e3", "", "\u0668\u0660\u0660\u0660", "9" * 99]
)
def test_a_rate_outside_the_range_is_refused_naming_the_range(rate):
    with pytest.raises(ConfigError, match="from 8000 to 48000"):
        parse_target("/v1/encode?input_rate=" + quote(rate))


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
def test_an_invalid_value_is_named(query, named):
    with pytest.raises(ConfigError, match=named):
        parse_target("/v1/encode?" + query)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="sing"):
        session_request("sing")
