"""Start and end of speech, by Silero VAD (https://github.com/snakers4/silero-vad).

Silero is maintained, its wheel contains the model (2 MB), and it distinguishes speech from noise. It takes 32 ms at a
time.
"""

import numpy as np

from demos.command_line import needs
from neucodec_streaming.config import INPUT_RATE

with needs("server,demo"):
    from silero_vad import VADIterator, load_silero_vad

WINDOW_SAMPLES = 512
END_SILENCE_MS = 500
"""Shorter pauses do not end a turn."""


class VoiceActivity:
    """Takes float32 mono at 16 kHz, in packets of any size."""

    def __init__(self, end_silence_ms: int = END_SILENCE_MS) -> None:
        self._detector = VADIterator(
            load_silero_vad(), sampling_rate=INPUT_RATE, min_silence_duration_ms=end_silence_ms
        )
        self._held = np.zeros(0, np.float32)

    def feed(self, packet: np.ndarray) -> list[str]:
        """Takes the next float32 (n,); returns its events in order, each "start" or "end"."""
        samples = np.concatenate([self._held, packet])
        whole = samples.size // WINDOW_SAMPLES * WINDOW_SAMPLES
        self._held = samples[whole:]
        told = (self._detector(window) for window in samples[:whole].reshape(-1, WINDOW_SAMPLES))
        return [event for said in told if said for event in said]
