"""Validation during training: intelligibility on held-out training speakers, and a plot of the log.

`python -m training.validate FOLDER --work FOLDER` does the same for exported models, offline and streamed.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import soxr
import torch
from pystoi import stoi
from transformers import NeuCodecModel

from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.codec import Codec
from training.data import HOP_IN, RATE_IN, RATE_OUT, Speech
from training.model import reconstruct

_CLIP_FRAMES = 300


def validate(model: NeuCodecModel, speech: Speech) -> dict[str, float]:
    """Returns mean STOI and wide-band PESQ, offline, over clips of six seconds, at most two per held-out recording."""

    @torch.no_grad()
    def said(heard: np.ndarray) -> np.ndarray:
        padded = torch.from_numpy(np.pad(heard, (0, HOP_IN)))[None]
        return reconstruct(model, padded).audio[0].numpy()

    return scores(said, clips(speech))


def scores(say: Callable[[np.ndarray], np.ndarray], heard: list[np.ndarray]) -> dict[str, float]:
    """Returns mean STOI and wide-band PESQ of `say`'s output at 24 kHz for clips at 16 kHz (T,)."""
    return measures((clip, soxr.resample(say(clip), RATE_OUT, RATE_IN)[: len(clip)]) for clip in heard)


def measures(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Returns mean STOI and wide-band PESQ over pairs of a recording and its copy, which may be shorter, at 16 kHz."""
    from pesq import pesq  # has no wheels: users who do not train need no compiler

    found = []
    for recorded, said in pairs:
        meant = recorded[: len(said)]
        found.append((stoi(meant, said, RATE_IN), pesq(RATE_IN, meant, said, "wb")))
    return dict(zip(("stoi", "pesq"), map(float, np.mean(found, axis=0)), strict=True))


def clips(speech: Speech) -> list[np.ndarray]:
    """Returns up to two clips of six seconds from the start of every recording: float32 at 16 kHz (T,)."""
    wholes = [speech.whole(recording, 2 * _CLIP_FRAMES)[0] for recording in speech.recordings]
    size = _CLIP_FRAMES * HOP_IN
    return [whole[at : at + size] for whole in wholes for at in (0, size) if len(whole) >= at + size]


def plot(log: Path, picture: Path) -> None:
    """Does nothing without matplotlib."""
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


def ways(codec: Codec) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Returns a codec offline, and as a stream with the chunk and lookahead of the profiles `default` and `low`."""

    def streamed(pcm: np.ndarray, config: StreamConfig) -> np.ndarray:
        encoder, decoder = codec.encoder_stream(config), codec.decoder_stream(config)
        tokens = np.concatenate([encoder.feed(pcm), encoder.flush()])
        return np.concatenate([decoder.feed(tokens), decoder.flush()])

    return {
        "offline": lambda pcm: codec.decode(codec.encode(pcm)),
        "default, 5 + 5": partial(streamed, config=StreamConfig(5, 5, 250)),
        "low, 2 + 3": partial(streamed, config=StreamConfig(2, 3, 250)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Validate exported models on held-out speakers.")
    parser.add_argument("models", nargs="+", help="bundled names or folders")
    parser.add_argument("--work", type=Path, required=True, help="folder with prepared speech")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    heard = clips(Speech(arguments.work, held_out=True))
    for model in arguments.models:
        for name, say in ways(load_codec(model)).items():
            found = scores(say, heard)
            print(f"{model:28} {name:14} STOI {found['stoi']:.4f}  PESQ {found['pesq']:.4f}", flush=True)


if __name__ == "__main__":
    main()
