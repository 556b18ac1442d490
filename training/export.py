"""Writes a model folder from checkpoints: `python -m training.export --checkpoint FILE --work FOLDER --out FOLDER`.

The folder has the files that `NeuCodecModel.from_pretrained` reads, in float16, with the moving average of the weights;
of several runs that began at one checkpoint it has the mean.
A loss on log spectra is minimal at the median of the possible outputs, so the model learns to speak some decibels too
quietly; the gap, measured on held-out speakers, is added to the bias of the head's log magnitude. `stream.json`, which
comes from the calibration, and the model card, which is written by hand, are kept.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import NeuCodecModel

from training.data import HOP_IN, Speech
from training.model import mean_weights, nano_config, reconstruct

_CLIP_FRAMES = 500


def export(checkpoints: Sequence[Path], speech: Speech, out: Path) -> dict[str, float]:
    """Returns the step of the first checkpoint and the level that was added, in decibels.

    Raises FileNotFoundError if a checkpoint is missing.
    """
    for path in checkpoints:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; train first, or name the checkpoint.pt of a work folder")
    contents = [torch.load(path, weights_only=True) for path in checkpoints]
    weights = mean_weights([content["average"] for content in contents])
    layers = sum(name.endswith("input_layernorm.weight") for name in weights)  # of the decoder
    model = NeuCodecModel(nano_config(layers)).eval()
    model.load_state_dict(weights)
    added_db = missing_level_db(model, speech)
    head = model.acoustic_decoder.head.linear
    with torch.no_grad():
        head.bias[: head.out_features // 2] += added_db / 20.0 * math.log(10.0)
    model.to(torch.float16).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # written for the owner only, but shipped to everyone
    return {"step": contents[0]["step"], "added_db": added_db}


@torch.no_grad()
def missing_level_db(model: NeuCodecModel, speech: Speech) -> float:
    """Returns how much quieter the output is than the original in dB: the mean over ten seconds of every recording."""
    gaps = []
    for recording in speech.recordings:
        heard, target = speech.whole(recording, _CLIP_FRAMES)
        audio = reconstruct(model, torch.from_numpy(np.pad(heard, (0, HOP_IN)))[None]).audio[0]
        gaps.append(_level_db(torch.from_numpy(target)) - _level_db(audio))
    return float(np.mean(gaps))


def _level_db(audio: Tensor) -> float:
    return 10.0 * math.log10(float(audio.square().mean()) + 1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description="Export a checkpoint, or the mean of several, as a model folder.")
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[Path("training/run/checkpoint.pt")])
    parser.add_argument("--work", type=Path, default=Path("training/run"), help="folder with prepared speech")
    parser.add_argument("--out", type=Path, default=Path("streaming/assets/nano"))
    arguments = parser.parse_args()
    done = export(arguments.checkpoint, Speech(arguments.work, held_out=True), arguments.out)
    megabytes = (arguments.out / "model.safetensors").stat().st_size / 1e6
    print(f"{arguments.out}: step {done['step']}, level {done['added_db']:+.1f} dB, {megabytes:.1f} MB")


if __name__ == "__main__":
    main()
