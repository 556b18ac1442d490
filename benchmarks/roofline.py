"""A lower bound for the time of a step on CUDA: `python -m benchmarks.roofline` (no GPU needed; 1 minute).

Runs steps of the published size on the meta device, which has shapes and no values, in bfloat16, and counts every
operation that would be a kernel. A kernel's time is the longest of a launch inside a graph, its bytes at memory
bandwidth, and its products at tensor-core speed; a real GPU takes 1.3 to 1.5 times the sum. Compares any step with
torch's operations and without precomputed outputs, the steady step with torch's operations, and the steady step with
Triton's kernels. `--base CHECKOUT` adds the step of commit 6c4c013 (benchmarks/common/checkout.py).
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import NeuCodecConfig, NeuCodecModel

from benchmarks.common.checkout import imported
from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from neucodec_streaming import StreamConfig
from neucodec_streaming.codec import Codec
from neucodec_streaming.kernels import gpu
from neucodec_streaming.layers.step import tensors_of
from neucodec_streaming.priors import Priors
from neucodec_streaming.stepper import Stepper

LAUNCH_S = 2e-6
DEVICES = {"H100": (2.85e12, 500e12), "H200": (4.3e12, 500e12)}
"""Bytes per second, and operations per second of bfloat16 products, as large ones achieve."""
ROWS = (1, 16, 64, 256, 1024)
KINDS = ("encode", "decode")
VIEWS = {
    "view", "_unsafe_view", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "slice", "select", "narrow",
    "split", "split_with_sizes", "unbind", "unfold", "detach", "alias", "as_strided", "_reshape_alias", "lift_fresh",
    "real", "imag", "view_as_real", "empty", "new_empty", "empty_like", "empty_strided",
}  # fmt: skip
COPYING = {"index_select", "index", "gather"}


@torch.library.custom_op("roofline::attention", mutates_args=())
def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention as a single kernel, as on CUDA."""
    return torch.empty_like(query)


@attention.register_fake
def _attention_shape(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    batch, heads, frames, width = query.shape
    return query.new_empty(batch, frames, heads, width).transpose(1, 2)


def _fused(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, scale: float | None = None) -> Tensor:
    return attention(query, key, value, attn_mask)


@dataclass(frozen=True)
class CountedOperation:
    """Bytes read and written, and operations of products."""

    name: str
    moved_bytes: int
    operations: int = 0

    def seconds(self, device: str) -> float:
        bytes_per_s, operations_per_s = DEVICES[device]
        return max(LAUNCH_S, self.moved_bytes / bytes_per_s, self.operations / operations_per_s)


class OperationCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[CountedOperation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        inputs = list({id(x): x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}.values())
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        is_same = not name.endswith("_") and any(x is y for x in outputs for y in inputs)
        if name not in VIEWS and not is_same and outputs:
            moved_bytes = _moved_bytes(name, args, inputs, outputs)
            self.found.append(CountedOperation(name, moved_bytes, _products(name, args, outputs)))
        return result


def _moved_bytes(name: str, args: Any, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    if name in COPYING:
        return 2 * outputs[0].nbytes
    if name == "index_copy_":
        return 2 * args[3].nbytes
    if name in ("index_put_", "_index_put_impl_"):
        indices = [index for index in args[1] if index is not None]
        places = torch.broadcast_shapes(*(index.shape for index in indices))
        return 2 * places.numel() * args[0][(0,) * len(args[1])].numel() * args[0].element_size()
    if name.endswith("_") and name[:-1] in ("copy", "fill", "zero"):
        return sum(map(_stored_bytes, inputs))
    return sum(map(_stored_bytes, inputs)) + sum(x.nbytes for x in outputs)


def _stored_bytes(x: Tensor) -> int:
    """An expanded axis is read once."""
    count = x.element_size()
    for size, stride in zip(x.shape, x.stride(), strict=True):
        count *= size if stride else 1
    return count


def _products(name: str, args: Any, outputs: list[Tensor]) -> int:
    out = outputs[0].numel()
    if name in ("linear", "matmul", "mm", "bmm"):
        return 2 * out * args[0].shape[-1]
    if name == "addmm":
        return 2 * out * args[1].shape[-1]
    if name == "attention":
        return 4 * out * args[1].shape[2]
    if name == "convolution":
        return 2 * out * args[1][0].numel()
    return 0


class CountedKernels:
    """Replaces `triton_kernels` to count bytes and operations."""

    def __init__(self, counter: OperationCounter) -> None:
        self._counter = counter

    def takes_heads_of(self, width: int) -> bool:
        return True

    def snake(self, x: Tensor, past: Tensor, *rest: Any) -> Tensor:
        y = torch.empty_like(x)
        self._counter.found.append(CountedOperation("snake", x.nbytes + y.nbytes + 2 * len(x) * past[0].nbytes))
        return y

    def attend(self, window: Tensor, keys: Tensor, values: Tensor, *rest: Any) -> Tensor:
        rows, frames, wide = window.shape
        by_distance = rest[-2]
        ring = 2 * rows * (keys.shape[1] - frames) * (wide // 3) * keys.element_size()
        out = window.new_empty(rows, frames, wide // 3)
        extra = 0 if by_distance is None else by_distance.nbytes
        products = 4 * rows * frames * keys.shape[1] * (wide // 3)
        moved = ring + window.nbytes + out.nbytes + extra + window.nbytes // 3
        self._counter.found.append(CountedOperation("attend", moved, products))
        return out


def _model() -> Any:
    with torch.device("meta"):
        return NeuCodecModel(NeuCodecConfig()).to(torch.bfloat16).eval()


@cache
def _codec() -> Codec:
    codec = Codec("meta", _model(), Priors(StreamConfig(prior_weight=0)))
    codec.fingerprint = "weights without values have none"
    return codec


def steps(kind: str, config: StreamConfig) -> Iterator[tuple[str, Stepper, bool, bool]]:
    """Yields the ways of a step: name, stepper, whether it is steady, and whether Triton's kernels are used."""
    codec = _codec()
    stepper = codec.encoder(config) if kind == "encode" else codec.decoder(config)
    with _without_lead(stepper):
        yield "any step, torch's operations", stepper, False, False
    yield "steady step, torch's operations", stepper, True, False
    yield "steady step, Triton's kernels", stepper, True, True


@contextmanager
def _without_lead(stepper: Any) -> Iterator[None]:
    blocks = stepper.acoustic.blocks if stepper.kind == "encode" else []
    leads = [block.lead for block in blocks]
    for block in blocks:
        block.lead = 0
    try:
        yield
    finally:
        for block, lead in zip(blocks, leads, strict=True):
            block.lead = lead


def counted(stepper: Stepper, rows: int, steady: bool, triton: bool) -> list[CountedOperation]:
    state = stepper.separate_state(rows + 1)
    dtype = torch.float32 if stepper.kind == "encode" else torch.int64
    x = torch.zeros(rows, *stepper.window_shape, dtype=dtype, device="meta")
    plan = torch.zeros(3, rows, dtype=torch.int64, device="meta")
    counter = OperationCounter()
    kernels = CountedKernels(counter) if triton else None
    with patch.object(gpu, "operations", lambda x: kernels), patch.object(F, "scaled_dot_product_attention", _fused):
        stepper.step(x, state, *plan, steady=steady)  # moves constants to the device
        counter.found.clear()
        with counter:
            stepper.step(x, state, *plan, steady=steady)
    return counter.found


def counted_before(base: Path, kind: str, rows: int) -> list[CountedOperation]:
    config = imported(base, "streaming.config").StreamConfig(prior_weight=0)
    codec = imported(base, "streaming.codec").Codec("meta", _model(), imported(base, "streaming.priors").Priors(config))
    codec.fingerprint = "weights without values have none"
    stepper = codec.encoder(config) if kind == "encode" else codec.decoder(config)
    state, counter = stepper.new_state(rows + 1), OperationCounter()
    dtype = torch.float32 if kind == "encode" else torch.int64
    x = torch.zeros(rows, *stepper.window_shape, dtype=dtype, device="meta")
    plan = torch.zeros(3, rows, dtype=torch.int64, device="meta")
    with patch.object(F, "scaled_dot_product_attention", _fused):
        stepper.step(x, state, *plan)
        with counter:
            stepper.step(x, state, *plan)
    return counter.found


def rows_of(kind: str, config: StreamConfig, rows: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    for way, stepper, steady, triton in steps(kind, config):
        for count in rows:
            found = counted(stepper, count, steady, triton)
            state = stepper.separate_state(1)
            yield {
                "kind": kind,
                "way": way,
                "rows": count,
                "kernels": len(found),
                "gigabytes": sum(one.moved_bytes for one in found) / 1e9,
                "teraoperations": sum(one.operations for one in found) / 1e12,
                "milliseconds": {name: 1e3 * sum(one.seconds(name) for one in found) for name in DEVICES},
                "state_megabytes": sum(tensor.nbytes for tensor in tensors_of(state)) / 1e6,
                "most": dict(Counter(one.name for one in found).most_common(8)),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--out", type=Path, default=RESULTS_FOLDER / "roofline.json")
    parser.add_argument("--base", type=Path, help="a folder with commit 6c4c013, to compare with")
    given = parser.parse_args()
    if given.base is not None:
        for kind, count in product(KINDS, given.rows):
            found = counted_before(given.base.resolve(), kind, count)
            gigabytes = sum(one.moved_bytes for one in found) / 1e9
            print(
                f"{kind} {'of ' + given.base.name:32} {count:5} rows: {len(found):5} kernels {gigabytes:8.2f} GB",
                flush=True,
            )
    config, table = StreamConfig(prior_weight=0), []
    for kind in KINDS:
        for row in rows_of(kind, config, tuple(given.rows)):
            table.append(row)
            ms = "  ".join(f"{name} {value:7.2f} ms" for name, value in row["milliseconds"].items())
            counts = f"{row['kernels']:5} kernels {row['gigabytes']:8.2f} GB"
            print(f"{kind} {row['way']:32} {row['rows']:5} rows: {counts}  {ms}", flush=True)
    write_report(given.out, {"devices": DEVICES, "rows": table})


if __name__ == "__main__":
    main()
