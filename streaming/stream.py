"""`EncoderStream` and `DecoderStream`: packets of any size in, exact output out; one slot of a stepper.

The stream's bits do not depend on how the input was cut into packets. A call that raises leaves the stream as it was.
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
from neucodec_streaming.windows import AnyWindower, DecoderWindower, EncoderWindower, Window


class Start(NamedTuple):
    """Where a stream starts that was primed with `primer`: a slot's state, and the windower that goes with it."""

    primer: np.ndarray
    state: list[torch.Tensor]
    windower: AnyWindower


class Voice:
    """Tokens of a voice, which streams of a decoder can start from. Made by `Codec.voice`.

    Its state is computed for each decoder (model and configuration) when it is first used there. Raises TokenError, and
    InputError for fewer than MIN_VOICE_TOKENS.
    """

    def __init__(self, tokens: Any) -> None:
        self.tokens = check_voice(tokens).copy()
        self.tokens.flags.writeable = False
        self._starts: dict[Decoder, Start] = {}
        self._begun: dict[Decoder, DecoderStream] = {}

    def start(self, decoder: Decoder) -> Start:
        """Where a stream of `decoder` starts in this voice."""
        self.prepare(decoder)
        return self._starts[decoder]

    def prepare(self, decoder: Decoder, max_steps: int | None = None) -> bool:
        """Computes up to `max_steps` steps (None: all) of that start; whether `start` has nothing left to compute."""
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
    """A windower before one slot of a state of its own."""

    def __init__(self, stepper: Stepper, windower: AnyWindower) -> None:
        self._stepper = stepper
        self._windower: AnyWindower = windower
        self._state = stepper.new_state(1)
        self._slot = torch.zeros(1, dtype=torch.int64, device=stepper.device)
        self._start: Start | None = None

    @property
    def config(self) -> Any:
        """The StreamConfig of this stream."""
        return self._stepper.config

    def reset(self) -> None:
        """Forget everything: the stream is as new, or as it was when it was primed."""
        if self._start is None:
            self._windower.reset()
            self._stepper.reset(self._state, 0)
        else:
            self._windower = self._start.windower.copy()
            self._stepper.load(self._state, 0, self._start.state)

    def snapshot(self) -> bytes:
        """The whole stream as versioned bytes with a fingerprint of model and configuration; a primer is in it."""
        primer = np.zeros(0, self._windower.dtype) if self._start is None else self._start.primer
        parts = (self._windower.snapshot(), self._stepper.snapshot(self._state, 0))
        return pack({"stream": self._stepper.kind}, [primer, *(np.frombuffer(part, np.uint8) for part in parts)])

    def restore(self, state: bytes) -> None:
        """Go on bit-identically from a snapshot. Raises SnapshotError, and then nothing has changed."""
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
        """Streams start from `start` from now on, this one too if nothing has been fed yet."""
        self._start = start
        if self._windower.is_fresh:
            self.reset()

    def _become_start(self, primer: np.ndarray) -> Start:
        """Where a stream starts that is primed with what this one was fed, all of it stepped; it is used up."""
        self._windower.become_start()
        return Start(primer, self._stepper.slot_state(self._state, 0), self._windower)

    def _steps(self, max_steps: int | None = None) -> list[np.ndarray]:
        """Output of every steady step that the pending input allows, or of the first of them."""
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

    def prime(self, pcm: Any) -> None:
        """Start from this speech (n,), as if it had been fed before, without tokens for it; None: start from nothing.

        It holds from now on, after `reset` and `flush` too; within an utterance from its end on. A remainder under
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

    def __init__(self, stepper: Decoder) -> None:
        super().__init__(stepper, DecoderWindower(stepper.config, stepper.output_hop))

    @property
    def latency_ms(self) -> float:
        """The longest that a token's audio waits for later tokens."""
        return self._stepper.config.decode_latency_ms

    @property
    def delay_frames(self) -> int:
        """Tokens that were fed and are not yet answered by audio."""
        return self._windower.delay

    def prime(self, voice: Any) -> None:
        """Start in this voice, a Voice or its tokens, as if it had been speaking before; None: start from nothing.

        It gives no audio. It holds from now on, after `reset` and `flush` too; within an utterance from its end on.
        Raises TokenError, and InputError for fewer than MIN_VOICE_TOKENS tokens.
        """
        if voice is not None and not isinstance(voice, Voice):
            voice = Voice(voice)
        self._prime(None if voice is None else voice.start(self._decoder))

    @property
    def _decoder(self) -> Decoder:
        assert isinstance(self._stepper, Decoder)
        return self._stepper

    def _start_from(self, primer: bytes) -> Start:
        return Voice(np.frombuffer(primer, np.uint16)).start(self._decoder)

    def feed(self, tokens: Any, lost: np.ndarray | None = None) -> np.ndarray:
        """Tokens (n,), an array, tensor or list -> audio float32 (m,), whole frames of 480 samples at 24 kHz.

        `lost`: bool (n,), true where no token arrived; those are concealed from their neighbours, without more delay.
        Raises TokenError.
        """
        self._windower.push(tokens, lost)
        return _joined(self._steps(), np.float32)

    def flush(self) -> np.ndarray:
        """The rest: F tokens give F * 480 samples in all. The stream then starts over."""
        return _joined(self._end(), np.float32)


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
