"""A live talk in a noisy room whose network stalls: latency before and after, and what catching up costs in STOI.

A talk without a stall, of the same speech and noise, is the reference: its STOI and that of the stalled talk are of the
same words, the STALL_OVER_S after the stall. Each is against the clean speech without what playback left out: the
splices of the jitter buffer, placed by the position heard at a known moment. The rest has one delay, found by
cross-correlation.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from pystoi import stoi

from benchmarks.common.sound_room import RATE, Recorder, say
from benchmarks.mouth_to_ear.delay import MAX_S, SOUND, STRETCH_S, delay_ms, delays_ms, stretches
from benchmarks.mouth_to_ear.process import LEAD_IN_S, LOSSES, TAIL_S, client
from neucodec_streaming.config import OUTPUT_RATE

NOISE_DB = 15
STALLS_S = (0.4, 1.5)
STALL_AT_S, STALL_OVER_S, TALK_S = 12.0, 10.0, 34.0
MAX_STOI_LOSS = 0.02


@dataclass(frozen=True)
class HeardTalk:
    """One talk as the room heard it. `speech` (n,) is clean, `ear` starts with it, `delays` are (start in s, ms)."""

    speech: np.ndarray
    ear: np.ndarray
    kept: np.ndarray
    delays: list[tuple[float, float]]
    figures: dict[str, Any]

    @property
    def before_ms(self) -> float:
        return median_before(self.delays)

    def after_ms(self, stall_s: float) -> list[float]:
        return [delay for start_s, delay in self.delays if start_s >= STALL_AT_S + stall_s + STALL_OVER_S]

    def score(self, begin_s: float, end_s: float) -> float:
        begin, end = round(begin_s * RATE), round(end_s * RATE)
        said = self.speech[begin:end][self.kept[begin:end]]
        heard = self.ear[begin : begin + said.size + round(MAX_S * RATE)]
        later = round(delay_ms(said, heard) * RATE / 1000)
        return float(stoi(said, heard[later : later + said.size], RATE))


def median_before(delays: list[tuple[float, float]]) -> float:
    """Returns the median of the stretches before the stall."""
    return float(np.median([delay for start_s, delay in delays if start_s + STRETCH_S < STALL_AT_S - MAX_S]))


def kept_samples(size: int, splices: list[list[int]], stream_start: int) -> np.ndarray:
    """Returns which of `size` samples of speech were played, bool; `stream_start`: the sample of the stream's first."""
    kept = np.ones(size, bool)
    for position, samples in splices:
        cut = stream_start + round(position * RATE / OUTPUT_RATE)
        kept[max(0, cut) : max(0, cut + round(samples * RATE / OUTPUT_RATE))] = False
    return kept


def talk(room: dict[str, str], url: str, profile: str, speech: np.ndarray, stall_s: float) -> HeardTalk:
    level = float(np.sqrt(np.mean(speech**2))) * 10 ** (-NOISE_DB / 20)
    speech = np.resize(speech, round(TALK_S * RATE))
    noisy = speech + np.random.default_rng(0).normal(0, level, speech.size).astype(np.float32)
    seconds = LEAD_IN_S + TALK_S + TAIL_S
    begin_s = LEAD_IN_S + STALL_AT_S
    with Recorder(room) as recorder, client(room, "stall", url, profile, seconds, begin_s, stall_s) as told:
        next(told)
        time.sleep(LEAD_IN_S)
        voice = say(noisy, room)
        figures = next(told)
        voice.wait(20)
    first = int(np.flatnonzero(np.abs(recorder.mouth) > SOUND)[0])
    starts_s = [(stretch.start - first) / RATE for stretch in stretches(recorder.mouth)]
    delays = list(zip(starts_s, delays_ms(recorder.mouth, recorder.ear), strict=True))
    position, moment = figures["heard"]  # before the first splice
    said = recorder.sample_at(moment) - first - round(median_before(delays) * RATE / 1000)
    kept = kept_samples(speech.size, figures["splices"], said - round(position * RATE / OUTPUT_RATE))
    return HeardTalk(speech, recorder.ear[first:], kept, delays, figures)


def measure_stalls(room: dict[str, str], url: str, profile: str, speech: np.ndarray) -> list[dict[str, Any]]:
    calm = talk(room, url, profile, speech, 0.0)
    return [_row(calm, talk(room, url, profile, speech, stall_s), stall_s) for stall_s in STALLS_S]


def _row(calm: HeardTalk, stalled: HeardTalk, stall_s: float) -> dict[str, Any]:
    begin_s = STALL_AT_S + stall_s
    without, recovering = (one.score(begin_s, begin_s + STALL_OVER_S) for one in (calm, stalled))
    after = stalled.after_ms(stall_s)
    return {
        "stall_s": stall_s,
        "before_ms": stalled.before_ms,
        "after_ms": float(np.median(after)),
        "after_most_ms": float(max(after)),
        "stoi_without": round(without, 4),
        "stoi_recovering": round(recovering, 4),
        "stoi_loss": round(without - recovering, 4),
        **{name: stalled.figures[name] for name in (*LOSSES, "skips")},
        "splices": len(stalled.figures["splices"]),
    }
