"""An adaptive jitter buffer: audio that arrives unevenly goes in, an even flow for the speaker comes out. Sans-I/O.

Its clock is the speaker: one tick for each sample that is pulled. A chunk is as late as it comes after its place on a
line that begins with the arrival of its utterance's first chunk; playback runs `delay_samples` behind the same line,
and a chunk that is no later than that is in time. The target is the latest of the last twenty seconds and a margin,
which doubles when the flow breaks and halves when it has held for as long as that. Playback starts at that distance, or
sooner when so much lies ready: a sender that is faster than real time is never late, whatever its bursts.

Distance beyond the target is given up by the start of the next utterance. A `live` source may have none, and is never
further ahead than the network was slow: there quiet stretches are shortened, by a third at most. Otherwise nothing is
left out, since a sender that is ahead looks like one that was late. No seam clicks: gain moves by one step a sample.
"""

import math
from collections import deque
from enum import Enum, auto

import numpy as np

FADE_MS = 5
MIN_MARGIN_MS = 20
"""More than the speaker takes at a time."""
MAX_MARGIN_MS = 160
FIRST_TARGET_MS = 60
"""Where it starts when nothing is known of the network yet."""
MAX_TARGET_MS = 1000
WINDOW_SECONDS = 20
QUIET = 1e-3
"""A stretch is quiet when its power is this far, 30 dB, below that of the loudest lately..."""
SILENT = 1e-7
"""...or below this, -70 dBFS."""
LOUDNESS_HALVES_SECONDS = 5


class Flow(Enum):
    """What the buffer is doing."""

    IDLE = auto()  # nothing to play, nothing expected
    FILLING = auto()  # an utterance has begun: silence until it is safe to play (on)
    PLAYING = auto()


TRANSITIONS = {
    Flow.IDLE: (Flow.FILLING,),
    Flow.FILLING: (Flow.PLAYING, Flow.IDLE),
    Flow.PLAYING: (Flow.FILLING, Flow.IDLE),
}


class JitterBuffer:
    """push(samples) as they arrive, pull(n) when the speaker wants them; finish() at an utterance's end, clear() for
    barge-in.

    `chunk_samples` is how much the sender sends at a time. `position` is that of the last sample that left through
    pull, counted from 1 for the first that was ever pushed. Of all that was pushed `played_samples` left,
    `skipped_samples` were left out of quiet stretches, `dropped_samples` were taken by a clear, `buffered_samples`
    wait. `underruns` is how often the flow broke.
    """

    def __init__(self, rate: int, chunk_samples: int, live: bool = False) -> None:
        self.flow = Flow.IDLE
        self.live = live
        self.position = 0
        self.played_samples = self.skipped_samples = self.dropped_samples = self.buffered_samples = 0
        self.underruns = 0
        self._fade, self._least_margin, self._most_margin, first, self._most_target = (
            rate * ms // 1000 for ms in (FADE_MS, MIN_MARGIN_MS, MAX_MARGIN_MS, FIRST_TARGET_MS, MAX_TARGET_MS)
        )
        self._chunk = chunk_samples
        self._margin = self._least_margin
        window = max(1, WINDOW_SECONDS * rate // chunk_samples)
        self._lateness = deque([first - self._margin] * window, maxlen=window)
        self._calm = 0  # chunks since the flow broke or the margin was halved
        self._blocks: deque[np.ndarray] = deque()
        self._pushed = 0
        self._lag = 0  # how late a chunk would be that came now
        self._finished = True
        self._gain = 0.0
        self._tail = np.zeros(0, np.float32)  # what a clear left to fade out
        self._loudest = 0.0
        self._quieter = 0.5 ** (2 * self._fade / (LOUDNESS_HALVES_SECONDS * rate))

    @property
    def target_samples(self) -> int:
        """The distance that would have been enough lately, and a margin; below 0 when the first chunk came late."""
        return min(max(self._lateness) + self._margin, self._most_target)

    @property
    def delay_samples(self) -> int:
        """How far playback is, or would be if it began now, behind the arrival of the utterance's first chunk."""
        return self._lag + self.buffered_samples

    def push(self, samples: np.ndarray) -> None:
        """Appends float32 (m,) that has just arrived; after `finish` or `clear` it is a new utterance's first."""
        if not samples.size:
            return
        if self._finished or (self._lag > self._most_target and not self.buffered_samples):
            self._finished = False  # a source that was silent for longer than could be bridged begins anew too
            self._lag = 0
        self._lateness.append(self._lag)
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
        """The utterance is complete: play what is there without waiting for more, and call the end no underrun."""
        self._finished = True
        if self.flow is Flow.FILLING and not self.buffered_samples:
            self._move(Flow.IDLE)

    def clear(self) -> None:
        """Drops everything but what a fade from the present gain takes, one fade length at most."""
        fading = min(math.ceil(self._gain * (self._fade + 1)) - 1, self.buffered_samples)
        if fading > 0:
            self._tail = self._take(fading) * np.linspace(self._gain, 0, fading + 2, dtype=np.float32)[1:-1]
            self.played_samples += fading
        self.dropped_samples += self.buffered_samples
        self._blocks.clear()
        self.buffered_samples = 0
        self._finished, self._gain = True, 0.0
        if self.flow is not Flow.IDLE:
            self._move(Flow.IDLE)

    def pull(self, count: int) -> np.ndarray:
        """The next `count` samples, float32 (count,): audio where there is some, else silence."""
        output = np.zeros(count, np.float32)
        fading = self._tail[:count]
        output[: fading.size] = fading
        self._tail = self._tail[count:]
        self._lag += fading.size
        for start in range(fading.size, count, 2 * self._fade):
            self._fill(output[start : start + 2 * self._fade])
        return output

    def _fill(self, output: np.ndarray) -> None:
        """The next samples into (n,) zeros, n at most two fades."""
        if self.flow is Flow.FILLING and self._is_safe():
            self._move(Flow.PLAYING)
        if self.flow is Flow.PLAYING:
            self._play(output)
        self._lag += output.size
        if self.flow is Flow.PLAYING and not self.buffered_samples:
            self._gain = 0.0
            self._move(Flow.IDLE if self._finished else Flow.FILLING)
            if not self._finished:
                self.underruns += 1
                self._calm, self._margin = 0, min(2 * self._margin, self._most_margin)

    def _is_safe(self) -> bool:
        """Whether playback can begin now and go on if chunks are as late as they were lately."""
        if self._finished:
            return True
        enough = max(self.target_samples, self._least_margin)
        return self.buffered_samples > 0 and (
            self.delay_samples >= enough or self.buffered_samples >= self._chunk + enough
        )

    def _play(self, output: np.ndarray) -> None:
        count = min(output.size, self.buffered_samples)
        skipped = self._fade if self._may_skip(count) else 0
        left = self.buffered_samples - skipped - np.arange(count)
        samples = self._take(count + skipped)
        if skipped:
            over = np.arange(1, skipped + 1, dtype=np.float32) / (skipped + 1)
            samples[skipped : 2 * skipped] = samples[:skipped] * (1 - over) + samples[skipped : 2 * skipped] * over
            samples = samples[skipped:]
        self._loudest = max(_power(samples), self._loudest * self._quieter)
        rising = self._gain + np.arange(1, count + 1) / (self._fade + 1)
        gain = np.minimum(np.minimum(rising, left / (self._fade + 1)), 1.0)
        output[:count] = samples * gain
        self._gain = float(gain[-1])
        self.played_samples += count
        self.skipped_samples += skipped

    def _may_skip(self, count: int) -> bool:
        """Whether a fade's length can be left out of the next `count` samples and nobody misses it."""
        if not self.live or count < 2 * self._fade or self.delay_samples - self.target_samples < self._fade:
            return False
        ahead = np.concatenate(self._blocks)[: count + 2 * self._fade]
        most = max(SILENT, QUIET * self._loudest)
        parts = [ahead[start : start + self._fade] for start in range(0, ahead.size, self._fade)]
        return ahead.size == count + 2 * self._fade and all(_power(part) < most for part in parts)

    def _take(self, count: int) -> np.ndarray:
        taken: list[np.ndarray] = []
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


def _power(samples: np.ndarray) -> float:
    return float(np.dot(samples, samples)) / samples.size
