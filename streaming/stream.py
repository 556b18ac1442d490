"""`EncoderStream` and `DecoderStream`: packets of any size in, exact output out; one slot of a stepper.

The stream's bits do not depend on how the input was cut into packets. A call that raises leaves the stream as it was.
"""

import struct
from typing import Any

import numpy as np
import torch

from neucodec_streaming.stepper import Stepper
from neucodec_streaming.windows import AnyWindower, DecoderWindower, EncoderWindower, Window

_LENGTH = struct.Struct("<I")


class _Stream:
    """A windower before one slot of a state of its own."""

    def __init__(self, stepper: Stepper, windower: AnyWindower) -> None:
        self._stepper = stepper
        self._windower: AnyWindower = windower
        self._state = stepper.new_state(1)
        self._slot = torch.zeros(1, dtype=torch.int64, device=stepper.device)

    @property
    def config(self) -> Any:
        """The StreamConfig of this stream."""
        return self._stepper.config

    def reset(self) -> None:
        """Forget everything: the stream is as new."""
        self._windower.reset()
        self._stepper.reset(self._state, self._slot)

    def snapshot(self) -> bytes:
        """The whole stream as versioned bytes with a fingerprint of model and configuration."""
        windower = self._windower.snapshot()
        return _LENGTH.pack(len(windower)) + windower + self._stepper.snapshot(self._state, 0)

    def restore(self, state: bytes) -> None:
        """Go on bit-identically from a snapshot. Raises SnapshotError, and then nothing has changed."""
        size = _LENGTH.size + (_LENGTH.unpack_from(state)[0] if len(state) >= _LENGTH.size else 0)
        windower = type(self._windower)(self.config)
        windower.restore(state[_LENGTH.size : size])
        self._stepper.restore(self._state, 0, state[size:])
        self._windower = windower

    def _steps(self) -> list[np.ndarray]:
        """Output of every steady step that the pending input allows."""
        outputs = []
        while (window := self._windower.take()) is not None:
            outputs.append(self._step(window))
        return outputs

    def _end(self) -> list[np.ndarray]:
        window = self._windower.take_last()
        outputs = [] if window is None else [self._step(window)]
        self.reset()
        return outputs

    def _step(self, window: Window) -> np.ndarray:
        device = self._slot.device
        valid, commit = (torch.tensor([count], device=device) for count in (window.valid, window.commit))
        x = torch.from_numpy(window.x)[None].to(device)
        row = self._stepper.step(x, self._state, self._slot, valid, commit)[0]
        return self._windower.output(window, row.cpu().numpy())


class EncoderStream(_Stream):
    """Audio to tokens. Made by `Codec.encoder_stream`."""

    _windower: EncoderWindower

    def __init__(self, stepper: Stepper) -> None:
        super().__init__(stepper, EncoderWindower(stepper.config))

    @property
    def latency_ms(self) -> float:
        """The longest that a sample waits for later samples before its token leaves."""
        return self._stepper.config.encode_latency_ms

    @property
    def delay_samples(self) -> int:
        """Samples that were fed and are not yet answered by tokens."""
        return self._windower.delay

    def feed(self, pcm: Any) -> np.ndarray:
        """float32 mono at 16 kHz (n,), an array, tensor or list -> tokens uint16 (m,), m may be 0.

        Raises AudioError.
        """
        self._windower.push(pcm)
        return _joined(self._steps(), np.uint16)

    def flush(self) -> np.ndarray:
        """The rest: n samples give n // 320 tokens in all, a remainder under 20 ms is dropped. The stream is as new."""
        return _joined(self._end(), np.uint16)


class DecoderStream(_Stream):
    """Tokens to audio. Made by `Codec.decoder_stream`."""

    _windower: DecoderWindower

    def __init__(self, stepper: Stepper) -> None:
        super().__init__(stepper, DecoderWindower(stepper.config))

    @property
    def latency_ms(self) -> float:
        """The longest that a token's audio waits for later tokens."""
        return self._stepper.config.decode_latency_ms

    @property
    def delay_frames(self) -> int:
        """Tokens that were fed and are not yet answered by audio."""
        return self._windower.delay

    def feed(self, tokens: Any, lost: np.ndarray | None = None) -> np.ndarray:
        """Tokens (n,), an array, tensor or list -> audio float32 (m,) at 24 kHz, 480 | m.

        `lost`: bool (n,), true where no token arrived; those are concealed from their neighbours, without more delay.
        Raises TokenError.
        """
        self._windower.push(tokens, lost)
        return _joined(self._steps(), np.float32)

    def flush(self) -> np.ndarray:
        """The rest: F tokens give F * 480 samples in all. The stream is then as new."""
        return _joined(self._end(), np.float32)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
