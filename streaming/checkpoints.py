"""Converts checkpoints in the original layout (PyPI `neucodec`) to model folders: names, fused weights, configuration.

    pytorch_model.bin (or .pt, .ckpt, .safetensors): generator.*, CodecEnc.*, SemanticEncoder_module.*, fc_prior,
    fc_post_a
    w2v-BERT 2.0 apart (a folder of facebook/w2v-bert-2.0), or in it as semantic_model.*; the first 16 layers are used

Checkpoints of a decoder alone, such as fine-tunes and distill-neucodec, become folders that decode only. Decoder
convolutions often appear twice, plain and as weight norm; the plain one is used, as the original package does. Files
are read with torch's restricted loader, so nothing in them is executed. Source of the names: neucodec/model.py and
transformers' NeuCodec port.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neucodec_streaming.config import TOKENS_PER_SECOND
from neucodec_streaming.errors import ModelError, reason_of
from neucodec_streaming.kernels.native import cache_folder

FILES = ("pytorch_model.bin", "model.pt", "model.ckpt")
"""File names of an original checkpoint in a folder."""
SEMANTIC_LAYERS = 16
HEAD_DIM = 64
FFT_HOPS = 4
DISTILL = ("codec_encoder.", "fc_sq_prior.")
DISTILL_REASON = "the encoder of distill-neucodec looks 1.28 s ahead, so it cannot be streamed"
UNUSED = ("fc_post_s", "SemanticDecoder", *DISTILL, "feature_extractor.")
"""Parts that only training or other models need."""
BUFFERS = (".filter", ".window", "quantizer.layers.0.", "num_batches_tracked", "rotary")
"""Constants that the model computes itself."""
_ACTIVATION_AND_CONV = ("snake1", "conv1", "snake2", "conv2")
_RENAMED = {
    "generator.quantizer.": "quantizer.",
    "generator.backbone.final_layer_norm.": "acoustic_decoder.norm.",
    "generator.backbone.transformers.": "acoustic_decoder.layers.",
    "generator.backbone.": "acoustic_decoder.",
    "generator.head.out.": "acoustic_decoder.head.linear.",
    "fc_prior.": "fc_encoder.",
    "fc_post_a.": "acoustic_decoder.fc.",
    "semantic_model.": "semantic_encoder.",
    "SemanticEncoder_module.initial_conv.": "semantic_adapter.conv1.",
    "SemanticEncoder_module.residual_blocks.1.": "semantic_adapter.conv2.",
    "SemanticEncoder_module.residual_blocks.3.": "semantic_adapter.conv3.",
    "SemanticEncoder_module.final_conv.": "semantic_adapter.conv4.",
    "CodecEnc.conv_blocks.0.": "acoustic_encoder.conv1.",
    "CodecEnc.conv_final_block.0.": "acoustic_encoder.snake1.",
    "CodecEnc.conv_final_block.1.": "acoustic_encoder.conv2.",
}
"""Original prefix -> ours; the first match applies."""
_IN_LAYER = {".att.c_proj.": ".self_attn.o_proj.", ".att_norm.": ".input_layernorm."}
_IN_LAYER |= {".ffn_norm.": ".post_attention_layernorm."}
_BLOCK = re.compile(r"CodecEnc\.conv_blocks\.(\d+)\.block\.(\d)\.(?:block\.(\d)\.)?(.+)")
_FUSED = ".att.c_attn.weight"


def original_file(path: Path) -> Path | None:
    """The original checkpoint at or in `path`; None if there is none."""
    if path.is_file() and path.suffix in (".bin", ".pt", ".ckpt", ".pth", ".safetensors"):
        return path
    if not path.is_dir() or (path / "model.safetensors").exists() or (path / "model.safetensors.index.json").exists():
        return None
    return next((path / name for name in FILES if (path / name).is_file()), None)


def _required_file(source: Path) -> Path:
    file = original_file(source)
    if file is None:
        raise ModelError(
            f"{source} is not a checkpoint in the original layout: specify a folder with {' or '.join(FILES)}"
        )
    return file


def converted(source: Path) -> Path:
    """The cached folder converted from `source`; the first call converts it. Raises ModelError."""
    file = _required_file(source)
    stat = file.stat()
    key = hashlib.sha256(repr((str(file.resolve()), stat.st_size, stat.st_mtime_ns)).encode())
    folder = cache_folder() / "converted" / key.hexdigest()[:24]
    if not folder.exists():
        try:
            convert(source, folder)
        except (OSError, ModelError):
            if not folder.exists():  # or another process was faster
                raise
    return folder


def convert(source: Path, folder: Path, semantic: Path | None = None) -> list[str]:
    """Converts an original checkpoint to a model folder; returns remarks for the user.

    `semantic`: a folder of w2v-BERT 2.0, if the checkpoint has none; without it the result decodes only. A
    `config.json` beside the checkpoint provides what the weights do not show, such as the number of heads. Raises
    ModelError, and then writes nothing.
    """
    from safetensors.torch import save_file

    file = _required_file(source)
    if folder.exists():
        raise ModelError(f"{folder} already exists: specify a new folder")
    original = _read(file)
    semantic_config: dict[str, Any] = {}
    if semantic is not None:
        semantic_config = _json(semantic / "config.json")
        weights = next((semantic / name for name in ("model.safetensors", *FILES) if (semantic / name).is_file()), None)
        if weights is None:
            raise ModelError(f"{semantic} has no weights: specify a folder of facebook/w2v-bert-2.0")
        original |= {f"semantic_model.{name}": tensor for name, tensor in _read(weights).items()}
    remarks: list[str] = []
    given = _json(file.parent / "config.json") if (file.parent / "config.json").is_file() else {}
    config = _config(original, given, semantic_config)
    reason = _without_encoder(original)
    if reason is not None:
        config["without_encoder"] = reason
        remarks.append(f"decodes only: {reason}")
    state = dict(_renamed(original, config["num_attention_heads"], reason is None, remarks))
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    try:
        save_file(state, made / "model.safetensors", metadata={"format": "pt"})
        (made / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        if (file.parent / "stream.json").is_file():
            shutil.copy(file.parent / "stream.json", made)
        made.chmod(0o755)
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return remarks


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds of errors, all meaning the same
        why = str(error).partition("\n")[0]
        raise ModelError(f"{file} cannot be read as weights ({why}): download it again") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(f"{file} contains no state dict: save one with torch.save")
    return dict(state)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({reason_of(error)}): download it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object: download it again")
    return content


def _without_encoder(original: Mapping[str, Tensor]) -> str | None:
    """Why the checkpoint cannot encode; None if it can."""
    if any(name.startswith(DISTILL) for name in original):
        return DISTILL_REASON
    for prefix, what in (("CodecEnc.", "acoustic encoder"), ("semantic_model.", "w2v-BERT 2.0 (give its folder)")):
        if not any(name.startswith(prefix) for name in original):
            return f"the checkpoint has no {what}"
    return None


def _config(original: Mapping[str, Tensor], given: dict[str, Any], semantic: dict[str, Any]) -> dict[str, Any]:
    """Sizes inferred from the weights, overridden by the given configuration."""

    def shape(name: str) -> torch.Size:
        found = next((original[key] for key in (name, f"{name}_v") if key in original), None)
        if found is None:
            raise ModelError(f"the checkpoint has no {name}: specify a NeuCodec checkpoint in the original layout")
        return found.shape

    layers = {name.split(".")[3] for name in original if name.startswith("generator.backbone.transformers.")}
    hidden, width = shape("generator.quantizer.project_out.weight")[0], shape("fc_post_a.weight")[0]
    config: dict[str, Any] = {
        "model_type": "neucodec",
        "hidden_size": width,
        "head_dim": HEAD_DIM,
        "num_attention_heads": width // HEAD_DIM,
        "num_key_value_heads": width // HEAD_DIM,
        "num_hidden_layers": len(layers),
        "intermediate_size": shape("generator.backbone.transformers.0.mlp.fc1.weight")[0],
        "quantization_dim": hidden,
        "output_sampling_rate": (shape("generator.head.out.weight")[0] - 2) // FFT_HOPS * TOKENS_PER_SECOND,
    }
    if "CodecEnc.conv_blocks.0.weight_v" in original or "CodecEnc.conv_blocks.0.weight" in original:
        config["encoder_hidden_size"] = shape("CodecEnc.conv_blocks.0.weight")[0]
    semantic = semantic or {"model_type": "wav2vec2-bert", "hidden_size": hidden - width}
    config["semantic_model_config"] = semantic | {"num_hidden_layers": SEMANTIC_LAYERS, "add_adapter": False}
    return config | given


def _renamed(
    original: Mapping[str, Tensor], heads: int, with_encoder: bool, remarks: list[str]
) -> Iterator[tuple[str, Tensor]]:
    differing = []
    for name, tensor in original.items():
        if any(part in name for part in (*UNUSED, *BUFFERS)) or name.endswith(("weight_g", "original0")):
            continue
        target, value = name, tensor
        if name.endswith(("weight_v", "parametrizations.weight.original1")):
            plain = name.removesuffix("_v").replace("parametrizations.weight.original1", "weight")
            scale = original[name.replace("weight_v", "weight_g").replace("original1", "original0")]
            value = torch._weight_norm(tensor, scale, 0)
            if plain in original:
                if not torch.allclose(original[plain], value, rtol=1e-4, atol=1e-6):
                    differing.append(plain)
                continue
            target = plain
        yield from _placed(target, value, heads, with_encoder)
    if differing:
        remarks.append(
            f"convolutions whose plain weights differ from their weight norm: {len(differing)}, such as {differing[0]};"
            " the plain weights are used, as in the original package"
        )


def _placed(name: str, value: Tensor, heads: int, with_encoder: bool) -> Iterator[tuple[str, Tensor]]:
    """The weight under our names; empty for parts of an unwanted encoder."""
    if name.endswith(_FUSED):
        prefix = _our_name(name.removesuffix(_FUSED))
        for part, rows in zip("qkv", value.chunk(3), strict=True):
            turned = rows if part == "v" else _half_split(rows, heads)
            yield f"{prefix}.self_attn.{part}_proj.weight", turned.contiguous().clone()
        return
    ours = _our_name(name)
    layer = re.match(r"semantic_encoder\.encoder\.layers\.(\d+)\.", ours)
    if (layer and int(layer[1]) >= SEMANTIC_LAYERS) or ours.startswith("semantic_encoder.adapter."):
        return
    if with_encoder or ours.startswith(("acoustic_decoder.", "quantizer.")):
        yield ours, value.contiguous().clone()


def _half_split(rows: Tensor, heads: int) -> Tensor:
    """Reorders each head's rows from adjacent pairs to halves, as transformers' rotary embedding expects."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _our_name(name: str) -> str:
    block = _BLOCK.fullmatch(name)
    if block and int(block[1]) > 0:
        number, unit, inner, rest = int(block[1]) - 1, int(block[2]), block[3], block[4]
        if inner is None:
            where = "snake1" if unit == 3 else "conv1"
        else:
            where = f"res_unit{unit + 1}.{_ACTIVATION_AND_CONV[int(inner)]}"
        return f"acoustic_encoder.block.{number}.{where}.{rest}"
    for prefix, ours in _RENAMED.items():
        if name.startswith(prefix):
            name = ours + name.removeprefix(prefix)
            break
    for part, ours in _IN_LAYER.items():
        name = name.replace(part, ours)
    return name
