"""Voices in the engine: order of commands, `clear`, snapshots; and the real model compared with a stream."""

import numpy as np
import pytest
import torch

from neucodec_streaming.engine.engine import Engine, pools_of
from neucodec_streaming.engine.runner import MIN_RECENT_VOICES, Runner
from neucodec_streaming.errors import ConfigError
from neucodec_streaming.stream import Voice
from tests.streaming.engine.fake import CONFIG, POOLS, audio_of, speech, tokens_of
from tests.streaming.engine.test_engine import LEVELS, Bench
from tests.streaming.models import codec_of

VOICES = [np.arange(first, first + 100, dtype=np.uint16) for first in (0, 1000, 2000)]


def primed(bench: Bench, session: int, voice: np.ndarray | None) -> None:
    bench.engine.prime(session, voice, bench.now_s)


def voices_of(bench: Bench) -> list[int]:
    """First token of every voice."""
    return [voice[0] for _, voice in bench.runner.primed]


@pytest.mark.parametrize("kind", ["decode", "roundtrip"])
def test_a_voice_adds_no_output_to_its_session(kind):
    bench = Bench()
    session = bench.open(kind)
    primed(bench, session, VOICES[0])
    for _ in range(2):
        bench.feed(session, tokens_of(LEVELS) if kind == "decode" else speech(*LEVELS))
        bench.flush(session)
        bench.flush(session)  # an empty utterance
    bench.run()
    np.testing.assert_array_equal(bench.output(session), np.tile(audio_of(tokens_of(LEVELS)), 2))
    assert set(voices_of(bench)) == {0} and len(bench.ends(session)) == 4


def test_a_primed_session_that_speaks_at_real_time_is_live():
    bench = Bench()
    session = bench.open("decode")
    primed(bench, session, VOICES[0])
    for token in tokens_of(LEVELS):
        bench.feed(session, np.array([token]))
        bench.now_s += 0.02
        bench.step()
    assert bench.engine._sessions[session].is_live


@pytest.mark.parametrize("kind", ["decode", "roundtrip"])
def test_a_voice_takes_effect_at_the_end_of_the_current_utterance(kind):
    bench = Bench()
    session = bench.open(kind)
    data = tokens_of(LEVELS) if kind == "decode" else speech(*LEVELS)
    bench.feed(session, data)
    primed(bench, session, VOICES[0])
    bench.step()
    assert not bench.runner.primed
    bench.flush(session)
    bench.feed(session, data[:1])
    primed(bench, session, VOICES[1])
    bench.feed(session, data[1:])
    bench.flush(session)
    primed(bench, session, VOICES[2])  # between utterances
    bench.feed(session, data)
    bench.flush(session)
    bench.run()
    seen = voices_of(bench)
    assert sorted(set(seen)) == [0, 1000, 2000] and seen == sorted(seen)
    np.testing.assert_array_equal(bench.output(session), np.tile(audio_of(tokens_of(LEVELS)), 3))


@pytest.mark.parametrize("kind", ["decode", "roundtrip"])
def test_clear_ends_the_utterance_that_a_voice_waits_for(kind):
    bench = Bench()
    session = bench.open(kind)
    data = tokens_of(LEVELS) if kind == "decode" else speech(*LEVELS)
    bench.feed(session, data)
    bench.flush(session)
    bench.feed(session, data)
    primed(bench, session, VOICES[1])
    bench.engine.clear(session, bench.now_s)
    assert voices_of(bench) == [1000]
    primed(bench, session, None)
    bench.feed(session, data)
    bench.flush(session)
    bench.run()
    assert voices_of(bench) == [1000]
    np.testing.assert_array_equal(bench.output(session), audio_of(tokens_of(LEVELS)))


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_a_snapshot_contains_current_and_pending_voices(steps):
    before, after = Bench(), Bench()
    session, data = before.open("roundtrip"), speech(*LEVELS)
    primed(before, session, VOICES[0])
    before.feed(session, data)
    primed(before, session, VOICES[1])
    before.flush(session)
    before.feed(session, data)
    primed(before, session, VOICES[2])
    before.flush(session)
    before.feed(session, data)
    before.flush(session)
    for _ in range(steps):
        before.step()
    snapshot = before.engine.snapshot(session)
    restored = after.engine.restore("roundtrip", POOLS, snapshot, after.now_s)
    after.got[restored] = []
    after.run()
    got = [before.output(session), after.output(restored)]
    np.testing.assert_array_equal(
        np.concatenate([part for part in got if len(part)]), np.tile(audio_of(tokens_of(LEVELS)), 3)
    )
    assert voices_of(after)[-1] == 2000
    after.engine.clear(restored, after.now_s)
    assert voices_of(after)[-1] == 2000


def test_encode_sessions_refuse_voices_and_slots_are_clean_for_the_next_session():
    bench = Bench(slots=1)
    with pytest.raises(ConfigError, match="an encode session has no voice"):
        primed(bench, bench.open("encode"), VOICES[0])
    session = bench.open("decode")
    primed(bench, session, VOICES[0])
    bench.engine.close(session)
    bench.open("decode")
    assert ("decode", 0) in bench.runner.resets


def test_a_primed_session_equals_a_primed_stream():
    codec = codec_of("golden")
    pools = pools_of("decode", CONFIG)
    runner = Runner(codec, list(pools.values()), 2, (1,))
    runner.warm_up()
    runner.hold_voices([VOICES[0]])
    bench = Bench()
    bench.engine = Engine(runner)
    stream, tokens = codec.decoder_stream(CONFIG), VOICES[2][:33]
    for voice in (*VOICES[:2], None):
        session = bench.engine.open("decode", pools)
        bench.got[session] = []
        stream.prime(voice)
        bench.engine.prime(session, voice, bench.now_s)
        bench.feed(session, tokens)
        bench.flush(session)
        bench.run()
        bench.engine.close(session)
        np.testing.assert_allclose(
            bench.output(session), np.concatenate([stream.feed(tokens), stream.flush()]), atol=1e-4
        )


def test_voices_of_clients_are_kept_up_to_a_limit():
    codec = codec_of("golden")
    pool = pools_of("decode", CONFIG)["decode"]
    runner = Runner(codec, [pool], 1, (1,))
    runner.hold_voices([VOICES[0]])
    for first in range(MIN_RECENT_VOICES + 3):
        runner.prime(pool, 0, np.arange(first, first + 100, dtype=np.uint16))
    assert len(runner._recent_voices) == MIN_RECENT_VOICES and len(runner._held_voices) == 1


@pytest.mark.parametrize("kind", ["decode", "roundtrip"])
def test_input_waits_while_a_voice_is_computed_and_none_is_lost(kind):
    bench = Bench()
    bench.runner.voice_steps = 7
    session, data = bench.open(kind), tokens_of(LEVELS) if kind == "decode" else speech(*LEVELS)
    for voice in (VOICES[0], VOICES[1], None):
        primed(bench, session, voice)
        bench.feed(session, data)
        bench.flush(session)
    bench.run()
    assert voices_of(bench) and sorted(set(voices_of(bench))) == [0, 1000]
    np.testing.assert_array_equal(bench.output(session), np.tile(audio_of(tokens_of(LEVELS)), 3))
    assert len(bench.ends(session)) == 3


def test_other_sessions_are_stepped_between_the_steps_of_a_voice():
    bench = Bench()
    bench.runner.voice_steps = 100
    live, new = bench.open("decode"), bench.open("decode")
    primed(bench, new, VOICES[0])
    bench.feed(new, tokens_of(LEVELS))
    for token in tokens_of(LEVELS):
        bench.feed(live, np.array([token]))
        before = bench.runner.prepared[VOICES[0].tobytes()]
        bench.step()
        assert bench.runner.prepared[VOICES[0].tobytes()] - before <= 1
        bench.now_s += 0.02
    assert len(bench.output(live)) and not len(bench.output(new))
    bench.run()
    bench.flush(new)
    bench.run()
    np.testing.assert_array_equal(bench.output(new), audio_of(tokens_of(LEVELS)))


def test_a_busy_device_computes_one_step_of_a_voice_every_20_ms():
    bench = Bench(batch_sizes=(1,))
    bench.runner.voice_steps = 5
    for _ in range(3):
        bench.feed(bench.open("decode"), np.zeros(1000, np.uint16))
    new = bench.open("decode")
    primed(bench, new, VOICES[0])
    for steps in range(1, 6):
        for _ in range(10):
            bench.engine.step(bench.now_s)
        assert bench.runner.prepared[VOICES[0].tobytes()] == steps and len(bench.runner.steps) == 10 * steps
        bench.now_s += 0.021
    assert bench.runner.primed


@pytest.mark.parametrize("after", ["clear", "close", "prime", "restore"])
def test_the_computation_of_a_voice_can_be_cancelled(after):
    bench = Bench(slots=1)
    session = bench.open("decode")
    bench.feed(session, tokens_of(LEVELS))
    bench.flush(session)
    bench.run()
    bench.runner.voice_steps = 3
    primed(bench, session, VOICES[0])
    bench.feed(session, tokens_of(LEVELS))
    bench.step()
    assert not bench.engine.is_idle(session)
    if after == "clear":
        bench.engine.clear(session, bench.now_s)
    elif after == "restore":
        snapshot = bench.engine.snapshot(session)
        bench.engine.close(session)
        session = bench.engine.restore("decode", POOLS, snapshot, bench.now_s)
        bench.got[session] = []
    elif after == "prime":
        primed(bench, session, None)
        bench.flush(session)
        bench.run()
        assert len(bench.output(session)) == 2 * len(audio_of(tokens_of(LEVELS)))
        return
    else:
        bench.engine.close(session)
        session = bench.open("decode")
        assert bench.runner.resets  # the slot had an owner before
    bench.got[session] = []
    if after != "restore":
        bench.feed(session, tokens_of(LEVELS))
    bench.flush(session)
    bench.run()
    np.testing.assert_array_equal(bench.output(session), audio_of(tokens_of(LEVELS)))
    assert bool(bench.runner.primed) is (after != "close")


def test_a_voice_computed_in_steps_equals_one_computed_at_once():
    decoder = codec_of("golden").decoder(CONFIG)
    one, other = Voice(VOICES[0]), Voice(VOICES[0])
    steps = 0
    while not one.prepare(decoder, 1):
        steps += 1
    assert steps > 10 and not other.prepare(decoder, 0)
    for part, same in zip(one.start(decoder).state, other.start(decoder).state, strict=True):
        assert torch.equal(part, same)
