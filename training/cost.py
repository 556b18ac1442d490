"""The size and cost of a model: `python -m training.cost FOLDER`.

FLOPs are those of torch's counter (a multiplication and an addition are two) over ten seconds, offline, encoder and
decoder together. The filters of the anti-aliased activations are convolutions and count; so does attention, which is
computed without fused kernels here, since the counter ignores those. Elementwise operations do not count.
"""

import argparse
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import NeuCodecModel

_SECONDS = 10
_FRAMES = 50 * _SECONDS
_PARTS = ("semantic_encoder", "semantic_adapter", "acoustic_encoder", "fc_encoder", "quantizer", "acoustic_decoder")


def cost(folder: Path) -> dict[str, dict[str, float]]:
    """Returns parameters (millions) and FLOPs per second of audio (millions) by part and in `total`, and shipped
    megabytes.
    """
    model = NeuCodecModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    counter = FlopCounterMode(display=False, depth=2)
    with torch.no_grad(), counter:
        codes = model.encode(torch.zeros(1, 1, (_FRAMES + 1) * 320), torch.zeros(1, _FRAMES, 160)).audio_codes
        model.decode(codes)
    counts = counter.get_flop_counts()
    table = {}
    for part in _PARTS:
        module = getattr(model, part)
        flops = sum(counts[type(module).__name__].values())  # the counter names a part by its class
        parameters = sum(p.numel() for p in module.parameters())
        table[part] = {"parameters_m": parameters / 1e6, "mflop_per_s": flops / 1e6 / _SECONDS}
    table["total"] = {
        "parameters_m": sum(p.numel() for p in model.parameters()) / 1e6,
        "mflop_per_s": counter.get_total_flops() / 1e6 / _SECONDS,
        "shipped_mb": (folder / "model.safetensors").stat().st_size / 1e6,
    }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what a model folder costs.")
    parser.add_argument("folder", type=Path)
    table = cost(parser.parse_args().folder)
    for part, row in table.items():
        print(f"{part:18} {row['parameters_m']:7.3f} M parameters {row['mflop_per_s']:8.1f} MFLOP per second of audio")
    print(f"shipped {table['total']['shipped_mb']:.1f} MB")


if __name__ == "__main__":
    main()
