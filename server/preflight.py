"""Checks of --check-config for faults that would prevent a start: a missing model, an unusable device."""

import re
from pathlib import Path

from neucodec_streaming.errors import ConfigError, ModelError

HUB_TIMEOUT_S = 5.0
MAX_REASON_LENGTH = 100
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def check_model(name: str) -> None:
    """Looks for a bundled model, a folder, or a hub model, in the cache or on the hub. Raises ModelError."""
    from neucodec_streaming.codec import ASSETS, BUNDLED

    folder = ASSETS / name if name in BUNDLED else Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"model folder {name!r} has no config.json: a model folder contains config.json and model.safetensors"
            )
        return
    if not _HUB_ID.fullmatch(name) or Path(name).exists():
        raise ModelError(f"no model {name!r}: use {' or '.join(BUNDLED)}, a folder with config.json, or a hub id")
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
    except RepositoryNotFoundError:
        raise ModelError(f"the hub has no model {name!r}: check the name, or set HF_TOKEN if it is private") from None
    except OfflineModeIsEnabled:
        raise ModelError(
            f"model {name!r} is not in the cache and HF_HUB_OFFLINE is set: download it first, or unset the variable"
        ) from None
    except Exception as error:  # the hub's library raises many kinds of errors, all meaning the same
        raise ModelError(
            f"model {name!r} is not in the cache, and the hub cannot be reached ({type(error).__name__}): check"
            " the network"
        ) from None


def check_device(device: str) -> None:
    """Allocates a little memory on the device. Raises ConfigError."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).partition(". ")[0].partition("\n")[0]  # without advice, or a list of all devices
        reason = f" ({first})" if len(first) < MAX_REASON_LENGTH else ""
        raise ConfigError(f"device {device!r} cannot be used{reason}: use cpu, cuda or cuda:N") from None
