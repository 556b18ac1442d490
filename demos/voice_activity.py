"""When somebody begins and ends to speak, by Silero VAD (https://github.com/snakers4/silero-vad).

It is maintained, its wheel holds the model (2 MB), and noise is no speech to it. It looks at 32 ms at a time.
"""

import numpy as np
from silero_vad import VADIterator, load_silero_vad

from neucodec_streaming.config import INPUT_RATE

WINDOW_SAMPLES = 512
END_SILENCE_MS = 500
"""A pause that is no end is shorter."""


class VoiceActivity:
    """A stream of float32 mono at 16 kHz, in packets of any size."""

    def __init__(self, end_silence_ms: int = END_SILENCE_MS) -> None:
        self._detector = VADIterator(
            load_silero_vad(), sampling_rate=INPUT_RATE, min_silence_duration_ms=end_silence_ms
        )
        self._held = np.zeros(0, np.float32)

    def feed(self, packet: np.ndarray) -> list[str]:
        """The next float32 (n,) -> what has happened, in order: "start", "end"; mostly nothing."""
        samples = np.concatenate([self._held, packet])
        whole = samples.size // WINDOW_SAMPLES * WINDOW_SAMPLES
        self._held = samples[whole:]
        told = (self._detector(window) for window in samples[:whole].reshape(-1, WINDOW_SAMPLES))
        return [event for said in told if said for event in said]
