"""The restricted reader of .pt files accepts a single integer tensor as torch writes it, and nothing else."""

import contextlib
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from neucodec_streaming.errors import TokenError
from neucodec_streaming.torch_file import integers_from_pt


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for name, payload in entries.items():
            target.writestr(name, payload)
    return buffer.getvalue()


def entries_of(payload: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(payload)) as source:
        return {name: source.read(name) for name in source.namelist()}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int16, torch.uint8])
@pytest.mark.parametrize("shape", [(6,), (1, 1, 6), (2, 3), (0,), ()])
def test_one_integer_tensor_is_read_as_torch_reads_it(dtype, shape):
    tensor = torch.arange(int(np.prod(shape))).reshape(shape).to(dtype)
    numbers = integers_from_pt(saved(tensor))
    assert numbers.shape == shape
    assert np.array_equal(numbers, tensor.numpy())


def test_a_view_into_a_longer_tensor_is_read():
    assert integers_from_pt(saved(torch.arange(1000)[300:310])).tolist() == list(range(300, 310))


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle was run')",))


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(3),
        [1, 2, 3],
        {"codes": torch.arange(3)},
        (torch.arange(3), torch.arange(3)),
        torch.arange(12).reshape(3, 4).T,
        torch.nn.Parameter(torch.zeros(3)),
        torch.arange(3).to_sparse(),
    ],
    ids=["floats", "list", "dict", "two tensors", "transposed", "parameter", "sparse"],
)
def test_anything_else_that_torch_saves_is_refused_with_the_remedy(value):
    with pytest.raises(TokenError, match=r"not one integer tensor .*save it with"):
        integers_from_pt(saved(value))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_and_not_run(protocol):
    with pytest.raises(TokenError):
        integers_from_pt(archive({"a/data.pkl": pickle.dumps(Bomb(), protocol), "a/data/0": bytes(8)}))
    with pytest.raises(TokenError):
        integers_from_pt(pickle.dumps(Bomb(), protocol))


NESTED_KEY = b"\x80\x02}K\x01" + b"2\x86" * 60 + b"K\x01s."
HUGE_MEMO = b"\x80\x02K\x01r\xff\xff\xff\x7f."


@pytest.mark.parametrize("pickled", [NESTED_KEY, HUGE_MEMO], ids=["a key that takes ages to hash", "16 GiB of memo"])
def test_a_pickle_that_takes_time_or_memory_is_refused_at_once(pickled):
    with pytest.raises(TokenError, match="its pickle contains"):
        integers_from_pt(archive({"a/data.pkl": pickled, "a/data/0": bytes(8)}))


def test_compressed_and_oversized_entries_are_refused():
    entries = entries_of(saved(torch.zeros(100_000, dtype=torch.int64)))
    with pytest.raises(TokenError, match="compressed"):
        integers_from_pt(archive(entries, zipfile.ZIP_DEFLATED))
    name = next(name for name in entries if name.endswith("data.pkl"))
    with pytest.raises(TokenError, match="more than"):
        integers_from_pt(archive({**entries, name: entries[name] + bytes(100_000)}))


def test_data_of_the_wrong_length_is_refused():
    entries = entries_of(saved(torch.arange(10)))
    name = next(name for name in entries if name.endswith("data/0"))
    with pytest.raises(TokenError, match="79 bytes for 10 numbers"):
        integers_from_pt(archive({**entries, name: entries[name][:-1]}))


@pytest.mark.parametrize("sizes", [(2**40, 2**40), (2**63, 2), (0, 2**70)])
def test_a_shape_larger_than_its_data_is_refused(sizes):
    entries = entries_of(saved(torch.arange(6)))
    name = next(name for name in entries if name.endswith("data.pkl"))
    long = [b"\x8a\x0a" + size.to_bytes(10, "little") for size in sizes]
    shape, strides = b"".join(long) + b"\x86", long[1] + b"K\x01\x86"
    pickled = entries[name].replace(b"K\x06\x85", shape).replace(b"K\x01\x85", strides)
    assert len(pickled) > len(entries[name]) + 20
    with pytest.raises(TokenError, match="in 6 numbers"):
        integers_from_pt(archive({**entries, name: pickled}))


def test_an_archive_whose_names_are_damaged_is_refused():
    payload = saved(torch.arange(10))
    with pytest.raises(TokenError, match="zip archive is damaged"):
        integers_from_pt(payload.replace(b"/data/0", b"/data/\xff"))


def test_damage_anywhere_raises_a_token_error_or_changes_values():
    payload = saved(torch.arange(50, dtype=torch.int32))
    random = np.random.default_rng(0)
    for _ in range(1000):
        damaged = bytearray(payload)
        for place in random.integers(0, len(payload), 3):
            damaged[place] = random.integers(0, 256)
        with contextlib.suppress(TokenError):
            assert integers_from_pt(bytes(damaged[: random.integers(0, len(payload)) or None])).dtype.kind in "iu"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pickletools")
def test_damage_inside_the_pickle_raises_a_token_error_or_changes_values():
    entries = entries_of(saved(torch.arange(50, dtype=torch.int32)))
    name = next(name for name in entries if name.endswith("data.pkl"))
    random = np.random.default_rng(0)
    for _ in range(1500):
        pickled = bytearray(entries[name])
        for place in random.integers(0, len(pickled), 2):
            pickled[place] = random.integers(0, 256)
        with contextlib.suppress(TokenError):
            assert integers_from_pt(archive({**entries, name: bytes(pickled)})).dtype.kind in "iu"
