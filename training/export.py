"""Writes a model folder from a checkpoint: `python -m training.export --checkpoint FILE --out FOLDER`.

The folder holds what `NeuCodecModel.from_pretrained` reads: `config.json` and `model.safetensors`, float16, of the
moving average of the weights. `stream.json`, the priors of a stream, comes from the calibration, and the model card is
written by hand; both stay as they are.
"""

import argparse
from pathlib import Path

import torch
from transformers import NeuCodecModel

from training.model import nano_config


def export(checkpoint: Path, out: Path) -> int:
    """Writes the folder; returns the step at which the checkpoint was taken. Raises FileNotFoundError without one."""
    if not checkpoint.exists():
        raise FileNotFoundError(f"{checkpoint} does not exist; train first, or name the checkpoint.pt of a work folder")
    content = torch.load(checkpoint, weights_only=True)
    model = NeuCodecModel(nano_config())
    model.load_state_dict(content["average"])
    model.to(torch.float16).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # written for the owner only, but shipped to everyone
    return int(content["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Export a checkpoint as a model folder.")
    parser.add_argument("--checkpoint", type=Path, default=Path("training/work/checkpoint.pt"))
    parser.add_argument("--out", type=Path, default=Path("streaming/assets/nano"))
    arguments = parser.parse_args()
    step = export(arguments.checkpoint, arguments.out)
    print(f"{arguments.out}: step {step}, {(arguments.out / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
