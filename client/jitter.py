"""A jitter buffer: audio that arrives in bursts goes in, an even flow for the speaker comes out. Sans-I/O.

Playback starts when `prefill_samples` lie ready, or when `finish` says that no more will come. When the buffer runs
empty, silence follows, an underrun is counted and it fills again. There is no click at any seam: the gain rises by one
step a sample and never exceeds what the samples left would allow to fall by one step each. The buffer is owned by one
thread, that of the audio callback (client.devices.Speaker).
"""

import math
from collections import deque
from enum import Enum, auto

import numpy as np


class Flow(Enum):
    """What the buffer does with a pull."""

    FILLING = auto()
    PLAYING = auto()


TRANSITIONS = {
    Flow.FILLING: (Flow.PLAYING,),
    Flow.PLAYING: (Flow.FILLING,),
}


class JitterBuffer:
    """push(samples) as they arrive, pull(n) when the speaker wants them; clear() for barge-in.

    `played_samples` counts the samples of the stream that left through pull, `dropped_samples` those that a clear
    took, `underruns` how often the flow broke.
    """

    def __init__(self, prefill_samples: int, fade_samples: int = 120) -> None:
        self.flow = Flow.FILLING
        self.played_samples = 0
        self.dropped_samples = 0
        self.underruns = 0
        self._prefill_samples = prefill_samples
        self._fade_samples = fade_samples
        self._blocks: deque[np.ndarray] = deque()
        self._buffered = 0
        self._finished = False
        self._gain = 0.0

    @property
    def buffered_samples(self) -> int:
        """Samples that wait to be played."""
        return self._buffered

    def push(self, samples: np.ndarray) -> None:
        """Appends float32 (m,); more may follow, whatever `finish` has said."""
        self._finished = False
        if samples.size:
            self._blocks.append(samples)
            self._buffered += samples.size

    def finish(self) -> None:
        """No more is coming: play what is there without waiting for a prefill, and call the end no underrun."""
        self._finished = True

    def clear(self) -> None:
        """Drops everything but what a fade from the present gain takes: one fade length at most."""
        fading = math.ceil(self._gain * (self._fade_samples + 1)) - 1
        tail = self._take(min(max(0, fading), self._buffered))
        self.dropped_samples += self._buffered
        self._blocks = deque([tail])
        self._buffered = tail.size
        self._finished = True

    def pull(self, count: int) -> np.ndarray:
        """The next `count` samples, float32 (count,): audio where there is some, else silence."""
        output = np.zeros(count, np.float32)
        if self.flow is Flow.FILLING:
            if not self._buffered or (self._buffered < self._prefill_samples and not self._finished):
                return output
            self._move(Flow.PLAYING)
        left = self._buffered - np.arange(min(count, self._buffered))
        rising = self._gain + np.arange(1, left.size + 1) / (self._fade_samples + 1)
        gain = np.minimum(np.minimum(rising, left / (self._fade_samples + 1)), 1.0)
        output[: left.size] = self._take(left.size) * gain
        self.played_samples += left.size
        if not self._buffered:
            self.underruns += not self._finished
            self._gain = 0.0
            self._move(Flow.FILLING)
        elif left.size:
            self._gain = float(gain[-1])
        return output

    def _move(self, to: Flow) -> None:
        assert to in TRANSITIONS[self.flow], f"{self.flow} -> {to}"
        self.flow = to

    def _take(self, count: int) -> np.ndarray:
        taken: list[np.ndarray] = []
        self._buffered -= count
        while count:
            block = self._blocks.popleft()
            if block.size > count:
                self._blocks.appendleft(block[count:])
                block = block[:count]
            taken.append(block)
            count -= block.size
        return np.concatenate(taken) if taken else np.zeros(0, np.float32)
