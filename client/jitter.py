"""An adaptive jitter buffer: audio arrives unevenly and leaves evenly for the speaker. Sans-I/O.

Its clock is the speaker: one tick for each pulled sample. The first chunk of an utterance starts a time line, and a
chunk's lateness is measured against its place on it. Playback runs `delay_samples` behind the same line. The target
delay is the largest lateness of the last twenty seconds plus a margin, which doubles at each underrun and halves after
twenty calm seconds. Playback starts at the target, or sooner if that much audio is ready: a sender that is faster than
real time is never late.

Excess delay is removed at the start of the next utterance. With `live`, it is removed at once: more than MAX_BEHIND_MS
by skipping to the present, less by time-scale compression. A live source cannot be early, so a chunk before its place
moves the line; and a single stall does not raise the target. Without `live` nothing is skipped, since a sender that is
ahead looks like one that was late. Gain changes by one step a sample, so seams do not click.
"""

import heapq
import math
from collections import deque
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from neucodec_streaming.client.time_scale import TimeScale, overlap_add

FADE_MS = 5
MIN_MARGIN_MS = 20
"""More than the speaker takes at once."""
MAX_MARGIN_MS = 160
FIRST_TARGET_MS = 60
"""Initial target, before anything is known about the network."""
MAX_TARGET_MS = 1000
WINDOW_SECONDS = 20
MAX_BEHIND_MS = 500
PLAYED_PER_SKIPPED = 10
"""Compression plays at most 10 % faster."""
LOUDNESS_HALVES_SECONDS = 5
MAX_SPLICES = 10_000
"""Number of remembered splices."""


class Splice(NamedTuple):
    """`samples` of the stream were skipped at `position`; the audio after them was faded in."""

    position: int
    samples: int


class Flow(Enum):
    """State of the buffer."""

    IDLE = auto()  # nothing to play, nothing expected
    FILLING = auto()  # an utterance has started: silence until playback is safe
    PLAYING = auto()


TRANSITIONS = {
    Flow.IDLE: (Flow.FILLING,),
    Flow.FILLING: (Flow.PLAYING, Flow.IDLE),
    Flow.PLAYING: (Flow.FILLING, Flow.IDLE),
}


class JitterBuffer:
    """push(samples) as they arrive, pull(n) for the speaker; finish() ends an utterance, clear() is barge-in.

    `chunk_samples` is the sender's packet size. `position` is that of the last sample pulled; the first sample
    pushed has position 1. Of all pushed samples `played_samples` were pulled, `skipped_samples` were skipped to catch
    up (at `splices`), `dropped_samples` were dropped by a clear, and `buffered_samples` wait. `underruns` counts
    interruptions of the flow, `skips` the skips to the present.
    """

    def __init__(self, rate: int, chunk_samples: int, live: bool = False) -> None:
        self.flow = Flow.IDLE
        self.live = live
        self.position = 0
        self.played_samples = self.skipped_samples = self.dropped_samples = self.buffered_samples = 0
        self.underruns = self.skips = 0
        self.splices: deque[Splice] = deque(maxlen=MAX_SPLICES)
        self._fade, self._least_margin, self._most_margin, first, self._most_target, self._most_behind = (
            rate * ms // 1000
            for ms in (FADE_MS, MIN_MARGIN_MS, MAX_MARGIN_MS, FIRST_TARGET_MS, MAX_TARGET_MS, MAX_BEHIND_MS)
        )
        self._time_scale = TimeScale(rate)
        self._credit = 0  # samples played that allow compression to skip some
        self._is_skipping = False
        self._chunk = chunk_samples
        self._margin = self._least_margin
        window = max(1, WINDOW_SECONDS * rate // chunk_samples)
        self._usual = first - self._margin
        self._lateness = deque([self._usual] * window, maxlen=window)
        self._calm = 0  # chunks since the last underrun or halving of the margin
        self._unbroken = window  # chunks since the last underrun
        self._waited = 0  # samples pulled since the latest push
        self._blocks: deque[np.ndarray] = deque()
        self._pushed = 0
        self._lag = 0  # lateness of a chunk that would arrive now
        self._finished = True
        self._gain = 0.0
        self._tail = np.zeros(0, np.float32)  # audio left by a clear to fade out
        self._loudest = 0.0
        self._look = 2 * self._fade  # samples played between decisions, so that the sizes of pulls change nothing
        self._quieter = 0.5 ** (self._look / (LOUDNESS_HALVES_SECONDS * rate))

    @property
    def target_samples(self) -> int:
        """The recent largest lateness plus a margin; below 0 if the first chunk was late."""
        return min(self._usual + self._margin, self._most_target)

    @property
    def delay_samples(self) -> int:
        """Delay of playback, or its delay if it started now, behind the arrival of the utterance's first chunk."""
        return self._lag + self.buffered_samples

    def push(self, samples: np.ndarray) -> None:
        """Appends float32 (m,) that has just arrived; after `finish` or `clear` it starts a new utterance."""
        if not samples.size:
            return
        if self._finished or (self._lag > self._most_target and not self.buffered_samples):
            self._finished = False  # a source that was silent for too long to bridge starts a new line too
            self._lag = 0
        if self.live:
            self._lag = max(self._lag, 0)
        if not self.live or self._waited > self._chunk // 2:  # else the previous chunk held it up
            self._lateness.append(self._lag)
        self._usual = heapq.nlargest(2 if self.live else 1, self._lateness)[-1]
        self._waited = 0
        self._unbroken += 1
        self._calm += 1
        if self._calm > len(self._lateness):
            self._calm, self._margin = 0, max(self._margin // 2, self._least_margin)
        self._blocks.append(samples)
        self._pushed += samples.size
        self.buffered_samples += samples.size
        self._lag -= samples.size
        if self.flow is Flow.IDLE:
            self._move(Flow.FILLING)

    def finish(self) -> None:
        """Ends the utterance: plays the rest without waiting, and its end is not an underrun."""
        self._finished = True
        if self.flow is Flow.FILLING and not self.buffered_samples:
            self._move(Flow.IDLE)

    def clear(self) -> None:
        """Drops everything except a fade-out from the present gain, at most one fade length."""
        fading = min(math.ceil(self._gain * (self._fade + 1)) - 1, self.buffered_samples)
        if fading > 0:
            self._tail = self._take(fading) * np.linspace(self._gain, 0, fading + 2, dtype=np.float32)[1:-1]
            self.played_samples += fading
        self.dropped_samples += self.buffered_samples
        self._blocks.clear()
        self.buffered_samples = 0
        self._finished, self._gain, self._is_skipping = True, 0.0, False
        if self.flow is not Flow.IDLE:
            self._move(Flow.IDLE)

    def pull(self, count: int) -> np.ndarray:
        """The next `count` samples, float32 (count,): audio if available, else silence."""
        output = np.zeros(count, np.float32)
        fading = self._tail[:count]
        output[: fading.size] = fading
        self._tail = self._tail[count:]
        self._lag += fading.size
        start = fading.size
        while start < count:
            end = start + self._look - self.played_samples % self._look
            self._fill(output[start:end])
            start = end
        return output

    def _fill(self, output: np.ndarray) -> None:
        """Fills (n,) zeros with the next samples, up to the next decision."""
        if self.live and (self.flow is not Flow.PLAYING or self.played_samples % self._look == 0):
            self._catch_up()
        if self.flow is Flow.FILLING and self._is_safe():
            self._move(Flow.PLAYING)
        if self.flow is Flow.PLAYING:
            self._play(output)
        self._lag += output.size
        self._waited += output.size
        if self.flow is Flow.PLAYING and not self.buffered_samples:
            self._gain = 0.0
            self._move(Flow.IDLE if self._finished else Flow.FILLING)
            if not self._finished:
                self._note_break()

    def _note_break(self) -> None:
        """Repeated underruns need a larger margin; with a live source the first one does not count."""
        self.underruns += 1
        if not self.live or self._unbroken < len(self._lateness):
            self._calm, self._margin = 0, min(2 * self._margin, self._most_margin)
        self._unbroken = 0

    def _is_safe(self) -> bool:
        """Whether playback can start now and continue if chunks are as late as recently."""
        if self._finished:
            return True
        enough = max(self.target_samples, self._least_margin)
        return self.buffered_samples > 0 and (
            self.delay_samples >= enough or self.buffered_samples >= self._chunk + enough
        )

    def _play(self, output: np.ndarray) -> None:
        count = min(output.size, self.buffered_samples)
        left = self.buffered_samples - np.arange(count)
        samples = self._take(count)
        rising = self._gain + np.arange(1, count + 1) / (self._fade + 1)
        gain = np.minimum(np.minimum(rising, left / (self._fade + 1)), 1.0)
        output[:count] = samples * gain
        self._gain = float(gain[-1])
        self.played_samples += count
        self._credit = min(self._credit + count, PLAYED_PER_SKIPPED * self._time_scale.longest_lag)

    def _catch_up(self) -> None:
        excess = self.delay_samples - self.target_samples
        if self._finished or excess <= 0:  # nothing to catch up with
            self._is_skipping = False
        elif excess > self._most_behind and self.buffered_samples and not self._is_skipping:
            self._is_skipping = True
            self.skips += 1
        if self._is_skipping:
            self._skip(excess)
        elif self.flow is Flow.PLAYING:
            self._compress(excess)

    def _skip(self, excess: int) -> None:
        """Continues playback with a faded seam."""
        fade = self._fade if self.flow is Flow.PLAYING else 0
        if fade and self.buffered_samples < excess + 2 * fade:
            return  # the present has not arrived yet
        count = min(excess, self.buffered_samples)
        before = self._ahead(fade)
        self._leave_out(count)
        if fade:
            self._put_back(overlap_add(before, self._take(fade), 0.0))
        self._is_skipping = excess > count

    def _compress(self, excess: int) -> None:
        """Removes a pitch period, if the next samples have one or are noise."""
        ahead, longest = self._ahead(self._time_scale.ahead_samples), self._time_scale.longest_lag
        if ahead.size < self._time_scale.ahead_samples:
            return
        next_ones = ahead[: self._look]
        self._loudest = max(float(np.mean(np.square(next_ones))), self._loudest * self._quieter)
        if excess < longest or self._credit < PLAYED_PER_SKIPPED * longest:
            return
        cut = self._time_scale.cut(ahead, self._loudest)
        if cut is not None:
            self._leave_out(cut.lag)
            self._take(cut.overlap.size)
            self._put_back(cut.overlap)
            self._credit -= PLAYED_PER_SKIPPED * cut.lag

    def _leave_out(self, count: int) -> None:
        self.splices.append(Splice(self.position, count))
        self._take(count)
        self.skipped_samples += count

    def _ahead(self, count: int) -> np.ndarray:
        """Removes and returns the next samples, float32, at most `count`."""
        parts: list[np.ndarray] = []
        for block in self._blocks:
            if count <= 0:
                break
            parts.append(block[:count])
            count -= block.size
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _put_back(self, samples: np.ndarray) -> None:
        self._blocks.appendleft(samples)
        self.buffered_samples += samples.size
        self.position -= samples.size

    def _take(self, count: int) -> np.ndarray:
        taken = [np.zeros(0, np.float32)]
        self.buffered_samples -= count
        self.position = self._pushed - self.buffered_samples
        while count:
            block = self._blocks.popleft()
            if block.size > count:
                self._blocks.appendleft(block[count:])
                block = block[:count]
            taken.append(block)
            count -= block.size
        return np.concatenate(taken)

    def _move(self, to: Flow) -> None:
        assert to in TRANSITIONS[self.flow], f"{self.flow} -> {to}"
        self.flow = to
