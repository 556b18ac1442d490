"""The engine over a fake runner, with a virtual clock."""

import random

import numpy as np
import pytest

from neucodec_streaming.engine.engine import Engine
from neucodec_streaming.engine.results import Failed, FlushFinished, Output
from neucodec_streaming.errors import CapacityError, ConfigError, DeviceError, SnapshotError
from tests.streaming.engine.fake import POOLS, FakeRunner, audio_of, speech, tokens_of


class Bench:
    """An engine, its clock, and the output of each session: lists of arrays and "end"."""

    def __init__(self, **runner) -> None:
        self.runner = FakeRunner(**runner)
        self.engine = Engine(self.runner)
        self.now_s = 100.0
        self.got: dict[int, list] = {}
        self.failed: dict[int, Exception] = {}
        self.batches = 0

    def open(self, kind: str) -> int:
        session = self.engine.open(kind, POOLS)
        self.got[session] = []
        return session

    def feed(self, session: int, data: np.ndarray) -> None:
        self.engine.feed(session, data, self.now_s)

    def flush(self, session: int) -> None:
        self.engine.flush(session, self.now_s)

    def step(self) -> bool:
        wake_s = self.engine.wake_s()
        if wake_s is None:
            return False
        self.now_s = max(self.now_s, wake_s)
        for result in self.engine.step(self.now_s):
            if isinstance(result, Output):
                self.got[result.session].append(result.data)
            elif isinstance(result, FlushFinished):
                self.got[result.session].append("end")
            else:
                assert isinstance(result, Failed)
                self.failed[result.session] = result.error
        return True

    def run(self) -> None:
        while self.step():
            pass

    def ends(self, session: int) -> list[int]:
        return [place for place, part in enumerate(self.got[session]) if isinstance(part, str)]

    def output(self, session: int) -> np.ndarray:
        parts = [part for part in self.got[session] if not isinstance(part, str)]
        return np.concatenate(parts) if parts else np.zeros(0)


LEVELS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6]


@pytest.mark.parametrize(
    ("kind", "data", "wanted"),
    [
        ("encode", speech(*LEVELS), tokens_of(LEVELS)),
        ("decode", tokens_of(LEVELS), audio_of(tokens_of(LEVELS))),
        ("roundtrip", speech(*LEVELS), audio_of(tokens_of(LEVELS))),
    ],
)
def test_a_session_gets_all_its_output_for_any_packet_sizes(kind, data, wanted):
    for seed in range(5):
        rng = random.Random(seed)
        bench = Bench()
        session = bench.open(kind)
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(30)))
        for packet in np.split(data, cuts):
            bench.feed(session, packet)
            if rng.random() < 0.5:
                bench.run()
        bench.flush(session)
        bench.run()
        assert bench.ends(session) == [len(bench.got[session]) - 1]
        np.testing.assert_array_equal(bench.output(session), wanted)


@pytest.mark.parametrize("kind", ["encode", "roundtrip"])
def test_less_than_a_frame_gives_no_output_and_no_error(kind):
    bench = Bench()
    session = bench.open(kind)
    bench.feed(session, speech(1)[:319])
    bench.flush(session)
    bench.run()
    assert bench.got[session] == ["end"] and not bench.runner.steps


def test_every_flush_is_answered_once_and_in_order():
    bench = Bench()
    session = bench.open("roundtrip")
    for number in range(3):
        bench.feed(session, speech(*[number + 1] * 12))
        bench.flush(session)
    bench.flush(session)
    bench.run()
    got, ends = bench.got[session], bench.ends(session)
    assert len(ends) == 4 and ends[-2:] == [len(got) - 2, len(got) - 1]
    utterances = [audio_of(tokens_of([number + 1] * 12)) for number in range(3)]
    np.testing.assert_array_equal(bench.output(session), np.concatenate(utterances))
    assert sum(len(part) for part in got[: ends[0]]) == 12 * 480


def test_a_flushed_stream_is_reset():
    bench = Bench()
    session = bench.open("encode")
    for _ in range(2):
        bench.feed(session, speech(*LEVELS))
        bench.flush(session)
        bench.run()
    np.testing.assert_array_equal(bench.output(session), np.tile(tokens_of(LEVELS), 2))


def test_a_clear_drops_the_utterance_and_resets_the_stream():
    bench = Bench()
    session = bench.open("roundtrip")
    bench.feed(session, speech(*LEVELS))
    bench.step()
    bench.feed(session, speech(*LEVELS))
    bench.flush(session)
    bench.feed(session, speech(*LEVELS))
    bench.engine.clear(session, bench.now_s)
    bench.run()
    assert all(len(part) for part in bench.got[session])
    bench.got[session].clear()
    bench.feed(session, speech(*LEVELS))
    bench.flush(session)
    bench.run()
    np.testing.assert_array_equal(bench.output(session), audio_of(tokens_of(LEVELS)))


def test_results_carry_the_number_of_clears():
    bench = Bench()
    session = bench.open("encode")
    for epoch in range(3):
        bench.engine.feed(session, speech(*LEVELS), 100.0)
        bench.engine.flush(session, 100.0)
        results = []
        while bench.engine.wake_s() is not None:
            results += bench.engine.step(200.0)
        assert {result.epoch for result in results} == {epoch}
        bench.engine.clear(session, bench.now_s)


def test_sessions_stepped_together_get_the_output_that_each_gets_alone():
    rng = random.Random(1)
    bench = Bench()
    kinds = {bench.open(kind): kind for kind in ("encode", "decode", "roundtrip", "encode", "roundtrip")}
    levels = {session: [rng.randrange(256) for _ in range(rng.randrange(1, 60))] for session in kinds}
    waiting = {
        session: np.array_split(tokens_of(levels[session]) if kind == "decode" else speech(*levels[session]), 20)
        for session, kind in kinds.items()
    }
    while any(waiting.values()):
        session = rng.choice([session for session in waiting if waiting[session]])
        bench.feed(session, waiting[session].pop(0))
        if not waiting[session]:
            bench.flush(session)
        if rng.random() < 0.3:
            bench.step()
    bench.run()
    for session, kind in kinds.items():
        tokens = tokens_of(levels[session])
        np.testing.assert_array_equal(bench.output(session), tokens if kind == "encode" else audio_of(tokens))
    assert max(len(slots) for _, slots, _ in bench.runner.steps) > 1


def test_a_burst_has_one_window_in_a_batch_and_never_goes_before_a_live_session():
    bench = Bench(batch_sizes=(1,))
    burst, live = bench.open("decode"), bench.open("decode")
    bench.feed(burst, np.zeros(5000, np.uint16))
    for _ in range(5):
        bench.step()
    bench.now_s += 0.005
    bench.feed(live, np.zeros(10, np.uint16))
    bench.now_s += 0.005
    bench.step()
    assert len(bench.got[live]) == 1, "the live window was taken at the next step"
    assert len(bench.got[burst]) == 5


def test_a_full_engine_refuses_and_a_closed_session_makes_room():
    bench = Bench(slots=2)
    first, _ = bench.open("roundtrip"), bench.open("encode")
    with pytest.raises(CapacityError):
        bench.open("roundtrip")
    bench.open("decode")  # the refused session has released its slots
    bench.engine.close(first)
    bench.open("encode")
    assert bench.engine.sessions == 3


def test_an_unknown_kind_or_pool_is_refused():
    bench = Bench(pools=[POOLS["encode"]])
    with pytest.raises(ConfigError, match="sing"):
        bench.open("sing")
    with pytest.raises(ConfigError, match="decode"):
        bench.open("roundtrip")


def test_a_reused_slot_equals_a_new_one():
    bench = Bench(slots=1)
    for _ in range(2):
        session = bench.open("encode")
        bench.feed(session, speech(*LEVELS))
        bench.run()
        bench.feed(session, speech(*LEVELS[:7]))  # still buffered when the session closes
        bench.engine.close(session)
        np.testing.assert_array_equal(bench.output(session), tokens_of(LEVELS)[: len(bench.output(session))])


def test_a_paused_session_keeps_its_input_and_is_not_stepped():
    bench = Bench()
    session = bench.open("roundtrip")
    bench.engine.pause(session)
    bench.feed(session, speech(*LEVELS))
    bench.flush(session)
    bench.run()
    assert bench.got[session] == [] and not bench.runner.steps
    bench.engine.resume(session, bench.now_s)
    bench.run()
    np.testing.assert_array_equal(bench.output(session), audio_of(tokens_of(LEVELS)))


def test_a_failed_step_ends_only_its_own_sessions():
    bench = Bench()
    hit, spared = bench.open("encode"), bench.open("decode")
    bench.feed(hit, speech(*LEVELS))
    bench.runner.broken = RuntimeError("out of memory")
    bench.run()
    bench.runner.broken = None
    assert isinstance(bench.failed[hit], DeviceError) and list(bench.failed) == [hit]
    bench.feed(spared, tokens_of(LEVELS))
    bench.flush(spared)
    bench.run()
    np.testing.assert_array_equal(bench.output(spared), audio_of(tokens_of(LEVELS)))
    assert bench.engine.sessions == 1


def test_a_slot_whose_reset_failed_is_reset_before_it_is_reused():
    bench = Bench(slots=1)
    session = bench.open("encode")
    bench.feed(session, speech(*LEVELS))
    bench.run()
    bench.engine.close(session)
    bench.runner.broken = RuntimeError("gone")
    with pytest.raises(RuntimeError):
        bench.open("roundtrip")
    bench.runner.broken = None
    session = bench.open("roundtrip")
    bench.feed(session, speech(*LEVELS))
    bench.flush(session)
    bench.run()
    np.testing.assert_array_equal(bench.output(session), audio_of(tokens_of(LEVELS)))


def test_a_stream_that_was_never_stepped_is_not_reset():
    bench = Bench()
    session = bench.open("encode")
    bench.feed(session, speech(1))
    for _ in range(3):
        bench.engine.clear(session, bench.now_s)
    bench.engine.close(session)
    bench.open("encode")
    assert not bench.runner.resets


def test_lateness_is_counted_from_the_deadline_of_the_chunk():
    bench = Bench()
    session = bench.open("decode")
    bench.engine.feed(session, np.zeros(10, np.uint16), 100.0)
    (result,) = bench.engine.step(100.05)
    assert result.behind_ms == 0
    bench.engine.feed(session, np.zeros(5, np.uint16), 100.1)
    (result,) = bench.engine.step(100.25)
    assert result.behind_ms == pytest.approx(50)


@pytest.mark.parametrize("kind", ["encode", "decode", "roundtrip"])
def test_a_snapshot_taken_at_any_moment_continues_elsewhere_with_the_same_bits(kind):
    utterances = [[rng.randrange(256) for _ in range(rng.randrange(1, 40))] for rng in map(random.Random, range(3))]
    data = [tokens_of(levels) if kind == "decode" else speech(*levels) for levels in utterances]
    tokens = np.concatenate([tokens_of(levels) for levels in utterances])
    wanted = tokens if kind == "encode" else audio_of(tokens)
    for seed in range(10):
        rng = random.Random(seed)
        before, after = Bench(), Bench()
        session = before.open(kind)
        commands = [part for whole in data for part in [*np.array_split(whole, 7), None]]
        cut = rng.randrange(len(commands))
        for command in commands[:cut]:
            before.flush(session) if command is None else before.feed(session, command)
            if rng.random() < 0.3:
                before.step()
        snapshot = before.engine.snapshot(session)
        after.open("decode")  # so that the slot numbers differ
        restored = after.engine.restore(kind, POOLS, snapshot, after.now_s)
        after.got[restored] = []
        for result in before.engine.step(float("-inf")):  # the pending input belonged to the old session
            before.got[session].append(result.data if isinstance(result, Output) else "end")
        for command in commands[cut:]:
            after.flush(restored) if command is None else after.feed(restored, command)
        after.run()
        got = [before.output(session), after.output(restored)]
        np.testing.assert_array_equal(np.concatenate([part for part in got if len(part)]), wanted)
        assert len(before.ends(session)) + len(after.ends(restored)) == 3


def test_an_incompatible_snapshot_opens_no_session():
    bench = Bench(slots=1)
    encode = bench.open("encode")
    bench.feed(encode, speech(*LEVELS))
    snapshot = bench.engine.snapshot(encode)
    for kind, bad in (("decode", snapshot), ("decode", snapshot[:-1]), ("decode", b"")):
        with pytest.raises(SnapshotError):
            bench.engine.restore(kind, POOLS, bad, 0.0)
        assert bench.engine.sessions == 1
    bench.open("decode")


def test_overload_delays_sessions_evenly_and_closes_the_newest():
    """Each of four sessions needs a step of 40 ms per chunk of 100 ms, so two can be served in time."""
    bench = Bench(batch_sizes=(1,))
    sessions = [bench.open("decode") for _ in range(4)]
    lateness: dict[int, list[float]] = {session: [] for session in sessions}
    failed: dict[int, float] = {}
    now_s, fed = 100.0, 0
    while now_s < 120.0:
        while fed * 0.1 <= now_s - 100.0:
            for session in set(sessions) - set(failed):
                bench.engine.feed(session, np.zeros(5, np.uint16), 100.0 + fed * 0.1)
            fed += 1
        for result in bench.engine.step(now_s):
            if isinstance(result, Output):
                lateness[result.session].append(result.behind_ms)
            elif isinstance(result, Failed):
                assert isinstance(result.error, CapacityError) and "overloaded" in str(result.error)
                failed[result.session] = now_s
        now_s += 0.04
    assert list(failed) == sessions[:1:-1], "the newest first, and no more than is needed"
    before = [values[:20] for values in lateness.values()]
    assert max(abs(a[-1] - b[-1]) for a in before for b in before) < 250, (
        "as late as each other, but for a step of each"
    )
    assert all(lateness[session][-1] < 100 for session in sessions[:2]), "the rest are in time again"


def _drive(bench: Bench, live: list[int], step_s: float, until_s: float) -> tuple[dict[int, list[float]], list[int]]:
    """Each live session gets a chunk every 100 ms; a step takes `step_s`. Returns lateness and the failed sessions."""
    lateness: dict[int, list[float]] = {}
    failed: list[int] = []
    now_s, fed = 100.0, 0
    while now_s < until_s:
        while fed * 0.1 <= now_s - 100.0:
            for session in set(live) - set(failed):
                bench.engine.feed(session, np.zeros(5, np.uint16), 100.0 + fed * 0.1)
            fed += 1
        for result in bench.engine.step(now_s):
            if isinstance(result, Output):
                lateness.setdefault(result.session, []).append(result.behind_ms)
            elif isinstance(result, Failed):
                failed.append(result.session)
        now_s += step_s
    return lateness, failed


def test_a_file_on_a_machine_too_slow_for_real_time_is_not_closed_for_overload():
    bench = Bench(batch_sizes=(1,))
    session = bench.open("decode")
    bench.engine.feed(session, np.zeros(1000, np.uint16), 100.0)
    lateness, failed = _drive(bench, [], 0.3, 160.0)
    assert not failed and len(lateness[session]) == 199 and max(lateness[session]) < 1e-6


def test_a_single_live_session_is_not_closed_for_overload():
    bench = Bench(batch_sizes=(1,))
    session, file = bench.open("decode"), bench.open("decode")
    bench.engine.feed(file, np.zeros(1000, np.uint16), 100.0)
    _, failed = _drive(bench, [session], 0.3, 130.0)
    assert not failed


def test_a_file_only_uses_capacity_that_live_sessions_leave():
    """Two live sessions need 80 of 100 ms; an earlier file of 20 s gets the rest."""
    bench = Bench(batch_sizes=(1,))
    file, *live = (bench.open("decode") for _ in range(3))
    bench.engine.feed(file, np.zeros(1000, np.uint16), 100.0)
    lateness, failed = _drive(bench, live, 0.04, 120.0)
    assert not failed
    assert max(max(lateness[session]) for session in live) <= 100
    assert len(lateness[file]) > 50


def test_a_paused_session_is_not_late():
    bench = Bench()
    session, other = bench.open("decode"), bench.open("decode")
    bench.feed(session, np.zeros(100, np.uint16))
    bench.engine.pause(session)
    bench.now_s += 60.0
    bench.engine.resume(session, bench.now_s)
    (result,) = bench.engine.step(bench.now_s + 0.01)
    assert isinstance(result, Output) and result.behind_ms == 0
    bench.run()
    assert not bench.failed and bench.engine.sessions == 2
    bench.engine.close(other)


def test_repeated_clears_do_not_overtake_a_live_session():
    """A session that flushes and clears at every turn competes with a live one; a step takes 40 ms."""
    bench = Bench(batch_sizes=(1,))
    live, other = bench.open("decode"), bench.open("decode")
    begin_s = now_s = bench.now_s
    fed_s: list[float] = []
    waited_s: list[float] = []
    late_ms: list[float] = []
    while now_s < begin_s + 20.0:
        bench.engine.feed(other, np.zeros(12, np.uint16), now_s)
        bench.engine.flush(other, now_s)
        if now_s >= begin_s + 0.1 * len(fed_s):
            bench.engine.feed(live, np.zeros(5, np.uint16), now_s)
            fed_s.append(now_s)
        for result in bench.engine.step(now_s):
            if isinstance(result, Output) and result.session == live:
                late_ms.append(result.behind_ms)
                waited_s.append(now_s - fed_s[-1])
        bench.engine.clear(other, now_s)
        now_s += 0.04
    assert len(late_ms) >= 195 and max(late_ms) < 1e-6
    assert max(waited_s[20:]) < 1e-6, "stepped at once, when the other has had what it may"
