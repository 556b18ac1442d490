"""A jitter buffer: audio that arrives in bursts goes in, an even flow for the speaker comes out. Sans-I/O.

Playback starts when `prefill_samples` lie ready, or when `finish` says that no more will come. When the buffer runs
low, what is left fades out, silence follows, an underrun is counted and the buffer fills again. To be able to fade, it
always holds back one fade length. It is owned by one thread, that of the audio callback (client.devices.Speaker).
"""

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
        self._prefill_samples = max(prefill_samples, fade_samples)
        self._fade_samples = fade_samples
        self._blocks: deque[np.ndarray] = deque()
        self._buffered = 0
        self._finished = False
        self._fade_in = True

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
        """Drops everything; what the next pull gives is one fade length at most."""
        tail = self._take(min(self._fade_samples, self._buffered)) if self.flow is Flow.PLAYING else None
        self.dropped_samples += self._buffered
        self._blocks.clear()
        self._buffered = 0
        self._finished = True
        if tail is not None and tail.size:
            tail = tail.copy()
            self._fade(tail[::-1])
            self._blocks.append(tail)
            self._buffered = tail.size

    def pull(self, count: int) -> np.ndarray:
        """The next `count` samples, float32 (count,): audio where there is some, else silence."""
        output = np.zeros(count, np.float32)
        if self.flow is Flow.FILLING:
            if not self._buffered or (self._buffered < self._prefill_samples and not self._finished):
                return output
            self._move(Flow.PLAYING)
            self._fade_in = True
        breaks = self._buffered - count < (0 if self._finished else self._fade_samples)
        audio = self._take(min(count, self._buffered)).copy()
        if self._fade_in:
            self._fade(audio)
            self._fade_in = False
        if breaks:
            self._fade(audio[::-1])
            self.underruns += not self._finished
            self._move(Flow.FILLING)
        output[: audio.size] = audio
        self.played_samples += audio.size
        return output

    def _move(self, to: Flow) -> None:
        assert to in TRANSITIONS[self.flow], f"{self.flow} -> {to}"
        self.flow = to

    def _fade(self, audio: np.ndarray) -> None:
        """Raises the start of `audio` from silence, in place."""
        count = min(self._fade_samples, audio.size)
        audio[:count] *= np.arange(1, count + 1, dtype=np.float32) / np.float32(count + 1)

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
