"""Loads a `NeuCodecModel` from a folder or the hub, checked before and after, with only the needed parts."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neucodec_streaming.config import CODEBOOK_SIZE, INPUT_HOP, INPUT_RATE, TOKENS_PER_SECOND
from neucodec_streaming.errors import ModelError

PARTS = {
    "encode": ("semantic_encoder", "semantic_adapter", "acoustic_encoder", "fc_encoder"),
    "decode": ("acoustic_decoder",),
}
"""Kind -> the parts of the model that only it needs; both need the quantiser."""
ORIGINAL = "pytorch_model.bin"
"""File name of checkpoints in the original layout."""
HUB_PATIENCE_S = 4.0
MIN_RATE, MAX_RATE = 8_000, 48_000
"""Range of a decoder's output rate in Hz."""


def check_folder(folder: Path) -> None:
    """Raises ModelError if a model folder lacks a file or its configuration is not a NeuCodec's."""
    for needed in ("config.json", "model.safetensors"):
        sharded = folder / f"{needed}.index.json"
        if not (folder / needed).is_file() and not sharded.is_file():
            raise ModelError(f"{folder} has no {needed}: a model folder contains config.json and model.safetensors")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"{folder / 'config.json'} is not a JSON object ({error}): download the model again"
        ) from error
    if kind != "neucodec":
        raise ModelError(f"{folder / 'config.json'} has model_type {kind!r}: use a 'neucodec' model")


def hub_checkpoint(name: str) -> Path | None:
    """The checkpoint in the original layout that the hub has under `name`; None if it has a model folder.

    Raises ModelError, within about HUB_PATIENCE_S without a network.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return None
    cached = try_to_load_from_cache(name, ORIGINAL)
    if isinstance(cached, str):
        return Path(cached)
    files = _hub_files(name)
    return Path(hf_hub_download(name, ORIGINAL)) if ORIGINAL in files and "config.json" not in files else None


def _hub_files(name: str) -> list[str]:
    """File names of a repository, queried in a thread, since resolving a host name has no time limit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    found: list[list[str] | Exception] = []

    def ask() -> None:
        try:
            info = HfApi().model_info(name, timeout=HUB_PATIENCE_S)
            found.append([sibling.rfilename for sibling in info.siblings or []])
        except Exception as error:
            found.append(error)

    asking = threading.Thread(target=ask, name="hub", daemon=True)
    asking.start()
    asking.join(HUB_PATIENCE_S)
    answer = found[0] if found else TimeoutError(f"no answer within {HUB_PATIENCE_S:g} s")
    if isinstance(answer, GatedRepoError):
        raise ModelError(
            f"model {name!r} is gated: accept its terms at https://huggingface.co/{name} and set HF_TOKEN"
        ) from answer
    if isinstance(answer, RepositoryNotFoundError):
        raise ModelError(
            f"the hub has no model {name!r}: check the name, or set HF_TOKEN if it is private, see"
            f" https://huggingface.co/{name}"
        ) from answer
    if isinstance(answer, Exception):
        why = str(answer).partition("\n")[0]
        raise ModelError(
            f"model {name!r} is not in the cache, and the hub cannot be reached ({why}): check the name and the network"
        ) from answer
    return answer


def load_model(source: Path | str, dtype: torch.dtype, kinds: Sequence[str]) -> Any:
    """The parts of a `NeuCodecModel` that `kinds` need, from a folder or the hub; other parts are not read."""
    from transformers import NeuCodecConfig
    from transformers.utils import logging

    from_pretrained: Any = model_class(kinds).from_pretrained
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = NeuCodecConfig.from_pretrained(source)
        _check_config(config, str(source))
        reason = getattr(config, "without_encoder", None)
        if reason and "encode" in kinds:
            raise ModelError(f"model {str(source)!r} only decodes ({reason}): load it with kinds=('decode',)")
        model, loading = from_pretrained(
            source, config=config, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True
        )
    except ModelError:
        raise
    except Exception as error:  # transformers, safetensors and the hub raise many kinds of errors, all meaning the same
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
            f"model {str(source)!r} has missing or misshapen weights ({len(wrong)}, such as {wrong[0]}): download it"
            " again"
        )
    return model


def _check_config(config: Any, name: str) -> None:
    """Refuses models that the steps do not support."""
    semantic = config.semantic_model_config
    expected = {
        "frame hop": (config.encoder_hop_length, INPUT_HOP),
        "input rate": (config.input_sampling_rate, INPUT_RATE),
        "codebook size": (int(np.prod(config.quantization_levels)), CODEBOOK_SIZE),
        "position_embeddings_type": (semantic.position_embeddings_type, "relative_key"),
        "add_adapter": (bool(semantic.add_adapter), False),
    }
    for what, (found, needed) in expected.items():
        if found != needed:
            raise ModelError(f"model {name!r} has {what} {found!r}: only {needed!r} is supported")
    if config.output_sampling_rate % TOKENS_PER_SECOND or not MIN_RATE <= config.output_sampling_rate <= MAX_RATE:
        raise ModelError(
            f"model {name!r} has output rate {config.output_sampling_rate}: expected a multiple of {TOKENS_PER_SECOND}"
            f" from {MIN_RATE} to {MAX_RATE}"
        )


def model_class(kinds: Sequence[str]) -> Any:
    """The model class without the parts that only other kinds need."""
    from transformers import NeuCodecModel

    unneeded = [name for kind, names in PARTS.items() if kind not in kinds for name in names]
    if not unneeded:
        return NeuCodecModel

    class NeuCodecPart(NeuCodecModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self._keys_to_ignore_on_load_unexpected = {rf"^{name}\." for name in unneeded}
            for name in unneeded:
                delattr(self, name)

    return NeuCodecPart
