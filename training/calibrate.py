"""Measures what speech looks like to a model's normalisations: `python -m training.calibrate --model FOLDER`.

Offline, every mel bin and every GroupNorm of the decoder is normalised over the recording; a stream has heard almost
nothing at its start. `stream.json` beside the weights gives it an expectation: means and variances over training speech,
the mel bins relative to the overall level of the recording, and the number of frames that they count as. Also the defaults
of a stream. Source of the format: `streaming.priors`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from streaming import load_codec
from streaming.codec import Codec
from streaming.layers.features import log_mel
from streaming.priors import VERSION
from training.data import Speech

CLIP_FRAMES = 300
GAIN_DB = (-10.0, 3.0)


class _GroupMoments:
    """Sums, over clips, the mean and the variance of each group at the input of one GroupNorm."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        self.groups = norm.num_groups
        self.mean, self.variance = torch.zeros(norm.num_groups), torch.zeros(norm.num_groups)
        norm.register_forward_pre_hook(self._look)

    def _look(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        grouped = inputs[0].unflatten(1, (self.groups, -1))[0].flatten(1)  # (1, C, F) -> (32, C / 32 * F)
        self.mean += grouped.mean(dim=1)
        self.variance += grouped.var(dim=1, unbiased=False)


def calibrate(codec: Codec, speech: Speech, clips: int, seed: int) -> dict[str, object]:
    """Means over `clips` random clips of the statistics that the model, offline, would normalise each with."""
    rng = np.random.default_rng(seed)
    blocks = [*codec.model.acoustic_decoder.prior_net, *codec.model.acoustic_decoder.post_net]
    norms = [_GroupMoments(norm) for block in blocks for norm in (block.norm1, block.norm2)]
    mel_mean, mel_variance = torch.zeros(80), torch.zeros(80)
    for _ in range(clips):
        heard = speech.batch(rng, 1, CLIP_FRAMES, GAIN_DB).heard
        variance, mean = torch.var_mean(log_mel(heard)[0], dim=0)
        mel_mean += mean - mean.mean()
        mel_variance += variance
        codec.decode(codec.encode(heard[0].numpy()))
    return {
        "mel": _rounded(mel_mean / clips, mel_variance / clips),
        "group_norm": [_rounded(norm.mean / clips, norm.variance / clips) for norm in norms],
    }


def _rounded(mean: Tensor, variance: Tensor) -> dict[str, list[float]]:
    return {"mean": [round(x, 5) for x in mean.tolist()], "variance": [round(x, 5) for x in variance.tolist()]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write stream.json: defaults and priors of a stream.")
    parser.add_argument("--model", type=Path, default=Path("streaming/assets/nano"))
    parser.add_argument("--work", type=Path, default=Path("training/work"), help="folder with prepared speech")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk-frames", type=int, default=5)
    parser.add_argument("--lookahead-frames", type=int, default=5)
    parser.add_argument("--context-frames", type=int, default=250)
    parser.add_argument("--prior-weight", type=float, default=25.0, help="frames that the priors count as")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    defaults = {
        "version": VERSION,
        "chunk_frames": arguments.chunk_frames,
        "lookahead_frames": arguments.lookahead_frames,
        "context_frames": arguments.context_frames,
        "prior_weight": arguments.prior_weight,
    }
    speech = Speech(arguments.work, held_out=False)
    measured = calibrate(load_codec(arguments.model), speech, arguments.clips, arguments.seed)
    out = arguments.model / "stream.json"
    out.write_text(json.dumps(defaults | measured) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
