"""The software device refuses what a CUDA device refuses, and its graphs replay what they recorded and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.soft_cuda.device import CaptureError, SoftDevice

WAITING = [
    lambda x: x.sum().item(),
    lambda x: x.nonzero(),
    lambda x: x[x > 0],
    lambda x: x.cpu().tolist(),
    lambda x: bool(x.any()),
    lambda x: x.cpu(),
    lambda x: torch.ones(3).to(x.device),
    lambda x: torch.tensor([1.0], device=x.device),
    lambda x: x.index_put_((torch.zeros(1, dtype=torch.int64, device=x.device),), torch.tensor(0.0)),
    lambda x: torch.cuda.synchronize(),
]


@pytest.fixture
def soft(cuda: Any) -> SoftDevice:
    if cuda is None:
        pytest.skip("a real device is tested")
    return cuda


def captured(step: Callable[[], Any], pool: object, **options: Any) -> Any:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.Stream(), **options):
        result = step()
    return graph, result


@pytest.mark.parametrize("step", WAITING)
def test_a_capture_refuses_synchronisation(soft: SoftDevice, step: Callable[[Tensor], Any]) -> None:
    x = torch.zeros(3, device="cuda")
    step(x)
    assert soft.syncs, "it is known to wait"
    with pytest.raises(CaptureError):
        captured(lambda: step(x), object())
    assert soft.capture is None


def test_devices_do_not_mix(soft: SoftDevice) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.zeros(3, device="cuda") + torch.zeros(3)


def test_copies_from_pinned_memory_do_not_wait(soft: SoftDevice) -> None:
    x, host = torch.zeros(3, device="cuda"), torch.ones(3).pin_memory()
    soft.syncs.clear()
    x.copy_(host, non_blocking=True)
    assert not soft.syncs
    assert x.cpu().tolist() == [1, 1, 1]
    x.copy_(torch.ones(3), non_blocking=True)
    assert len(soft.syncs) == 2, "to the host, and from pageable memory"


def test_a_replay_uses_the_captured_memory_which_other_code_may_overwrite(soft: SoftDevice) -> None:
    x, total, pool = torch.ones(2, device="cuda"), torch.zeros(2, device="cuda"), object()

    def step() -> Tensor:
        y = x * 2
        total.add_(y)
        return y

    graph, y = captured(step, pool)
    assert total.cpu().tolist() == [0, 0], "a capture computes nothing"
    other, z = captured(lambda: x + 40, pool)
    graph.replay()
    assert (y.cpu().tolist(), total.cpu().tolist()) == ([2, 2], [2, 2])
    x.fill_(3)
    other.replay()
    assert z.cpu().tolist() == [43, 43] and y.cpu().isnan().all(), "one pool: what the other graph left is gone"
    graph.replay()
    assert (y.cpu().tolist(), total.cpu().tolist()) == ([6, 6], [8, 8])


def test_a_broken_device_fails_every_call(soft: SoftDevice) -> None:
    x = torch.ones(2, device="cuda")
    soft.fault = "an illegal memory access was encountered"
    for call in (lambda: x + 1, torch.cuda.synchronize, x.cpu):
        with pytest.raises(RuntimeError, match="illegal memory access"):
            call()
