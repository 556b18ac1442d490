"""Native operations give whole steps equal to torch's, and torch is the fallback if nothing can be compiled."""

import logging
import os

import pytest
import torch

from neucodec_streaming import StreamConfig, load_codec
from neucodec_streaming.kernels import native
from neucodec_streaming.stepper import Stepper

CONFIG = StreamConfig(5, 5, 20)
STEPS, ROWS = 9, 3


def outputs(stepper: Stepper, x: torch.Tensor) -> list[torch.Tensor]:
    """x (steps, rows, ...): a stream per row, each starting one step after the one before; the last step ends all."""
    state, parts = stepper.new_state(ROWS), []
    for number, part in enumerate(x):
        going = torch.arange(min(len(part), number + 1))
        valid, commit = (7, 7) if number == STEPS - 1 else (10, 5)
        rows = (torch.full_like(going, count) for count in (valid, commit))
        y = stepper.step(part[going], state, going, *rows)
        parts.append(y[:, : y.shape[1] * commit // CONFIG.window_frames])
    return parts


@pytest.mark.usefixtures("compiled")
@torch.inference_mode()
def test_whole_steps_equal_those_of_torch(monkeypatch) -> None:
    stepped = []
    for loaded in (native._loaded, lambda: None):
        monkeypatch.setattr(native, "_loaded", loaded)
        codec = load_codec("nano")
        encoder, decoder = codec.encoder(CONFIG), codec.decoder(CONFIG)
        encoder.compute = encoder.before_quantizer  # tokens would hide small differences
        generator = torch.Generator().manual_seed(0)
        pcm = torch.randn(STEPS, ROWS, *encoder.window_shape, generator=generator) * 0.1
        tokens = torch.randint(0, 65_536, (STEPS, ROWS, *decoder.window_shape), generator=generator)
        stepped.append([*outputs(encoder, pcm), *outputs(decoder, tokens)])
    for mine, theirs in zip(*stepped, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5 * float(theirs.abs().max()))


@pytest.mark.usefixtures("compiled")
@torch.inference_mode()
def test_a_row_has_the_same_bits_at_any_batch_size() -> None:
    codec = load_codec("nano")
    encoder, decoder = codec.encoder(CONFIG), codec.decoder(CONFIG)
    encoder.compute = encoder.before_quantizer
    generator = torch.Generator().manual_seed(0)
    pcm = torch.randn(STEPS, ROWS, *encoder.window_shape, generator=generator) * 0.1
    tokens = torch.randint(0, 65_536, (STEPS, ROWS, *decoder.window_shape), generator=generator)
    for stepper, x in ((encoder, pcm), (decoder, tokens)):
        together = [part[0] for part in outputs(stepper, x)]
        alone = [part[0] for part in outputs(stepper, x[:, :1])]
        assert all(map(torch.equal, together, alone))


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Simulates a machine without a compiler or compiled kernels."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    native._loaded.cache_clear()
    yield tmp_path
    native._loaded.cache_clear()


def compiler(folder, script: str) -> None:
    path = folder / "c++"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "words"),
    [(None, "no C++ compiler"), ("echo bad flag >&2; exit 1", ": bad flag")],
)
def test_without_a_working_compiler_torch_computes_with_one_warning(fresh, caplog, script, words) -> None:
    if script is not None:
        compiler(fresh, script)
    assert native.operations(torch.zeros(1)) is None and native.operations(torch.zeros(1)) is None
    (record,) = [record for record in caplog.records if record.levelno > logging.INFO]
    assert words in record.message


def test_kernels_are_recompiled_only_for_another_cpu_or_torch(fresh, monkeypatch) -> None:
    compiler(fresh, f"echo >> {fresh}/runs; while [ $1 != -o ]; do shift; done; echo compiled > $2")
    first = native.library()
    assert first == native.library() and first.read_text() == "compiled\n"
    monkeypatch.setattr(torch, "__version__", "3.0")
    assert native.library() != first
    assert (fresh / "runs").read_text() == "\n\n"


def test_an_unloadable_kernel_is_not_used(fresh, caplog) -> None:
    compiler(fresh, "while [ $1 != -o ]; do shift; done; echo compiled > $2")
    assert native.operations(torch.zeros(1)) is None
    assert "native kernels are not available" in caplog.text


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_kernels_compiled_by_another_user_are_not_run(fresh, monkeypatch, caplog) -> None:
    compiler(fresh, "while [ $1 != -o ]; do shift; done; echo compiled > $2")
    library = native.library()
    monkeypatch.setattr(native.os, "getuid", lambda: 12345)
    os.chown(library, 54321, -1)
    assert native.operations(torch.zeros(1)) is None
    assert "belongs to another user" in caplog.text
