"""NeuTTS with its codec on a server: the calls that its class makes, and live decoding in place of its overlap-add.

    class LiveNeuTTS(RemoteDecoding, NeuTTS):
        pass

    tts = LiveNeuTTS("neuphonic/neutts-nano-q4-gguf", codec_repo="ws://127.0.0.1:8765")
    for audio in tts.infer_stream(text, ref_codes, ref_text):
        ...                                                  # float32 (m,) at 24 kHz

This module does not import torch: results are numpy arrays for numpy arguments and tensors for tensors. `infer` adds
NeuTTS's watermark as usual; `infer_stream` does not.
"""

import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.dial import DEFAULT_URL
from neucodec_streaming.client.events import Audio
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.client.sync import blocking, decode, encode
from neucodec_streaming.config import INPUT_RATE, OUTPUT_HOP, OUTPUT_RATE
from neucodec_streaming.errors import InputError
from neucodec_streaming.protocol.speech_lm import TagScanner
from neucodec_streaming.tokens import check_tokens

STOP = "<|SPEECH_GENERATION_END|>"


class RemoteCodec:
    """The codec that NeuTTS calls, computed by the server at `url`; `profile` and `api_key` as in `connect`.

    NeuTTS plays 24 kHz: the server converts the audio of a model with another rate.
    """

    sample_rate = OUTPUT_RATE
    hop_length = OUTPUT_HOP
    device = "cpu"
    """The device on which NeuTTS places codes."""

    def __init__(self, url: str = DEFAULT_URL, *, profile: str | None = None, api_key: str | None = None) -> None:
        self._url = url
        self._options: dict[str, Any] = {"profile": profile, "api_key": api_key}

    def eval(self) -> Self:
        """No effect; part of the interface of torch modules."""
        return self

    def to(self, device: Any) -> Self:
        """No effect, since the server chooses the device; part of the interface of torch modules."""
        return self

    def encode_code(self, audio_or_path: Any) -> Any:
        """Encodes 16 kHz audio, (1, 1, T) or (T,), or a file at any rate, to codes (1, 1, T // 320)."""
        if isinstance(audio_or_path, str | Path):
            pcm = read_audio(audio_or_path, INPUT_RATE)
        else:
            pcm = np.asarray(audio_or_path, np.float32)
        if pcm.size != pcm.shape[-1]:
            raise InputError(f"audio has shape {pcm.shape}: give one recording of shape (1, 1, T)")
        codes = encode(pcm.reshape(-1), self._url, **self._options).astype(np.int64)
        return _like(audio_or_path, codes[None, None])

    def decode_code(self, codes: Any) -> Any:
        """Decodes codes (1, 1, F) to audio (1, 1, 480 F), float32 at 24 kHz."""
        tokens = check_tokens(np.asarray(codes))
        return _like(codes, decode(tokens, self._url, output_rate=OUTPUT_RATE, **self._options)[None, None])

    def decode_stream(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Decodes a language model's text, piece by piece, to audio as it arrives: float32 (m,) at 24 kHz.

        `texts` is iterated on a thread of its own, so that a slow model does not delay audio. If it raises, the audio
        of earlier text comes first. Closing the iteration stops at the next piece.
        """
        scanner, is_over = TagScanner(), threading.Event()
        failures: list[Exception] = []

        def send() -> None:
            try:
                for text in texts:
                    if is_over.is_set():
                        return
                    for piece in scanner.feed(text):
                        connection.send(np.array(piece.tokens, np.uint16))
            except Exception as failure:
                failures.append(failure)
            if not is_over.is_set():
                connection.end()

        sender = threading.Thread(target=send, name="tokens to server", daemon=True)
        try:
            session = connect(self._url, kind="decode", output_rate=OUTPUT_RATE, **self._options)
            with blocking(session) as connection:
                sender.start()
                try:
                    for event in connection:
                        if isinstance(event, Audio):
                            yield event.samples
                finally:
                    is_over.set()
        finally:
            if sender.ident is not None:
                sender.join()
        if failures:
            raise failures[0]


class RemoteDecoding:
    """Mixin for a subclass of `neutts.NeuTTS` (1.4 on) whose `codec_repo` is the URL of a server."""

    def _load_codec(self, codec_repo: str, codec_device: str) -> None:
        self.codec = RemoteCodec(codec_repo)

    def _infer_stream_ggml(self: Any, ref_codes: Any, ref_text: str, text: str, *sampling: Any) -> Iterator[np.ndarray]:
        emotion, temperature, top_k = sampling
        self.backbone.reset()
        printed = self.backbone(
            self._ggml_prompt(ref_codes, ref_text, text, emotion),
            max_tokens=self.max_context,
            temperature=temperature,
            top_k=top_k,
            stop=[STOP],
            stream=True,
            seed=self._call_seed(),
        )
        return self.codec.decode_stream(item["choices"][0]["text"] for item in printed)


def _like(given: Any, array: np.ndarray) -> Any:
    """Converts the array to a tensor if the argument was one; loads torch then."""
    torch = sys.modules.get("torch")
    return torch.from_numpy(array) if torch is not None and isinstance(given, torch.Tensor) else array
