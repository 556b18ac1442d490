"""A model with int8 weights, and the cache from which a second start loads them packed.

A large model is quantised once. The result is cached beside the compiled kernels (XDG_CACHE_HOME, ~/.cache), under a
name that identifies the model's files, the kinds and the layout. The file is replaced atomically and used only if its
digest matches. Packed weights are read into huge pages, the rest into ordinary memory.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from neucodec_streaming.kernels import int8, native
from neucodec_streaming.kernels.memory import HugePages, aligned, give_back_freed_memory
from neucodec_streaming.kernels.packed import pack_layers, release_originals
from neucodec_streaming.loading import load_model, model_class
from neucodec_streaming.stepper import raw_bytes

SMALL_MODEL_BYTES = 1 << 26
"""Smaller packed weights are recomputed at each start, since it takes no time."""

_log = logging.getLogger(__name__)


def load_int8_model(source: Path | str, kinds: Sequence[str]) -> tuple[nn.Module, str]:
    """The parts that `kinds` need, with packed weights only, and the digest of those. Raises ModelError."""
    path = _cache_file(source, kinds)
    if path is not None and path.exists():
        try:
            return _read(path, source, kinds)
        except Exception as error:  # if the cache is unusable, the model itself is still available
            _log.warning("%s is damaged, packing the weights again: %s", path, error)
    model = pack_layers(load_model(source, torch.float32, kinds), int8.is_int8)
    give_back_freed_memory()
    tensors = _tensors(model)
    digest = digest_of(tensors)
    path = path or _cache_file(source, kinds)  # the hub's files are on this machine now
    if path is not None and sum(tensor.nbytes for tensor in tensors.values()) > SMALL_MODEL_BYTES:
        try:
            _write(path, tensors, digest)
            return _read(path, source, kinds)
        except OSError as error:
            _log.warning("the packed weights cannot be cached for the next start: %s", error)
    release_originals(model)
    return model, digest


def digest_of(tensors: dict[str, Tensor]) -> str:
    """Hash of names and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor).data)
    return digest.hexdigest()


def _cache_file(source: Path | str, kinds: Sequence[str]) -> Path | None:
    """The cache file of a model's packed weights; None before the model is on this machine."""
    folder = source if isinstance(source, Path) else _hub_folder(source)
    files = [] if folder is None else [*sorted(folder.glob("*.safetensors*")), folder / "config.json"]
    if not files:
        return None
    stamps = [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    is_native = native.operations(torch.zeros(0)) is not None
    parts = (int8.LAYOUT, int8.FLOAT_LAYERS, is_native, sorted(kinds), version("transformers"), stamps)
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return native.cache_folder() / f"int8-{digest}.safetensors"


def _hub_folder(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def _write(path: Path, tensors: dict[str, Tensor], digest: str) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:  # another process may do the same
        written = Path(folder) / path.name
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, written, {"digest": digest})
        written.replace(path)


def _read(path: Path, source: Path | str, kinds: Sequence[str]) -> tuple[nn.Module, str]:
    """A model over the tensors of a file. Raises safetensors' errors, and ValueError if they do not fit."""
    from safetensors import safe_open
    from transformers import NeuCodecConfig

    native.check_owner(path)
    config: Any = NeuCodecConfig.from_pretrained(source)
    config.dtype = config.semantic_model_config.dtype = torch.float32  # the same device as the weights
    with torch.device("meta"):
        model = pack_layers(model_class(kinds)(config), int8.is_int8)
    expected, found = _tensors(model), {}
    pages = HugePages(sum(aligned(tensor.nbytes) for name, tensor in expected.items() if name.endswith(".packed")))
    with safe_open(path, "pt") as file:
        digest = file.metadata()["digest"]
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            if name.endswith(".packed"):
                copy = pages.empty(tuple(tensor.shape), tensor.dtype, tensor.device)
                found[name] = copy.copy_(tensor)
            else:
                found[name] = tensor.clone()  # one view would keep the whole file mapped
    if {name: tensor.shape for name, tensor in expected.items()} != {name: x.shape for name, x in found.items()}:
        raise ValueError("its tensors belong to another model")
    if digest_of(found) != digest:
        raise ValueError("its digest does not match")
    for prefix, module in model.named_modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    value = found[f"{prefix}.{name}".removeprefix(".")]
                    own[name] = nn.Parameter(value, requires_grad=False) if own is module._parameters else value
    release_originals(model)
    return model.eval(), digest


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of the model, including buffers that it does not save."""
    return dict(model.named_parameters()) | dict(model.named_buffers())
