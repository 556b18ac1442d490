"""The jitter buffer: samples in order, later starts after late chunks and sooner ones in calm, and no clicks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.jitter import BUFFERS, SPEECH, simulate
from neucodec_streaming.client import jitter as constants
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.client.jitter import Flow, JitterBuffer
from neucodec_streaming.config import OUTPUT_RATE

RATE = 1000
"""One sample is a millisecond."""
CHUNK = 100
BLOCK = 10
FADE = RATE * constants.FADE_MS // 1000
MARGIN = constants.MIN_MARGIN_MS
WINDOW = constants.WINDOW_SECONDS * RATE // CHUNK
FIRST = constants.FIRST_TARGET_MS


def buffer(live: bool = False) -> JitterBuffer:
    return JitterBuffer(RATE, CHUNK, live)


def steady(samples: int) -> np.ndarray:
    return np.full(samples, 0.5, np.float32)


def talk(jitter: JitterBuffer, arrivals: list[int], audio: np.ndarray) -> np.ndarray:
    """Played audio of an utterance whose chunks arrive at these ms."""
    heard = []
    pending = list(zip(arrivals, (audio[start : start + CHUNK] for start in range(0, audio.size, CHUNK)), strict=True))
    clock = 0
    while pending or jitter.flow is not Flow.IDLE:
        while pending and pending[0][0] <= clock:
            jitter.push(pending.pop(0)[1])
            if not pending:
                jitter.finish()
        heard.append(jitter.pull(BLOCK))
        clock += BLOCK
    return np.concatenate(heard)


def calm(chunks: int, late: dict[int, int] | None = None) -> list[int]:
    """Arrivals at the pace of speech, some delayed by a random time and none out of order."""
    return np.maximum.accumulate([number * CHUNK + (late or {}).get(number, 0) for number in range(chunks)]).tolist()


def began(heard: np.ndarray) -> int:
    return int(np.flatnonzero(heard)[0])


def test_a_sender_at_the_pace_of_speech_is_played_after_the_first_target():
    jitter = buffer()
    assert began(talk(jitter, calm(5), steady(500))) == FIRST
    assert jitter.underruns == 0


def test_a_burst_is_played_at_once_and_does_not_count_as_jitter():
    jitter = buffer()
    heard = talk(jitter, [0] * 10 + [400] * 10 + [800] * 10, steady(3000))
    assert heard[FADE : 3000 - FADE].tolist() == [0.5] * (3000 - 2 * FADE)
    assert jitter.underruns == 0
    assert jitter.target_samples == FIRST


def test_playback_starts_later_after_a_late_chunk_and_recovers_over_time():
    jitter = buffer()
    talk(jitter, calm(10, {5: 250}), steady(1000))
    assert jitter.underruns == 1
    assert began(talk(jitter, calm(WINDOW), steady(WINDOW * CHUNK))) == 250 + 2 * MARGIN
    talk(jitter, calm(WINDOW), steady(WINDOW * CHUNK))
    assert began(talk(jitter, calm(2), steady(200))) == MARGIN
    assert jitter.underruns == 1


def test_an_underrun_doubles_the_margin_and_the_same_lateness_causes_no_other():
    jitter = buffer()
    heard = talk(jitter, calm(60, dict.fromkeys(range(3, 60, 7), 150)), steady(6000))
    again = 300 + 150 + 2 * MARGIN
    assert jitter.underruns == 1
    assert not heard[FIRST + 300 : again].any() and heard[again : again + 5700].all()


def test_the_margin_is_bounded_and_decays():
    jitter = buffer()
    talk(jitter, [number * 400 for number in range(10)], steady(1000))
    assert jitter.underruns > 2
    assert jitter.target_samples == constants.MAX_TARGET_MS
    for _ in range(6):
        talk(jitter, calm(WINDOW), steady(WINDOW * CHUNK))
    assert jitter.target_samples == MARGIN


def speechlike(seconds: int) -> np.ndarray:
    """0.7 s of noise and 0.3 s of near silence, repeated."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, seconds * RATE).astype(np.float32)
    return noise * np.where(np.arange(seconds * RATE) % 1000 < 700, 1, 1e-3).astype(np.float32)


def delays(jitter: JitterBuffer, arrivals: list[int], audio: np.ndarray) -> np.ndarray:
    pending = list(zip(arrivals, np.split(audio, len(arrivals)), strict=True))
    found = []
    for clock in range(0, arrivals[-1], BLOCK):
        while pending and pending[0][0] <= clock:
            jitter.push(pending.pop(0)[1])
        jitter.pull(BLOCK)
        found.append(clock + BLOCK - jitter.position)
    return np.array(found)


@pytest.mark.parametrize("stall_ms", [200, 450, 800, 1600, 5000])
def test_a_live_source_is_live_again_within_ten_seconds_of_a_stall(stall_ms):
    jitter = buffer(live=True)
    arrivals = [arrival if not 10_000 < arrival < 10_000 + stall_ms else 10_000 + stall_ms for arrival in calm(600)]
    delay = delays(jitter, arrivals, speechlike(60))
    normal = delay[900:1000].max() + jitter._time_scale.longest_lag  # shorter than one cut, so it is left unchanged
    assert delay[(10_000 + stall_ms) // BLOCK + 1000 :].max() <= normal
    assert jitter.underruns == 1
    assert jitter.skips == (stall_ms > constants.MAX_BEHIND_MS)
    assert sum(splice.samples for splice in jitter.splices) == jitter.skipped_samples


def test_a_clear_ends_a_skip_and_the_next_utterance_is_whole():
    jitter = buffer(live=True)
    jitter.push(steady(CHUNK))
    jitter.pull(900)
    jitter.push(steady(CHUNK))
    jitter.pull(BLOCK)
    assert jitter.skips == 1
    jitter.clear()
    skipped = jitter.skipped_samples
    talk(jitter, calm(5), steady(500))
    assert jitter.skipped_samples == skipped


def test_the_late_end_of_an_utterance_is_played_and_not_skipped():
    jitter = buffer(live=True)
    jitter.push(steady(CHUNK))
    jitter.pull(900)
    jitter.push(steady(CHUNK))
    jitter.finish()
    assert np.count_nonzero(jitter.pull(2 * CHUNK)) > CHUNK // 2
    assert jitter.flow is Flow.IDLE


def test_compression_removes_at_most_a_tenth():
    jitter = buffer(live=True)
    arrivals = calm(600, {20: 450})
    positions = np.array(range(BLOCK, arrivals[-1] + BLOCK, BLOCK)) - delays(jitter, arrivals, speechlike(60))
    second = 1000 // BLOCK
    advance = positions[second:] - positions[:-second]
    assert advance.max() <= 1000 * 1.1 + jitter._time_scale.longest_lag + BLOCK


def test_a_live_source_that_stays_late_is_played_late_and_not_dropped():
    jitter = buffer(live=True)
    arrivals = [arrival + (800 if arrival > 5000 else 0) for arrival in calm(300)]
    heard = talk(jitter, arrivals, speechlike(30))
    assert jitter.skipped_samples <= 4 * CHUNK
    assert heard.size >= 30_000


def test_a_burst_is_skipped_without_a_click_while_its_end_is_in_flight():
    jitter = buffer(live=True)
    audio, heard = steady(6000), []
    for start in range(0, 1000, CHUNK):
        jitter.push(audio[start : start + CHUNK])
        heard.append(jitter.pull(CHUNK))
    heard.append(jitter.pull(2000))
    for start in range(1000, 3000, CHUNK):  # one by one
        jitter.push(audio[start : start + CHUNK])
        heard.append(jitter.pull(BLOCK))
    jitter.push(audio[:CHUNK])
    heard.append(jitter.pull(CHUNK))
    assert np.abs(np.diff(np.concatenate(heard))).max() <= 0.5 / FADE + 1e-6
    assert jitter.delay_samples <= jitter.target_samples + CHUNK


def test_the_sizes_of_pulls_do_not_change_the_splices():
    audio = speechlike(5)
    heard, splices = [], []
    for seed in range(3):
        jitter, random = buffer(live=True), np.random.default_rng(seed)
        jitter.pull(300)  # the first chunk is on its way
        jitter._finished = False
        jitter._lag = 300
        jitter.push(audio)
        parts = []
        while sum(map(len, parts)) < 4000:
            parts.append(jitter.pull(int(random.integers(1, 100)) if seed else BLOCK))
        heard.append(np.concatenate(parts)[:4000])
        splices.append(list(jitter.splices)[:10])
    assert len(splices[0]) == 10
    assert splices[0] == splices[1] == splices[2]
    assert np.array_equal(heard[0], heard[1]) and np.array_equal(heard[0], heard[2])


def test_nothing_is_skipped_in_a_source_that_is_not_live():
    jitter = buffer()
    talk(jitter, calm(600, {20: 500}), speechlike(60))
    assert jitter.skipped_samples == 0
    assert jitter.played_samples == 60_000


def test_playback_catches_up_with_a_live_source_after_a_late_first_chunk():
    jitter = buffer(live=True)
    arrivals = [max(300, moment) for moment in calm(600)]
    heard = talk(jitter, arrivals, speechlike(60))
    assert jitter.underruns == 0
    assert heard.size <= 60_000 + MARGIN + BLOCK + jitter._time_scale.longest_lag


def test_finish_plays_a_short_remainder_without_waiting_and_without_an_underrun():
    jitter = buffer()
    jitter.push(steady(50))
    jitter.finish()
    assert np.count_nonzero(jitter.pull(100)) == 50
    assert (jitter.underruns, jitter.played_samples, jitter.buffered_samples) == (0, 50, 0)
    assert jitter.flow is Flow.IDLE


def test_a_pause_between_utterances_is_neither_late_nor_an_underrun():
    jitter = buffer()
    talk(jitter, calm(3), steady(300))
    jitter.pull(5000)
    assert began(talk(jitter, calm(3), steady(300))) == FIRST
    assert jitter.underruns == 0


def test_a_source_silent_for_too_long_starts_a_new_time_line():
    jitter = buffer()
    heard = talk(jitter, [0, 100, 200, 5000, 5100, 5200], steady(600))
    assert jitter.underruns == 1
    assert not heard[FIRST + 300 : 5000].any()
    assert jitter.target_samples == FIRST + MARGIN  # the margin has doubled


def test_a_queued_utterance_follows_the_current_one_without_a_seam():
    jitter = buffer()
    for _ in range(2):
        jitter.push(steady(100))
        jitter.finish()
    heard = jitter.pull(200)
    assert heard[FADE : 200 - FADE].tolist() == [0.5] * (200 - 2 * FADE)


def test_underruns_clears_and_skips_are_faded_without_clicks():
    random = np.random.default_rng(0)
    jitter = buffer(live=True)
    output = []
    for _ in range(5000):
        move = random.integers(0, 40)
        if move < 12:
            jitter.push(steady(int(random.integers(1, 80))))
        elif move < 13:
            jitter.clear()
        elif move < 14:
            jitter.finish()
        else:
            output.append(jitter.pull(int(random.integers(1, 60))))
    assert jitter.underruns > 20
    assert jitter.dropped_samples > 1000
    heard = np.concatenate(output)
    assert heard.max() <= 0.5 + 1e-6
    assert np.abs(np.diff(heard)).max() <= 0.5 / FADE + 1e-6


def test_clear_fades_out_and_reports_dropped_and_played_samples():
    jitter = buffer()
    jitter.push(steady(1000))
    jitter.pull(100)
    jitter.clear()
    assert np.flatnonzero(jitter.pull(100)).max(initial=0) < FADE
    assert not jitter.pull(100).any()
    assert jitter.position == jitter.played_samples
    assert 100 <= jitter.position <= 100 + FADE
    assert jitter.played_samples + jitter.dropped_samples == 1000
    assert jitter.underruns == 0


def test_clear_before_playback_drops_everything():
    jitter = buffer()
    jitter.push(steady(50))
    jitter.clear()
    assert not jitter.pull(100).any()
    assert (jitter.dropped_samples, jitter.position) == (50, 0)


def test_positions_continue_after_the_samples_that_a_clear_dropped():
    jitter = buffer()
    jitter.push(steady(1000))
    jitter.pull(100)
    jitter.clear()
    assert jitter.position < 200
    jitter.push(steady(300))
    jitter.pull(FADE + 50)
    assert jitter.position >= 1050
    assert jitter.position == 1000 + 300 - jitter.buffered_samples


def test_chunks_of_40_ms_start_sooner_in_a_burst():
    jitter = JitterBuffer(RATE, 40)
    jitter.push(steady(40))
    assert not jitter.pull(BLOCK).any()
    jitter.push(steady(FIRST))
    assert jitter.pull(BLOCK).any()


MOVES = ("push", "pull", "pull", "clear", "finish")


@pytest.mark.parametrize("live", [False, True])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 1200)), max_size=80))
def test_every_sample_is_played_once_and_in_order_or_counted(live, moves):
    jitter = JitterBuffer(RATE, CHUNK, live)
    pushed = 0
    positions = [0]
    for move, count in moves:
        if move == "push":
            jitter.push(np.zeros(count, np.float32))
            pushed += count
        elif move == "pull":
            before = jitter.position, jitter.played_samples, jitter.skipped_samples
            assert jitter.pull(count).size == count
            if jitter.position != before[0]:
                moved = jitter.played_samples + jitter.skipped_samples - before[1] - before[2]
                assert jitter.position == pushed - jitter.buffered_samples
                assert moved <= jitter.position - before[0]
        else:
            getattr(jitter, move)()
        positions.append(jitter.position)
        gone = jitter.played_samples + jitter.skipped_samples + jitter.dropped_samples
        assert gone + jitter.buffered_samples == pushed
    assert all(earlier <= later for earlier, later in pairwise(positions))
    assert live or jitter.skipped_samples == 0


def test_the_sizes_of_pulls_do_not_change_the_audio():
    audio = speechlike(3)
    whole, cut = buffer(), buffer()
    for jitter in (whole, cut):
        jitter.push(audio)
        jitter.finish()
    random = np.random.default_rng(1)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < 3000:
        parts.append(cut.pull(int(random.integers(1, 100))))
    heard = np.concatenate(parts)[:3000]
    assert np.allclose(heard[FADE:-FADE], whole.pull(3000)[FADE:-FADE])
    assert np.array_equal(heard[FADE:-FADE], audio[FADE:-FADE])


def test_it_has_fewer_underruns_than_a_fixed_delay_on_stalls_and_less_delay_in_calm():
    def run(name: str, network: str) -> dict[str, float]:
        return simulate(BUFFERS[name](True), "live", network, 30, 0, read_audio(SPEECH, OUTPUT_RATE))

    assert 4 * run("adaptive", "5 % stalls")["underruns"] < run("fixed", "5 % stalls")["underruns"]
    for network in ("steady", "jitter 50 ms"):
        added = {name: run(name, network)["added_ms"] for name in BUFFERS}
        assert added["adaptive"] < min(added["fixed"], added["refilling"])
