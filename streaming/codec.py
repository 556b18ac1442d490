"""`load_codec`: a NeuCodec by name, folder or hub id, with offline coding of whole recordings and new streams.

The network is transformers' `NeuCodecModel`. A folder needs config.json and model.safetensors; stream.json is optional
and may be elsewhere, since a hub id has no folder to write to.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from neucodec_streaming.audio import check_audio
from neucodec_streaming.checkpoints import converted, original_file
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE, StreamConfig
from neucodec_streaming.decoder import Decoder
from neucodec_streaming.encoder import Encoder
from neucodec_streaming.errors import ConfigError, InputError, ModelError
from neucodec_streaming.int8_model import load_int8_model
from neucodec_streaming.kernels.memory import keep_freed_memory
from neucodec_streaming.kernels.packed import pack_layers, release_originals, with_packed_weights
from neucodec_streaming.layers.mel import offline_features
from neucodec_streaming.loading import PARTS, check_folder, hub_checkpoint, load_model
from neucodec_streaming.priors import Priors, read_priors
from neucodec_streaming.stepper import raw_bytes, threads_limited
from neucodec_streaming.stream import DecoderStream, EncoderStream, Voice
from neucodec_streaming.tokens import check_tokens

ASSETS = Path(__file__).parent / "assets"
BUNDLED = ("nano",)
SMALL_MODEL = 1 << 26
"""Models with fewer parameters use one thread: as fast as more, and much faster on a busy machine."""
AnyStepper = TypeVar("AnyStepper", Encoder, Decoder)


class Codec:
    """A loaded model: offline coding and new streams. Created by `load_codec`."""

    def __init__(
        self,
        name: str,
        model: Any,
        priors: Priors,
        kinds: Sequence[str] = tuple(PARTS),
        threads: int | None = None,
        *,
        is_packed: bool = False,
        weights_digest: str | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.priors = priors
        self.kinds = tuple(kinds)
        self.is_packed = is_packed
        """Whether the model holds only packed weights: int8, or after `pack`."""
        self._threads = threads
        self._weights_digest = weights_digest
        self._steppers: dict[tuple[type, StreamConfig], Any] = {}

    @property
    def default_config(self) -> StreamConfig:
        """The default configuration of streams: that of the model's `stream.json`, or chunk 5, lookahead 5."""
        return self.priors.config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def sample_rate(self) -> int:
        """Sample rate of the output in Hz."""
        return int(self.model.config.output_sampling_rate)

    @property
    def hop_length(self) -> int:
        """Output samples of a token."""
        return int(self.model.config.hop_length)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "Codec":
        """`load_codec`, under the original package's name."""
        return load_codec(name, **options)

    def eval(self) -> "Codec":
        """Returns itself: a codec is always in evaluation mode."""
        return self

    def to(self, device: str | torch.device) -> "Codec":
        """Moves to another device and returns itself; existing streams stay on theirs. Raises ConfigError."""
        if self.is_packed and _torch_device(device) != self.device:
            raise ConfigError(
                f"weights are packed for {self.device}, not for {device}: load the model on {device} instead"
            )
        self.model = _on_device(self.model, device)
        self.__dict__.pop("_stepped", None)
        self._steppers = {}
        return self

    def cpu(self) -> "Codec":
        """`to("cpu")`."""
        return self.to("cpu")

    def cuda(self) -> "Codec":
        """`to("cuda")`."""
        return self.to("cuda")

    @cached_property
    def _stepped(self) -> Any:
        """The model with packed weights for steps; the original stays for whole recordings."""
        keep_freed_memory()
        return self.model if self.is_packed else with_packed_weights(self.model)

    def pack(self) -> None:
        """Keeps only packed weights, for a server, which codes no whole recordings.

        Whole recordings are then stepped as one chunk, with results that are equal except for rounding. Existing
        streams continue.
        """
        if self.is_packed or self.device.type != "cpu":
            return
        _ = self.fingerprint  # cached now: it hashes the original weights
        self.is_packed, self.model, model = True, None, self.model
        self._steppers = {}
        self.__dict__.pop("_stepped", None)
        self.model = pack_layers(model)
        release_originals(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of configuration, priors and weights; snapshots may be exchanged between equal ones."""
        config = self.model.config.to_dict()
        of_the_copy = ("_name_or_path", "transformers_version")
        config = {name: value for name, value in config.items() if name not in of_the_copy}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        digest.update(repr((self.priors, self._weights_digest or False)).encode())
        if self._weights_digest is None:
            for name, tensor in self.model.state_dict().items():
                digest.update(name.encode())
                digest.update(raw_bytes(tensor).data)
        return digest.hexdigest()[:32]

    @property
    def public_name(self) -> str:
        """The name of a folder or file, or a hub id or bundled name, with the version of the weights if the
        configuration has one: tokens of two versions are incompatible.
        """
        name = Path(os.path.abspath(self.name)).name if Path(self.name).exists() else self.name
        version = getattr(self.model.config, "weights_version", None)
        return name if version is None else f"{name}-{version}"

    @property
    def token_model(self) -> str:
        """Identifies the model of tokens: its public name if it has a version, else the fingerprint."""
        is_versioned = getattr(self.model.config, "weights_version", None) is not None
        return self.public_name if is_versioned else self.fingerprint

    def encoder(self, config: StreamConfig | None = None) -> Encoder:
        """The stepped encoder, shared by all streams of a configuration."""
        return self._stepper(Encoder, config)

    def decoder(self, config: StreamConfig | None = None) -> Decoder:
        """The stepped decoder, shared by all streams of a configuration."""
        return self._stepper(Decoder, config)

    def encoder_stream(self, config: StreamConfig | None = None) -> EncoderStream:
        """A new stream from 16 kHz audio to tokens."""
        return EncoderStream(self.encoder(config))

    def decoder_stream(self, config: StreamConfig | None = None) -> DecoderStream:
        """A new stream from tokens to audio at `sample_rate`."""
        return DecoderStream(self.decoder(config))

    def voice(self, tokens: Any) -> Voice:
        """A voice for decoder streams to start from, of at least 100 tokens. Raises TokenError, InputError."""
        return Voice(tokens)

    def encode(self, pcm: Any) -> np.ndarray:
        """Encodes a whole recording, float32 mono at 16 kHz (n,) or an audio file of any rate, to tokens uint16 (n //
        320,).

        Raises AudioError for unusable audio.
        """
        return self.encode_batch([read_audio(pcm) if isinstance(pcm, (str, Path)) else pcm])[0]

    @torch.inference_mode()
    def encode_batch(self, recordings: Sequence[Any]) -> list[np.ndarray]:
        """Encodes whole recordings of equal frame count, each as in `encode`, in one call; returns the tokens of each.

        Raises AudioError, and InputError for unequal frame counts: padding would change the tokens.
        """
        self._require("encode")
        checked = [check_audio(pcm) for pcm in recordings]
        frames = {len(pcm) // INPUT_HOP for pcm in checked}
        if len(frames) > 1:
            raise InputError(
                f"a batch has recordings of {sorted(frames)} frames: pass recordings of the same number of frames"
            )
        count = max(frames, default=0)
        if not count:
            return [np.zeros(0, np.uint16) for _ in checked]
        if self.is_packed:
            stream = EncoderStream(self._new_stepper(Encoder, _one_chunk(count)))
            return [np.concatenate([stream.feed(pcm), stream.flush()]) for pcm in checked]
        rows = [np.pad(pcm, (0, (count + 1) * INPUT_HOP - len(pcm))) for pcm in checked]
        padded = torch.from_numpy(np.stack(rows)).to(self.device)
        dtype = self.model.fc_encoder.weight.dtype
        with threads_limited(self._threads):
            features = offline_features(padded)
            codes = self.model.encode(padded[:, None].to(dtype), features.to(dtype)).audio_codes
        return list(codes[:, 0].cpu().numpy().astype(np.uint16))

    @torch.inference_mode()
    def decode(self, tokens: Any) -> np.ndarray:
        """Decodes tokens (F,) of a whole recording to audio float32 (F * hop_length,) at `sample_rate`. Raises
        TokenError.
        """
        self._require("decode")
        tokens = check_tokens(tokens)
        if not len(tokens):
            return np.zeros(0, np.float32)
        if self.is_packed:
            stream = DecoderStream(self._new_stepper(Decoder, _one_chunk(len(tokens))))
            return np.concatenate([stream.feed(tokens), stream.flush()])
        codes = torch.from_numpy(tokens.astype(np.int64))[None, None].to(self.device)
        with threads_limited(self._threads):
            return self.model.decode(codes).audio_values[0, 0].float().cpu().numpy()

    def encode_code(self, audio_or_path: Tensor | np.ndarray | str | Path) -> Tensor:
        """As in the original package: audio (B, 1, T) at 16 kHz, or a file -> codes int32 (B, 1, F)."""
        is_path = isinstance(audio_or_path, (str, Path))
        rows = [audio_or_path] if is_path else [row[0] for row in _three_axes(audio_or_path)]
        return torch.from_numpy(np.stack([self.encode(row) for row in rows]).astype(np.int32))[:, None]

    def decode_code(self, codes: Tensor | np.ndarray | list) -> Tensor:
        """As in the original package: codes (B, 1, F) -> audio float32 (B, 1, F * hop_length) at `sample_rate`."""
        return torch.from_numpy(np.stack([self.decode(row[0]) for row in _three_axes(codes)]))[:, None]

    def _require(self, kind: str) -> None:
        if kind not in self.kinds:
            raise ConfigError(f"this codec cannot {kind}: it was loaded with kinds={self.kinds}, so add {kind!r} there")

    def _stepper(self, kind: type[AnyStepper], config: StreamConfig | None) -> AnyStepper:
        self._require(kind.kind)
        key = kind, config or self.default_config
        if key not in self._steppers:
            self._steppers[key] = self._new_stepper(*key)
        return self._steppers[key]

    def _new_stepper(self, kind: type[AnyStepper], config: StreamConfig) -> AnyStepper:
        stepper = kind(self._stepped, config, self.priors, self.fingerprint)
        stepper.threads = self._threads
        return stepper


def load_codec(
    name: str | Path,
    device: str = "cpu",
    dtype: torch.dtype | str = "float32",
    stream_json: str | Path | None = None,
    kinds: Sequence[str] = ("encode", "decode"),
    threads: int | None = None,
) -> Codec:
    """Loads "nano" (bundled), a folder with config.json and model.safetensors, or a hub id such as neuphonic/neucodec.

    A checkpoint in the original package's layout, a folder or a file, is converted into a cache (checkpoints.py).

    `dtype`: a torch dtype or its name, or "int8" for CPUs: most layers multiply int8 weights by int8 activations, the
    others compute in float32, and whole recordings are stepped as one chunk. `stream_json`: replaces the model's own.
    `kinds`: the parts to load and keep. `threads`: torch threads for calls of this codec and its streams; None: one for
    a small model (more do not help), torch's setting for others. Raises ModelError for a missing, corrupt or
    incompatible model, and ConfigError.
    """
    if not kinds or isinstance(kinds, str) or not set(kinds) <= set(PARTS):
        raise ConfigError(f"kinds is {kinds!r}: expected a sequence of {' and '.join(map(repr, PARTS))}")
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise ConfigError(f"threads is {threads!r}: expected a whole number of at least 1, or None")
    if stream_json is not None and not Path(stream_json).is_file():
        raise ModelError(f"no file {str(stream_json)!r}: pass the stream.json that a calibration wrote")
    folder = ASSETS / name if str(name) in BUNDLED else Path(name)
    if original_file(folder) is not None:
        folder = converted(folder)
    is_folder = folder.is_dir()
    if is_folder:
        check_folder(folder)
        source: Path | str = folder
    elif folder.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise ModelError(f"no model {str(name)!r}: use {' or '.join(BUNDLED)}, a folder with config.json, or a hub id")
    else:
        original = hub_checkpoint(str(name))
        source = str(name) if original is None else converted(original)
    priors = read_priors(folder / "stream.json" if stream_json is None else Path(stream_json))
    int8 = dtype == "int8"
    if int8 and _torch_device(device).type != "cpu":
        raise ConfigError(f"dtype int8 is computed on a CPU, not on {device}: use float32, bfloat16 or float16")
    model, digest = load_int8_model(source, kinds) if int8 else (load_model(source, _torch_dtype(dtype), kinds), None)
    model = _on_device(model, device).eval().requires_grad_(False)
    weights = itertools.chain(model.parameters(), model.buffers())
    if threads is None and sum(tensor.numel() for tensor in weights) < SMALL_MODEL:
        threads = 1
    return Codec(str(name), model, priors, kinds, threads, is_packed=int8, weights_digest=digest)


def _on_device(model: Any, device: str | torch.device) -> Any:
    with _usable(device):
        return model.to(device)


def _torch_device(device: str | torch.device) -> torch.device:
    with _usable(device):
        return torch.device(device)


@contextmanager
def _usable(device: str | torch.device) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used ({error}): use cpu, cuda or cuda:N") from error


def _torch_dtype(dtype: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(f"dtype {dtype!r} is unknown: choose float32, bfloat16, float16 or int8")
    return found


def _one_chunk(frames: int) -> StreamConfig:
    """Steps the whole recording at once, equal to the offline model: no lookahead, context or priors."""
    return StreamConfig(chunk_frames=frames, lookahead_frames=0, context_frames=0, prior_weight=0)


def read_audio(path: str | Path | BytesIO) -> np.ndarray:
    """An audio file, or its bytes, of any rate and channel count as float32 mono at 16 kHz (n,). Raises InputError."""
    import soundfile
    import soxr

    try:
        pcm, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        name = "the recording" if isinstance(path, BytesIO) else path
        raise InputError(f"{name} cannot be read as audio: {error}") from error
    return soxr.resample(pcm.mean(axis=1), rate, INPUT_RATE) if rate != INPUT_RATE else pcm.mean(axis=1)


def _three_axes(value: Any) -> Any:
    try:
        value = value if isinstance(value, (Tensor, np.ndarray)) else np.array(value)
    except ValueError as error:
        raise InputError(f"the list is not a tensor ({error}): expected (B, 1, T)") from None
    if value.ndim != 3 or value.shape[1] != 1 or not len(value):
        raise InputError(f"tensor has shape {tuple(value.shape)}: expected (B, 1, T)")
    return value
