"""The loss of fidelity by int8, per layer group and in total: `python -m benchmarks.int8 --data FOLDER`.

Streams FOLDER/eval/SPEAKER/*.flac at the defaults. For each group of layers, quantised alone: the share of FSQ levels
within one of float32's and equal to it, and the signal-to-noise ratio of audio decoded from equal tokens. Then the same
for everything that `--dtype int8` quantises, with STOI and PESQ of the round trip next to float32's.
"""

import argparse
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.recordings import recordings, thinned
from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.metrics.nearness import level_differences
from benchmarks.metrics.scores import compare
from neucodec_streaming.codec import Codec, load_codec, read_audio
from neucodec_streaming.kernels.int8 import is_int8
from neucodec_streaming.kernels.packed import with_packed_weights

GROUPS = {
    "semantic projection": "semantic_encoder.feature_projection.*",
    "semantic feed-forward": "semantic_encoder.*ffn*",
    "semantic attention": "semantic_encoder.*self_attn.*",
    "semantic pointwise": "semantic_encoder.*pointwise*",
    "semantic adapter": "semantic_adapter.*",
    "acoustic blocks": "acoustic_encoder.block.*",
    "acoustic last": "acoustic_encoder.conv2",
    "fc_encoder": "fc_encoder",
    "quantizer": "quantizer.*",
    "decoder fc": "acoustic_decoder.fc",
    "decoder embed": "acoustic_decoder.embed",
    "decoder prior_net": "acoustic_decoder.prior_net.*",
    "decoder attention": "acoustic_decoder.layers.*self_attn.*",
    "decoder feed-forward": "acoustic_decoder.layers.*mlp.*",
    "decoder post_net": "acoustic_decoder.post_net.*",
    "decoder head": "acoustic_decoder.head.*",
}
TARGETS = {"within_1": 0.99, "stoi": -0.002, "pesq": -0.02}
"""Minimum for int8, and the largest acceptable losses relative to float32."""

Figures = dict[str, float]


def streamed(codec: Codec, pcm: np.ndarray, tokens: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens of a recording, and the audio of those or of `tokens`."""
    encoder, decoder = codec.encoder_stream(), codec.decoder_stream()
    own = np.concatenate([encoder.feed(pcm), encoder.flush()])
    return own, np.concatenate([decoder.feed(own if tokens is None else tokens), decoder.flush()])


def nearness(quantised: Codec, references: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figures:
    """Compares levels and audio of a quantised codec with (pcm, tokens, audio) of float32."""
    differences, signal, noise = [], 0.0, 0.0
    for pcm, tokens, audio in references:
        found, heard = streamed(quantised, pcm, tokens)
        differences.append(level_differences(found, tokens))
        signal += float(np.square(audio, dtype=np.float64).sum())
        noise += float(np.square(heard - audio, dtype=np.float64).sum())
    levels = np.concatenate(differences)
    return {
        "within_1": float((levels <= 1).mean()),
        "equal": float((levels == 0).mean()),
        "snr_db": float(10 * np.log10(signal / noise)) if noise else float("inf"),
    }


def scores(codec: Codec, recordings_pcm: list[np.ndarray]) -> Figures:
    each = [compare(pcm[: len(pcm) // 320 * 320], streamed(codec, pcm)[1]) for pcm in recordings_pcm]
    return {name: float(np.mean([one[name] for one in each if one[name] is not None])) for name in ("stoi", "pesq")}


def with_int8(exact: Codec, chosen: Callable[[str], bool]) -> Codec:
    return Codec(exact.name, with_packed_weights(exact.model, chosen), exact.priors, is_packed=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--data", type=Path, default=Path("../shared/speech"), help="folder above eval (%(default)s)")
    parser.add_argument("--files", type=int, default=24, help="recordings, evenly over the speakers; 0: all")
    parser.add_argument("--out", type=Path, default=RESULTS_FOLDER / "int8.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    exact = load_codec(given.model)
    pcms = [read_audio(path) for _, path in thinned(recordings(given.data), given.files)]
    references = [(pcm, *streamed(exact, pcm)) for pcm in pcms]
    few = references[:: max(1, len(references) // 8)]
    rows = {}
    for group, pattern in GROUPS.items():
        rows[group] = nearness(with_int8(exact, lambda name, pattern=pattern: fnmatch(name, pattern)), few)
        print(f"{group:24}", *(f"{name} {value:8.4f}" for name, value in rows[group].items()))
    quantised = with_int8(exact, is_int8)
    whole = nearness(quantised, references)
    ours, theirs = scores(quantised, pcms), scores(exact, pcms)
    lost = {name: ours[name] - theirs[name] for name in ours}
    print(f"{'int8':24}", whole, "round trip", ours, "float32", theirs, "difference", lost)
    met = {name: (whole | lost)[name] >= least for name, least in TARGETS.items()}
    print("met", met)
    found = {"command": f"python -m benchmarks.int8 --model {given.model} --files {given.files}", "files": len(pcms)}
    write_report(
        given.out, found | {"groups": rows, "int8": whole | ours, "float32": theirs, "difference": lost, "met": met}
    )


if __name__ == "__main__":
    main()
