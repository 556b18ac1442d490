"""`load_codec`: a NeuCodec by name, folder or hub id; whole recordings by the model itself, and streams over its parts.

The network is transformers' `NeuCodecModel`. A folder needs config.json and model.safetensors; stream.json is optional,
and may lie elsewhere: whoever loads a hub id has no folder to write to.
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neucodec_streaming.audio import check_audio
from neucodec_streaming.config import CODEBOOK_SIZE, INPUT_HOP, INPUT_RATE, OUTPUT_RATE, StreamConfig
from neucodec_streaming.decoder import Decoder
from neucodec_streaming.encoder import Encoder
from neucodec_streaming.errors import ConfigError, InputError, ModelError
from neucodec_streaming.kernels.packed import keep_freed_memory, with_packed_weights
from neucodec_streaming.layers.mel import offline_features
from neucodec_streaming.priors import Priors, read_priors
from neucodec_streaming.stepper import raw_bytes
from neucodec_streaming.stream import DecoderStream, EncoderStream, Voice
from neucodec_streaming.tokens import check_tokens

ASSETS = Path(__file__).parent / "assets"
BUNDLED = ("nano",)


class Codec:
    """A loaded model: offline coding and new streams. Made by `load_codec`."""

    def __init__(self, name: str, model: Any, priors: Priors) -> None:
        self.name = name
        self.model = model
        self._priors = priors
        self._steppers: dict[tuple[type, StreamConfig], Encoder | Decoder] = {}

    @property
    def default_config(self) -> StreamConfig:
        """What a stream uses when it is given no configuration: the model's `stream.json`, or chunk 5, lookahead 5."""
        return self._priors.config

    @property
    def device(self) -> torch.device:
        return self.model.fc_encoder.weight.device

    @cached_property
    def _stepped(self) -> Any:
        """The model as the steps use it; the original stays for whole recordings."""
        keep_freed_memory()
        return with_packed_weights(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of configuration, priors and weights: equal for models whose snapshots may be exchanged."""
        config = self.model.config.to_dict()
        of_the_copy = ("_name_or_path", "transformers_version")
        config = {name: value for name, value in config.items() if name not in of_the_copy}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        digest.update(repr(self._priors).encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(raw_bytes(tensor).data)
        return digest.hexdigest()[:32]

    def encoder(self, config: StreamConfig | None = None) -> Encoder:
        """The stepped encoder, shared by all streams of one configuration."""
        stepper = self._stepper(Encoder, config)
        assert isinstance(stepper, Encoder)
        return stepper

    def decoder(self, config: StreamConfig | None = None) -> Decoder:
        """The stepped decoder, shared by all streams of one configuration."""
        stepper = self._stepper(Decoder, config)
        assert isinstance(stepper, Decoder)
        return stepper

    def encoder_stream(self, config: StreamConfig | None = None) -> EncoderStream:
        """A new stream from 16 kHz audio to tokens."""
        return EncoderStream(self.encoder(config))

    def decoder_stream(self, config: StreamConfig | None = None) -> DecoderStream:
        """A new stream from tokens to 24 kHz audio."""
        return DecoderStream(self.decoder(config))

    def voice(self, tokens: Any) -> Voice:
        """A voice for decoder streams to start from, by at least 100 of its tokens. Raises TokenError, InputError."""
        return Voice(tokens)

    @torch.inference_mode()
    def encode(self, pcm: np.ndarray | str | Path) -> np.ndarray:
        """A whole recording, float32 mono at 16 kHz (n,) or an audio file of any rate -> tokens uint16 (n // 320,).

        Raises AudioError for audio that cannot be used.
        """
        pcm = check_audio(read_audio(pcm) if isinstance(pcm, (str, Path)) else pcm)
        frames = len(pcm) // INPUT_HOP
        if not frames:
            return np.zeros(0, np.uint16)
        padded = torch.from_numpy(np.pad(pcm, (0, (frames + 1) * INPUT_HOP - len(pcm))))[None].to(self.device)
        dtype = self.model.fc_encoder.weight.dtype
        features = offline_features(padded)
        codes = self.model.encode(padded[:, None].to(dtype), features.to(dtype)).audio_codes
        return codes[0, 0].cpu().numpy().astype(np.uint16)

    @torch.inference_mode()
    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens uint16 (F,) of a whole recording -> audio float32 (F * 480,) at 24 kHz. Raises TokenError."""
        tokens = check_tokens(tokens)
        if not len(tokens):
            return np.zeros(0, np.float32)
        codes = torch.from_numpy(tokens.astype(np.int64))[None, None].to(self.device)
        return self.model.decode(codes).audio_values[0, 0].float().cpu().numpy()

    def encode_code(self, audio: Tensor | str | Path) -> Tensor:
        """The original package's call: audio (B, 1, T) at 16 kHz, or a file -> codes int32 (B, 1, F)."""
        rows = [row[0] for row in _three_axes(audio)] if isinstance(audio, Tensor) else [audio]
        codes = [self.encode(row.cpu().numpy() if isinstance(row, Tensor) else row) for row in rows]
        return torch.from_numpy(np.stack(codes).astype(np.int32))[:, None]

    def decode_code(self, codes: Tensor) -> Tensor:
        """The original package's call: codes (B, 1, F) -> audio float32 (B, 1, F * 480) at 24 kHz."""
        audio = [self.decode(row[0].cpu().numpy()) for row in _three_axes(codes)]
        return torch.from_numpy(np.stack(audio))[:, None]

    def _stepper(self, kind: type, config: StreamConfig | None) -> Encoder | Decoder:
        config = config or self.default_config
        key = (kind, config)
        if key not in self._steppers:
            self._steppers[key] = kind(self._stepped, config, self._priors, self.fingerprint)
        return self._steppers[key]


def load_codec(
    name: str | Path, device: str = "cpu", dtype: torch.dtype | None = None, stream_json: str | Path | None = None
) -> Codec:
    """Load "nano" (bundled), a folder with config.json and model.safetensors, or a hub id such as neuphonic/neucodec.

    `dtype` is float32 unless given. `stream_json`: the file to take instead of the one beside the weights. Raises
    ModelError for what is missing, corrupt, or no NeuCodec.
    """
    folder = ASSETS / name if str(name) in BUNDLED else Path(name)
    is_folder = folder.is_dir()
    if is_folder:
        _check_folder(folder)
    elif folder.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise ModelError(f"no model {str(name)!r}: give {' or '.join(BUNDLED)}, a folder with config.json, or a hub id")
    if stream_json is not None and not Path(stream_json).is_file():
        raise ModelError(f"no file {str(stream_json)!r}: give the stream.json that a calibration wrote")
    priors = read_priors(folder / "stream.json" if stream_json is None else Path(stream_json))
    model = _load_model(folder if is_folder else str(name), dtype or torch.float32)
    try:
        model = model.to(device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used ({error}): give cpu or cuda") from error
    return Codec(str(name), model, priors)


def read_audio(path: str | Path) -> np.ndarray:
    """An audio file of any rate and channel count -> float32 mono at 16 kHz (n,). Raises InputError."""
    import soundfile
    import soxr

    try:
        pcm, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path} cannot be read as audio: {error}") from error
    return soxr.resample(pcm.mean(axis=1), rate, INPUT_RATE) if rate != INPUT_RATE else pcm.mean(axis=1)


def _check_folder(folder: Path) -> None:
    for needed in ("config.json", "model.safetensors"):
        sharded = folder / f"{needed}.index.json"
        if not (folder / needed).is_file() and not sharded.is_file():
            raise ModelError(f"{folder} has no {needed}: a model folder holds config.json and model.safetensors")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} is no JSON object ({error}): fetch the model again") from error
    if kind != "neucodec":
        raise ModelError(f"{folder / 'config.json'} has model_type {kind!r}: this software steps 'neucodec' models")


def _load_model(source: Path | str, dtype: torch.dtype) -> Any:
    from transformers import NeuCodecConfig, NeuCodecModel
    from transformers.utils import logging

    from_pretrained: Any = NeuCodecModel.from_pretrained
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = NeuCodecConfig.from_pretrained(source)
        _check_config(config, str(source))
        model, loading = from_pretrained(
            source, config=config, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True
        )
    except ModelError:
        raise
    except Exception as error:  # the border to transformers, safetensors and the hub: many kinds, one meaning
        raise ModelError(
            f"model {str(source)!r} cannot be loaded ({error}): check the folder, or the name and the network"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    wrong = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in loading[kind])
    if wrong:
        raise ModelError(
            f"model {str(source)!r} lacks or misshapes {len(wrong)} weights, {wrong[0]} first: fetch it anew"
        )
    return model


def _check_config(config: Any, name: str) -> None:
    """Refuse what the steps are not written for."""
    semantic = config.semantic_model_config
    expected = {
        "frame hop": (config.encoder_hop_length, INPUT_HOP),
        "input rate": (config.input_sampling_rate, INPUT_RATE),
        "output rate": (config.output_sampling_rate, OUTPUT_RATE),
        "codebook size": (int(np.prod(config.quantization_levels)), CODEBOOK_SIZE),
        "position_embeddings_type": (semantic.position_embeddings_type, "relative_key"),
        "add_adapter": (bool(semantic.add_adapter), False),
    }
    for what, (found, needed) in expected.items():
        if found != needed:
            raise ModelError(f"model {name!r} has {what} {found!r}, and only {needed!r} can be streamed")


def _three_axes(value: Tensor) -> Tensor:
    if value.ndim != 3 or value.shape[1] != 1:
        raise InputError(f"tensor has shape {tuple(value.shape)}: give (B, 1, T)")
    return value
