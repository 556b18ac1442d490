"""`EncoderStream` and `DecoderStream`: packets of any size in, exact output out; each is one slot of a stepper.

The output's bits do not depend on how the input was cut into packets. A call that raises leaves the stream unchanged.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from neucodec_streaming.audio import check_audio
from neucodec_streaming.config import INPUT_HOP
from neucodec_streaming.decoder import Decoder
from neucodec_streaming.snapshot import pack, unpack
from neucodec_streaming.stepper import Stepper, threads_limited
from neucodec_streaming.tokens import check_voice
from neucodec_streaming.windows import DecoderWindower, EncoderWindower, Window, Windower


class Start(NamedTuple):
    """The start of a stream primed with `primer`: a slot's state and its windower."""

    primer: np.ndarray
    state: list[torch.Tensor]
    windower: Windower


class Voice:
    """Tokens of a voice from which decoder streams can start. Created by `Codec.voice`.

    Its state is computed once for each decoder (model and configuration), at first use. Raises TokenError, and
    InputError for fewer than MIN_VOICE_TOKENS.
    """

    def __init__(self, tokens: Any) -> None:
        self.tokens = check_voice(tokens).copy()
        self.tokens.flags.writeable = False
        self._starts: dict[Decoder, Start] = {}
        self._begun: dict[Decoder, DecoderStream] = {}

    def start(self, decoder: Decoder) -> Start:
        """The start of a stream of `decoder` in this voice."""
        self.prepare(decoder)
        return self._starts[decoder]

    def prepare(self, decoder: Decoder, max_steps: int | None = None) -> bool:
        """Computes up to `max_steps` steps (None: all) of that start; returns whether `start` has nothing left to
        compute.
        """
        if decoder not in self._starts and max_steps != 0:
            if decoder not in self._begun:
                self._begun[decoder] = DecoderStream(decoder)
                self._begun[decoder]._windower.append(self.tokens)
            stream = self._begun[decoder]
            stream._steps(max_steps)
            if not stream._windower.has_window:
                self._starts[decoder] = stream._become_start(self.tokens)
                del self._begun[decoder]
        return decoder in self._starts


class _Stream:
    """A windower with its own one-slot state."""

    def __init__(self, stepper: Stepper, windower: Windower) -> None:
        self._stepper = stepper
        self._windower: Windower = windower
        self._state = stepper.new_state(1)
        self._slot = torch.zeros(1, dtype=torch.int64, device=stepper.device)
        self._start: Start | None = None

    @property
    def config(self) -> Any:
        """The StreamConfig of this stream."""
        return self._stepper.config

    def reset(self) -> None:
        """Resets the stream to new, or to its primed start."""
        if self._start is None:
            self._windower.reset()
            self._stepper.reset(self._state, 0)
        else:
            self._windower = self._start.windower.copy()
            self._stepper.load(self._state, 0, self._start.state)

    def snapshot(self) -> bytes:
        """The whole stream, primer included, as versioned bytes with a fingerprint of model and configuration."""
        primer = np.zeros(0, self._windower.dtype) if self._start is None else self._start.primer
        slot_state = self._stepper.snapshot(self._state, 0)
        return pack({"stream": self._stepper.kind}, [primer, self._windower.snapshot(), slot_state])

    def restore(self, state: bytes) -> None:
        """Continues bit-identically from a snapshot. Raises SnapshotError, and then changes nothing."""
        primer, windower_state, slot_state = unpack({"stream": self._stepper.kind}, state)
        windower = self._windower.copy()
        windower.restore(windower_state)
        start = self._start
        if not primer:
            start = None
        elif start is None or start.primer.tobytes() != primer:
            start = self._start_from(primer)
        self._stepper.restore(self._state, 0, slot_state)
        self._windower, self._start = windower, start

    def _start_from(self, primer: bytes) -> Start:
        raise NotImplementedError

    def _prime(self, start: Start | None) -> None:
        """Sets the start of later streams, and of this one if nothing has been fed yet."""
        self._start = start
        if self._windower.is_fresh:
            self.reset()

    def _become_start(self, primer: np.ndarray) -> Start:
        """Turns this stream, of which all input has been stepped, into a start; the stream is then used up."""
        self._windower.become_start()
        return Start(primer, self._stepper.slot_state(self._state, 0), self._windower)

    def _steps(self, max_steps: int | None = None) -> list[np.ndarray]:
        """Output of all steady steps that the pending input allows, or of the first `max_steps`."""
        outputs: list[np.ndarray] = []
        while len(outputs) != max_steps and (window := self._windower.take()) is not None:
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
        with threads_limited(self._stepper.threads):
            row = self._stepper.step(x, self._state, self._slot, valid, commit)[0]
        return self._windower.output(window, row.cpu().numpy())


class EncoderStream(_Stream):
    """Audio to tokens. Created by `Codec.encoder_stream`."""

    _windower: EncoderWindower

    def __init__(self, stepper: Stepper) -> None:
        super().__init__(stepper, EncoderWindower(stepper.config))

    @property
    def latency_ms(self) -> float:
        """The longest wait of a sample for later samples before its token is returned."""
        return self._stepper.config.encode_latency_ms

    @property
    def delay_samples(self) -> int:
        """Samples that were fed and have no tokens yet."""
        return self._windower.delay

    def prime(self, pcm: Any) -> None:
        """Starts from this speech (n,) as if it had been fed before, without its tokens; None removes the primer.

        It stays in effect after `reset` and `flush`; within an utterance it takes effect at its end. A remainder under
        20 ms is dropped. Raises AudioError.
        """
        if pcm is None:
            self._prime(None)
            return
        pcm = check_audio(pcm)
        self._prime(self._start_from(pcm[: len(pcm) // INPUT_HOP * INPUT_HOP].tobytes()))

    def _start_from(self, primer: bytes) -> Start:
        stream, pcm = EncoderStream(self._stepper), np.frombuffer(primer, np.float32)
        stream._windower.append(pcm)
        stream._steps()
        return stream._become_start(pcm)

    def feed(self, pcm: Any) -> np.ndarray:
        """Encodes float32 mono at 16 kHz (n,), an array, tensor or list, to tokens uint16 (m,); m may be 0.

        Raises AudioError.
        """
        self._windower.push(pcm)
        return _joined(self._steps(), np.uint16)

    def flush(self) -> np.ndarray:
        """Returns the remaining tokens and resets the stream: n samples give n // 320 tokens, the rest is dropped."""
        return _joined(self._end(), np.uint16)


class DecoderStream(_Stream):
    """Tokens to audio. Created by `Codec.decoder_stream`."""

    _stepper: Decoder
    _windower: DecoderWindower

    def __init__(self, stepper: Decoder) -> None:
        super().__init__(stepper, DecoderWindower(stepper.config, stepper.output_hop))

    @property
    def latency_ms(self) -> float:
        """The longest wait of a token for later tokens before its audio is returned."""
        return self._stepper.config.decode_latency_ms

    @property
    def delay_frames(self) -> int:
        """Tokens that were fed and have no audio yet."""
        return self._windower.delay

    def prime(self, voice: Any) -> None:
        """Starts in this voice (a Voice or its tokens) as if it had been speaking before; None removes the voice.

        Returns no audio. It stays in effect after `reset` and `flush`; within an utterance it takes effect at its end.
        Raises TokenError, and InputError for fewer than MIN_VOICE_TOKENS tokens.
        """
        if voice is not None and not isinstance(voice, Voice):
            voice = Voice(voice)
        self._prime(None if voice is None else voice.start(self._stepper))

    def _start_from(self, primer: bytes) -> Start:
        return Voice(np.frombuffer(primer, np.uint16)).start(self._stepper)

    def feed(self, tokens: Any, lost: np.ndarray | None = None) -> np.ndarray:
        """Decodes tokens (n,), an array, tensor or list, to audio float32 (m,), whole frames of `hop_length` samples.

        `lost`: bool (n,), true for missing tokens, which are concealed from their neighbours without additional delay.
        Raises TokenError.
        """
        self._windower.push(tokens, lost)
        return _joined(self._steps(), np.float32)

    def flush(self) -> np.ndarray:
        """Returns the remaining audio and resets the stream: F tokens give F * `hop_length` samples in all."""
        return _joined(self._end(), np.float32)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
