"""What better tokens would gain: `python -m training.search FOLDER --work FOLDER`.

For some clips of `training.validate`, searches the quantiser's input by gradient descent on the reconstruction loss,
starting from the encoder's, with the decoder fixed. Bits and decoder are the same, so the encoder loses what the search
gains. It is an upper bound: the search sees the whole clip, a live encoder only its lookahead.
"""

import argparse
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import NeuCodecModel

from training.data import HOP_IN, HOP_OUT, RATE_IN, RATE_OUT, Speech
from training.losses import RESOLUTIONS, LossWeights, losses, total
from training.model import audio_of, quantiser_input
from training.validate import clips, measures

EVERY_CLIP = 5
LEARNING_RATE = 0.02
BANDWIDTH_HZ = RATE_IN / 2


def searched(model: NeuCodecModel, heard: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the audio of the encoder's tokens and of the searched ones: (F * 320,) at 16 kHz -> (F * 480,) each."""
    with torch.no_grad():
        first = quantiser_input(model, torch.from_numpy(np.pad(heard, (0, HOP_IN)))[None])
        encoded = audio_of(model, first)
    target = torch.from_numpy(soxr.resample(heard, RATE_IN, RATE_OUT).astype(np.float32))[None]
    target = F.pad(target, (0, first.shape[1] * HOP_OUT - target.shape[1]))
    best = first.clone().requires_grad_()
    optimiser = torch.optim.Adam([best], lr=LEARNING_RATE, betas=(0.9, 0.99))
    for step in range(steps):
        optimiser.zero_grad()
        _loss(audio_of(model, best), target, first, step).backward()
        optimiser.step()
    with torch.no_grad():
        return encoded[0].numpy(), audio_of(model, best)[0].numpy()


def _loss(audio: Tensor, target: Tensor, projected: Tensor, step: int) -> Tensor:
    resolutions = RESOLUTIONS[step % 2 :: 2]
    return total(losses(audio, target, torch.tensor([BANDWIDTH_HZ]), projected, resolutions), LossWeights())


def main() -> None:
    parser = argparse.ArgumentParser(description="Find what better tokens would gain.")
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--work", type=Path, required=True, help="folder with prepared speech")
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = NeuCodecModel.from_pretrained(arguments.model, dtype=torch.float32).eval().requires_grad_(False)
    heard = clips(Speech(arguments.work, held_out=True))[::EVERY_CLIP]
    said = [searched(model, clip, arguments.steps) for clip in heard]
    for at, name in enumerate(("of the encoder", "searched")):
        found = measures(
            (clip, soxr.resample(both[at], RATE_OUT, RATE_IN)[: len(clip)])
            for clip, both in zip(heard, said, strict=True)
        )
        print(f"tokens {name:16} STOI {found['stoi']:.4f}  PESQ {found['pesq']:.3f}", flush=True)


if __name__ == "__main__":
    main()
