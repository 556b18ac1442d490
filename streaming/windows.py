"""The host's half of one stream: input that waits for a step, and which part of a step's row is the stream's output.

A lane cuts what arrives into windows whatever the packets were, so the output cannot depend on them. It holds no
tensors: `EncoderStream` and `DecoderStream` put one before a state of their own, the engine puts many before shared
slots.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

from neucodec_streaming.audio import checked_pcm, described
from neucodec_streaming.config import INPUT_HOP, MEL_OVERHANG, OUTPUT_HOP, StreamConfig
from neucodec_streaming.errors import TokenError
from neucodec_streaming.snapshot import pack, unpack
from neucodec_streaming.tokens import checked_tokens

NEUTRAL_TOKEN = 0xAAAA
"""The code whose eight levels are all zero: what stands for a lost token before the first that arrived."""


class Window(NamedTuple):
    """One row of a step: input of the stepper's window shape, frames that exist, frames to commit, output to keep."""

    x: np.ndarray
    valid: int
    commit: int
    output: slice


class Windower(ABC):
    """Input in, windows out. `take` gives steady windows while the input suffices, `take_last` the ending.

    A frame is `hop` samples or tokens. A steady window needs `window_units`, of which `overhang` belong to no frame of
    it, and commits the first `chunk_units`.
    """

    dtype: type
    hop: int
    overhang: int

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self.window_units = config.window_frames * self.hop + self.overhang
        self.chunk_units = config.chunk_frames * self.hop
        self.reset()

    def reset(self) -> None:
        """As new."""
        self._packets: list[np.ndarray] = []
        self._pending_units = 0
        self._position = 0

    def append(self, data: np.ndarray) -> None:
        """More input, checked before and not to be changed by anyone."""
        self._packets.append(data)
        self._pending_units += len(data)

    @property
    def _pending(self) -> np.ndarray:
        """All input that waits, in one piece; packets are joined when a window is cut, not when they arrive."""
        if len(self._packets) != 1:
            self._packets = [np.concatenate(self._packets) if self._packets else np.zeros(0, self.dtype)]
        return self._packets[0]

    @property
    @abstractmethod
    def delay(self) -> int:
        """Input samples or tokens that are still inside: fed, and not answered by output."""

    @property
    def has_window(self) -> bool:
        """Whether the pending input allows a steady step."""
        return self._pending_units >= self.window_units

    @abstractmethod
    def _steady(self, units: np.ndarray) -> Window: ...

    @abstractmethod
    def output(self, window: Window, row: np.ndarray) -> np.ndarray:
        """The stream's new output in its row of a step."""

    def take(self) -> Window | None:
        """The next steady window, or None while the input does not suffice."""
        if not self.has_window:
            return None
        pending, chunk = self._pending, self.chunk_units
        window = self._steady(pending[: self.window_units])
        self._packets = [pending[chunk:]]
        self._pending_units -= chunk
        self._position += window.commit
        return window

    @abstractmethod
    def take_last(self) -> Window | None:
        """The ending, once `take` gives None: what is left; None where not even a frame is. `reset` must follow."""

    def snapshot(self) -> bytes:
        """Pending input and position as bytes."""
        return pack(self._identity, [self._pending, np.array([self._position], np.int64), *self._more()])

    def restore(self, snapshot: bytes) -> None:
        """As when the snapshot was taken. Raises SnapshotError, and then nothing has changed."""
        pending, position, *more = unpack(self._identity, snapshot)
        self._packets = [np.frombuffer(pending, self.dtype)]
        self._pending_units = len(self._packets[0])
        self._position = int(np.frombuffer(position, np.int64)[0])
        self._restore_more(more)

    def _more(self) -> list[np.ndarray]:
        return []

    def _restore_more(self, parts: list[bytes]) -> None:
        assert not parts

    @property
    def _identity(self) -> dict[str, Any]:
        config = self.config
        return {"lane": type(self).__name__, "chunk": config.chunk_frames, "lookahead": config.lookahead_frames}


class EncoderWindower(Windower):
    """float32 mono at 16 kHz in; a window is (C + L + 1) hops, of which the last one holds 240 samples."""

    dtype = np.float32
    hop = INPUT_HOP
    overhang = MEL_OVERHANG

    def push(self, pcm: np.ndarray) -> None:
        """Append samples (n,). Raises AudioError, and then nothing has changed."""
        self.append(checked_pcm(pcm).copy())

    @property
    def delay(self) -> int:
        return self._pending_units

    def output(self, window: Window, row: np.ndarray) -> np.ndarray:
        """Row (C + L,) -> tokens uint16 (commit,)."""
        return row[window.output].astype(np.uint16)

    def _steady(self, units: np.ndarray) -> Window:
        return self._window(units, self.config.window_frames, self.config.chunk_frames)

    def take_last(self) -> Window | None:
        frames = self._pending_units // INPUT_HOP
        return self._window(self._pending, frames, frames) if frames else None

    def _window(self, pcm: np.ndarray, valid: int, commit: int) -> Window:
        x = np.zeros((self.config.window_frames + 1) * INPUT_HOP, np.float32)
        x[: len(pcm)] = pcm
        return Window(x, valid, commit, slice(0, commit))


class DecoderWindower(Windower):
    """Tokens in; a lost one is replaced by the last that arrived."""

    dtype = np.uint16
    hop = 1
    overhang = 0

    def __init__(self, config: StreamConfig) -> None:
        self._lag = config.synthesis_lag_frames
        super().__init__(config)

    def reset(self) -> None:
        super().reset()
        self._last = NEUTRAL_TOKEN

    def push(self, tokens: np.ndarray, lost: np.ndarray | None = None) -> None:
        """Append tokens uint16 (n,); where the optional bool `lost` (n,) is set, the token's value is not looked at.

        Raises TokenError, and then nothing has changed.
        """
        tokens = checked_tokens(tokens) if lost is None else self._conceal(tokens, lost)
        self.append(tokens.copy())

    def append(self, data: np.ndarray) -> None:
        super().append(data)
        if len(data):
            self._last = int(data[-1])

    def _conceal(self, tokens: np.ndarray, lost: np.ndarray) -> np.ndarray:
        if not isinstance(lost, np.ndarray) or lost.dtype != np.bool_ or lost.shape != np.shape(tokens):
            raise TokenError(f"lost is {described(lost)}: give a bool array, one for each of the tokens")
        tokens = checked_tokens(np.where(lost, 0, tokens) if isinstance(tokens, np.ndarray) else tokens)
        index = np.maximum.accumulate(np.where(lost, 0, np.arange(1, len(tokens) + 1)))
        return np.concatenate([[self._last], tokens]).astype(np.uint16)[index]

    @property
    def delay(self) -> int:
        return self._pending_units + min(self._position, self._lag)

    def output(self, window: Window, row: np.ndarray) -> np.ndarray:
        """Row (samples,) -> audio float32 (m,), 480 | m."""
        return row[window.output].astype(np.float32, copy=False)

    def _steady(self, units: np.ndarray) -> Window:
        chunk = self.config.chunk_frames
        return self._window(units, chunk, self._position + chunk - self._lag)

    def take_last(self) -> Window | None:
        frames = self._pending_units
        return self._window(self._pending, frames, self._position + frames) if self.delay else None

    def _window(self, tokens: np.ndarray, commit: int, stop: int) -> Window:
        """`stop`: the hop of the stream before which this step's audio ends."""
        x = np.zeros(self.config.window_frames, np.int64)
        x[: len(tokens)] = tokens
        first = self._position - self._lag
        return Window(x, len(tokens), commit, slice(max(-first, 0) * OUTPUT_HOP, max(stop - first, 0) * OUTPUT_HOP))

    def _more(self) -> list[np.ndarray]:
        return [np.array([self._last], np.uint16)]

    def _restore_more(self, parts: list[bytes]) -> None:
        self._last = int(np.frombuffer(parts[0], np.uint16)[0])


AnyWindower = EncoderWindower | DecoderWindower
