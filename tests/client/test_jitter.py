"""The jitter buffer: what goes in comes out once and in order, breaks are faded and counted, clear is quick."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from client.jitter import Flow, JitterBuffer

FADE = 10


def steady(samples: int) -> np.ndarray:
    return np.full(samples, 0.5, np.float32)


def test_silence_until_the_prefill_lies_ready():
    jitter = JitterBuffer(prefill_samples=300, fade_samples=FADE)
    jitter.push(steady(299))
    assert not jitter.pull(100).any()
    jitter.push(steady(1))
    assert jitter.pull(100)[FADE:].tolist() == [0.5] * 90


def test_finish_plays_a_short_rest_without_a_prefill_and_without_an_underrun():
    jitter = JitterBuffer(prefill_samples=300, fade_samples=FADE)
    jitter.push(steady(150))
    jitter.finish()
    assert np.count_nonzero(jitter.pull(100)) == 100
    assert np.count_nonzero(jitter.pull(100)) == 50
    assert (jitter.underruns, jitter.played_samples, jitter.buffered_samples) == (0, 150, 0)


def test_an_underrun_is_counted_fades_out_and_fills_again():
    jitter = JitterBuffer(prefill_samples=200, fade_samples=FADE)
    jitter.push(steady(250))
    first, second, third = jitter.pull(100), jitter.pull(100), jitter.pull(100)
    assert jitter.underruns == 1
    assert jitter.flow is Flow.FILLING
    joined = np.concatenate([first, second, third])
    assert np.abs(np.diff(joined)).max() <= 0.5 / FADE
    jitter.push(steady(100))
    assert not jitter.pull(100).any()
    jitter.push(steady(100))
    assert jitter.pull(100).any()


def test_no_step_is_larger_than_a_fade_allows_through_breaks_and_clears():
    random = np.random.default_rng(0)
    jitter = JitterBuffer(prefill_samples=100, fade_samples=FADE)
    output = []
    for _ in range(2000):
        move = random.integers(0, 10)
        if move < 4:
            jitter.push(steady(random.integers(0, 80)))
        elif move < 5:
            jitter.clear()
        else:
            output.append(jitter.pull(int(random.integers(1, 60))))
    assert jitter.underruns > 20
    assert np.abs(np.diff(np.concatenate(output))).max() <= 0.5 / FADE + 1e-6


def test_clear_is_silent_after_one_fade_and_says_what_it_dropped():
    jitter = JitterBuffer(prefill_samples=100, fade_samples=FADE)
    jitter.push(steady(1000))
    jitter.pull(100)
    jitter.clear()
    assert np.flatnonzero(jitter.pull(100)).max(initial=0) < FADE
    assert not jitter.pull(100).any()
    assert jitter.played_samples + jitter.dropped_samples == 1000
    assert jitter.underruns == 0


def test_clear_before_playback_drops_everything():
    jitter = JitterBuffer(prefill_samples=100, fade_samples=FADE)
    jitter.push(steady(50))
    jitter.clear()
    assert not jitter.pull(100).any()
    assert jitter.dropped_samples == 50


@settings(max_examples=60, deadline=None, derandomize=True)
@given(moves=st.lists(st.tuples(st.booleans(), st.integers(0, 70)), max_size=60))
def test_every_sample_comes_out_once_and_in_order(moves):
    jitter = JitterBuffer(prefill_samples=40, fade_samples=0)
    pushed, heard = 0, []
    for push, count in moves:
        if push:
            jitter.push(np.arange(pushed + 1, pushed + count + 1, dtype=np.float32))
            pushed += count
        else:
            heard.append(jitter.pull(count))
        assert jitter.played_samples + jitter.buffered_samples == pushed
    jitter.finish()
    heard.append(jitter.pull(pushed + 1))
    played = np.concatenate(heard)
    assert played[played > 0].tolist() == list(range(1, pushed + 1))
