"""How training is going: intelligibility on held-out training speakers, and a picture of the log."""

import json
from pathlib import Path

import numpy as np
import soxr
import torch
from pystoi import stoi
from transformers import NeuCodecModel

from training.data import HOP_IN, RATE_IN, RATE_OUT, Speech
from training.model import reconstruct

_CLIP_FRAMES = 300


def validate(model: NeuCodecModel, speech: Speech) -> dict[str, float]:
    """Mean STOI and wide-band PESQ over clips of six seconds, at most two of every held-out speaker, offline."""
    from pesq import pesq  # has no wheels: whoever does not train needs no compiler

    scores = []
    for heard in clips(speech):
        with torch.no_grad():
            padded = torch.from_numpy(np.pad(heard, (0, HOP_IN)))[None]
            audio = reconstruct(model, padded).audio[0].numpy()
        said = soxr.resample(audio, RATE_OUT, RATE_IN)[: len(heard)]
        scores.append((stoi(heard, said, RATE_IN), pesq(RATE_IN, heard, said, "wb")))
    return dict(zip(("stoi", "pesq"), map(float, np.mean(scores, axis=0)), strict=True))


def clips(speech: Speech) -> list[np.ndarray]:
    """float32 at 16 kHz (T,): the first twelve seconds of every recording, cut into two where there are as many."""
    wholes = [speech.whole(recording, 2 * _CLIP_FRAMES)[0] for recording in speech.recordings]
    size = _CLIP_FRAMES * HOP_IN
    return [whole[at : at + size] for whole in wholes for at in (0, size) if len(whole) >= at + size]


def plot(log: Path, picture: Path) -> None:
    """Draws every term of the log over the steps; needs matplotlib, without which there is no picture."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    names = ["loss", "mel", "log_magnitude", "convergence", "envelope", "loudness", "coherence", "quantiser"]
    names += ["judging", "features", "stoi", "pesq"]
    figure = Figure(figsize=(14, 9), layout="constrained")
    for axes, name in zip(figure.subplots(3, 4).flat, names, strict=True):
        points = [(entry["step"], entry[name]) for entry in entries if name in entry]
        axes.plot(*zip(*points, strict=True) if points else ([], []))
        axes.set_title(name)
        axes.set_xlabel("step")
    figure.savefig(picture, dpi=80)
