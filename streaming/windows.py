"""The host side of one stream: buffers input, cuts it into windows, and slices its output from a row of a step.

Windows do not depend on how the input was cut into packets, so neither does the output. A windower has no tensors:
`EncoderStream` and `DecoderStream` put one in front of their own state, the engine puts many in front of shared slots.
"""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, NamedTuple, Self

import numpy as np

from neucodec_streaming.audio import as_array, check_audio
from neucodec_streaming.config import INPUT_HOP, OUTPUT_HOP, StreamConfig, input_needed
from neucodec_streaming.errors import TokenError
from neucodec_streaming.protocol.concealment import MIDDLE_TOKEN, gap_tokens
from neucodec_streaming.snapshot import pack, unpack
from neucodec_streaming.tokens import check_tokens

LOST = -1
"""Marks a lost token among pending ones."""


class Window(NamedTuple):
    """One row of a step: input of the stepper's window shape, existing frames, frames to commit, output to keep."""

    x: np.ndarray
    valid: int
    commit: int
    output: slice


class Windower(ABC):
    """Cuts input into windows: `take` returns steady windows while the input suffices, `take_last` the last one.

    A frame is `hop` samples or tokens of input and `output_hop` of output, which lags by `lag` frames. A steady window
    needs `window_units` of input and commits a chunk.
    """

    dtype: type
    output_dtype: type
    hop: int
    output_hop: int
    lag = 0

    def __init__(self, config: StreamConfig, window_units: int) -> None:
        self.config = config
        self.window_units = window_units
        self.reset()

    def reset(self) -> None:
        """Resets the stream."""
        self._packets: list[np.ndarray] = []
        self._pending_units = 0
        self.position = 0
        """Committed frames, including a primer's."""
        self._primer_frames = 0  # its output is dropped
        self._memory: tuple[int, ...] = ()  # context from earlier windows
        self.is_fresh = True

    def become_start(self) -> None:
        """Turns everything appended so far into a primer: the stream starts here, without the primer's output."""
        self._primer_frames = self._inside // self.hop
        self.is_fresh = True

    def copy(self) -> Self:
        """An independent copy of the windower."""
        other = copy(self)
        other._packets = list(self._packets)
        return other

    def append(self, data: np.ndarray) -> None:
        """Appends checked input; the caller must not change it afterwards."""
        self._packets.append(data)
        self._pending_units += len(data)
        self.is_fresh = self.is_fresh and not len(data)

    @property
    def _pending(self) -> np.ndarray:
        """All pending input in one array: packets are joined when a window is cut, not when they arrive."""
        if len(self._packets) != 1:
            self._packets = [np.concatenate(self._packets) if self._packets else np.zeros(0, self.dtype)]
        return self._packets[0]

    @property
    def received_units(self) -> int:
        """Input so far, including a primer's."""
        return self.position * self.hop + self._pending_units

    @property
    def delay(self) -> int:
        """Input samples or tokens that were fed and have no output yet."""
        return self._inside - self._primer_frames * self.hop

    @property
    def _inside(self) -> int:
        """Input whose output has not been cut yet."""
        return self._pending_units + min(self.position, self.lag) * self.hop

    @property
    def has_window(self) -> bool:
        """Whether the pending input suffices for a steady step."""
        return self._pending_units >= self.window_units

    @property
    def has_last(self) -> bool:
        """Whether `take_last` would return a window."""
        return self.delay >= self.hop

    @abstractmethod
    def _row(self, units: np.ndarray) -> np.ndarray:
        """A row of a step's input from a window's units, padded."""

    def output(self, window: Window, row: np.ndarray) -> np.ndarray:
        """The stream's new output, (n * output_hop,) of `output_dtype`, in its row of a step."""
        return row[window.output].astype(self.output_dtype, copy=False)

    def take(self) -> Window | None:
        """The next steady window, or None if the input does not suffice."""
        if not self.has_window:
            return None
        pending, chunk = self._pending, self.config.chunk_frames * self.hop
        window = self._window(pending[: self.window_units], self.config.chunk_frames)
        self._remember(pending[:chunk])
        self._packets = [pending[chunk:]]
        self._pending_units -= chunk
        self.position += window.commit
        return window

    def take_last(self) -> Window | None:
        """The last window, after `take` returned None; None without a whole frame. `reset` must follow."""
        if not self.has_last:
            return None
        return self._window(self._pending, self._pending_units // self.hop, self.lag)

    def _window(self, units: np.ndarray, commit: int, rest: int = 0) -> Window:
        """The window of these units, with the output of the committed frames and `rest` more, less a primer's."""
        start, stop = max(self.lag - self.position, 0), commit + rest
        dropped = min(self._primer_frames, max(stop - start, 0))
        self._primer_frames -= dropped
        output = slice((start + dropped) * self.output_hop, stop * self.output_hop)
        return Window(self._row(units), len(units) // self.hop, commit, output)

    def _remember(self, committed: np.ndarray) -> None:  # noqa: B027, only a decoder has a memory
        """Updates `_memory` by the units of a chunk."""

    def snapshot(self) -> bytes:
        """Pending input and position as bytes."""
        pending: np.ndarray = self._pending.astype(self.dtype, copy=False)
        numbers = [self.position, self._primer_frames, self.is_fresh, *self._memory]
        return pack(self._identity, [pending, np.array(numbers, np.int64)])

    def restore(self, snapshot: bytes) -> None:
        """Restores a snapshot. Raises SnapshotError, and then changes nothing."""
        pending, numbers = unpack(self._identity, snapshot)
        self._packets = [np.frombuffer(pending, self.dtype)]
        self._pending_units = len(self._packets[0])
        self.position, self._primer_frames, is_fresh, *memory = np.frombuffer(numbers, np.int64).tolist()
        self.is_fresh, self._memory = bool(is_fresh), tuple(memory)

    @property
    def _identity(self) -> dict[str, Any]:
        config = self.config
        return {"lane": type(self).__name__, "chunk": config.chunk_frames, "lookahead": config.lookahead_frames}


class EncoderWindower(Windower):
    """float32 mono at 16 kHz to tokens; a window is (C + L + 1) hops, of which the last one has 240 samples."""

    dtype = np.float32
    output_dtype = np.uint16
    hop = INPUT_HOP
    output_hop = 1

    def __init__(self, config: StreamConfig) -> None:
        super().__init__(config, input_needed("encode", config, config.chunk_frames))

    def push(self, pcm: Any) -> None:
        """Appends samples (n,). Raises AudioError, and then changes nothing."""
        self.append(check_audio(pcm).copy())

    def _row(self, units: np.ndarray) -> np.ndarray:
        x = np.zeros((self.config.window_frames + 1) * INPUT_HOP, np.float32)
        x[: len(units)] = units
        return x


class DecoderWindower(Windower):
    """Tokens to audio. A lost one is filled when its window is stepped, from the nearest known tokens: the last one
    before it, committed ones included, and the first one after it in the window. So concealment adds no delay.
    """

    dtype = np.int32  # tokens, or LOST
    output_dtype = np.float32
    hop = 1

    def __init__(self, config: StreamConfig, output_hop: int = OUTPUT_HOP) -> None:
        self.lag = config.synthesis_lag_frames
        self.output_hop = output_hop
        super().__init__(config, config.window_frames)

    def reset(self) -> None:
        super().reset()
        self._memory = MIDDLE_TOKEN, 1  # the last known token, and its distance to the next window

    def push(self, tokens: Any, lost: np.ndarray | None = None) -> None:
        """Appends tokens (n,); where the optional bool `lost` (n,) is true, the token's value is ignored.

        Raises TokenError, and then changes nothing.
        """
        if lost is None:
            self.append(check_tokens(tokens).copy())
            return
        lost, tokens = as_array(lost, "lost is a", TokenError), as_array(tokens, "tokens are a", TokenError)
        if lost.dtype != np.bool_ or lost.shape != tokens.shape:
            raise TokenError(
                f"lost is {lost.dtype} of shape {lost.shape}: pass a bool for each of the {tokens.size} tokens"
            )
        known = check_tokens(np.where(lost, 0, tokens)).astype(np.int32)
        self.append(np.where(lost.reshape(-1), LOST, known))

    def _row(self, units: np.ndarray) -> np.ndarray:
        x = np.zeros(self.config.window_frames, np.int64)
        x[: len(units)] = self._filled(units)
        return x

    def _filled(self, tokens: np.ndarray) -> np.ndarray:
        """Fills the LOST ones among a window's tokens (n,)."""
        if _all_known(tokens):
            return tokens
        known = np.flatnonzero(tokens != LOST)
        filled = tokens.copy()
        token, distance = self._memory
        previous = -distance
        for place in (*known.tolist(), len(tokens)):
            following = int(tokens[place]) if place < len(tokens) else MIDDLE_TOKEN
            gap = slice(max(previous + 1, 0), place)
            filled[gap] = gap_tokens(token, place - gap.start, following, gap.start - previous)
            previous, token = place, following
        return filled

    def _remember(self, committed: np.ndarray) -> None:
        if _all_known(committed):
            self._memory = int(committed[-1]), 1
            return
        known = np.flatnonzero(committed != LOST)
        if known.size:
            self._memory = int(committed[known[-1]]), len(committed) - int(known[-1])
        else:
            token, distance = self._memory
            self._memory = token, distance + len(committed)


def _all_known(tokens: np.ndarray) -> bool:
    """Whether no token is LOST (which is outside uint16)."""
    return tokens.dtype == np.uint16 or bool((tokens != LOST).all())
