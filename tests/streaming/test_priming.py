"""The laws of streams that are primed with a voice or with earlier speech."""

import numpy as np
import pytest

from neucodec_streaming import InputError, StreamConfig
from neucodec_streaming.stream import Voice
from tests.streaming.models import MODELS, codec_of, random_cuts, recording

every_model = pytest.mark.parametrize("model", MODELS)
every_cut = pytest.mark.parametrize(("chunk", "lookahead"), [(1, 0), (4, 1), (5, 5), (5, 12)])


def config_of(chunk: int, lookahead: int) -> StreamConfig:
    return StreamConfig(chunk, lookahead, context_frames=20)


def some_tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65_536, count).astype(np.uint16)


def said(stream, x: np.ndarray) -> np.ndarray:
    return np.concatenate([stream.feed(x), stream.flush()])


@every_model
@every_cut
@pytest.mark.parametrize("length", [100, 103])
def test_priming_equals_having_decoded_the_voice_before(model: str, chunk: int, lookahead: int, length: int) -> None:
    """With whole chunks and without: the output equals what follows the voice in one stream, bit for bit."""
    stream = codec_of(model).decoder_stream(config_of(chunk, lookahead))
    voice, tokens = some_tokens(length, 1), some_tokens(23)
    expected = said(stream, np.concatenate([voice, tokens]))[480 * length :]
    stream.prime(voice)
    assert stream.delay_frames == 0 and len(stream.feed(tokens[:0])) == 0
    np.testing.assert_array_equal(said(stream, tokens), expected)
    parts = [stream.feed(packet) for packet in random_cuts(tokens, 3, (0, 1, 2, 7))]
    assert len(parts[0]) % 480 == 0
    np.testing.assert_array_equal(np.concatenate([*parts, stream.flush()]), expected)


@every_model
@every_cut
def test_a_primed_encoder_equals_one_that_heard_the_audio_before(model: str, chunk: int, lookahead: int) -> None:
    stream, pcm = codec_of(model).encoder_stream(config_of(chunk, lookahead)), recording(20_000)
    cut = 40 * 320
    expected = said(stream, pcm)[40:]
    stream.prime(pcm[: cut + 100])  # the remainder is dropped
    assert stream.delay_samples == 0
    np.testing.assert_array_equal(said(stream, pcm[cut:]), expected)
    stream.feed(pcm[cut : cut + 3000])
    assert stream.delay_samples > 0
    stream.reset()
    np.testing.assert_array_equal(said(stream, pcm[cut:]), expected)


@every_model
def test_reset_keeps_the_voice_and_priming_with_none_removes_it(model: str) -> None:
    codec = codec_of(model)
    voice, tokens, config = codec.voice(some_tokens(120, 1)), some_tokens(30), config_of(4, 1)
    primed, stream = codec.decoder_stream(config), codec.decoder_stream(config)
    unprimed = said(stream, tokens)
    primed.prime(voice)
    expected = said(primed, tokens)
    stream.prime(voice)
    stream.feed(tokens[:17])
    stream.reset()
    assert stream.delay_frames == 0
    np.testing.assert_array_equal(said(stream, tokens), expected)
    stream.prime(None)
    np.testing.assert_array_equal(said(stream, tokens), unprimed)
    assert not np.array_equal(unprimed, expected)


@every_model
def test_a_voice_given_within_an_utterance_takes_effect_at_its_end(model: str) -> None:
    codec = codec_of(model)
    tokens, config = some_tokens(30), config_of(4, 1)
    stream = codec.decoder_stream(config)
    cold = said(stream, tokens)
    stream.prime(some_tokens(100, 1))
    warm = said(stream, tokens)
    stream.prime(None)
    first = stream.feed(tokens[:11])
    stream.prime(some_tokens(100, 1))
    np.testing.assert_array_equal(np.concatenate([first, stream.feed(tokens[11:]), stream.flush()]), cold)
    np.testing.assert_array_equal(said(stream, tokens), warm)


@every_model
@pytest.mark.parametrize("cut", [0, 3, 19])
def test_a_snapshot_carries_the_voice(model: str, cut: int) -> None:
    codec = codec_of(model)
    tokens, config = some_tokens(30), config_of(4, 1)
    first, second = codec.decoder_stream(config), codec.decoder_stream(config)
    first.prime(some_tokens(101, 1))
    expected = said(first, tokens)
    given = first.feed(tokens[:cut])
    second.feed(tokens)
    second.restore(first.snapshot())
    np.testing.assert_array_equal(np.concatenate([given, said(second, tokens[cut:])]), expected)
    np.testing.assert_array_equal(said(second, tokens), expected)
    second.restore(codec.decoder_stream(config).snapshot())
    np.testing.assert_array_equal(said(second, tokens), said(codec.decoder_stream(config), tokens))


def test_lost_tokens_at_the_start_are_filled_from_the_voice() -> None:
    stream, voice = codec_of("golden").decoder_stream(config_of(4, 1)), some_tokens(100, 1)
    tokens, lost = some_tokens(12), np.arange(12) < 2
    joined = stream.feed(np.concatenate([voice, tokens]), np.concatenate([np.zeros(100, bool), lost]))
    expected = np.concatenate([joined, stream.flush()])[48_000:]
    stream.prime(voice)
    np.testing.assert_array_equal(np.concatenate([stream.feed(tokens, lost), stream.flush()]), expected)


def test_a_voice_is_computed_once_per_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, steps = codec_of("golden"), []
    decoder = codec.decoder(config_of(4, 1))
    compute = decoder.compute
    monkeypatch.setattr(decoder, "compute", lambda *args: steps.append(1) or compute(*args))
    voice = codec.voice(some_tokens(100))
    for _ in range(3):
        codec.decoder_stream(config_of(4, 1)).prime(voice)
    assert len(steps) == 24


@pytest.mark.parametrize(("tokens", "says"), [([1] * 99, "99 tokens"), ([], "0 tokens"), ([70_000] * 200, "70000")])
def test_an_invalid_voice_is_refused_and_changes_nothing(tokens: object, says: str) -> None:
    stream = codec_of("golden").decoder_stream(config_of(4, 1))
    before = stream.snapshot()
    with pytest.raises(InputError, match=says):
        stream.prime(tokens)
    assert stream.snapshot() == before
    with pytest.raises(InputError, match=says):
        Voice(tokens)
