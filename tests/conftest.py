"""Few threads, no hub, and the check that the tests which define the product really ran.

`make test` runs two tests side by side; one marked `alone`, since it measures time, waits until no other runs.

Laws, golden vectors and server tests must not be skipped: with `--no-skips-that-matter` (as `.ci/run` does) a skip
under one of ESSENTIAL fails the run.
"""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ.get("NEUCODEC_TEST_DEVICE") != "cuda":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is defined

import pytest
from filelock import ReadWriteLock

DEVICE = os.environ.get("NEUCODEC_TEST_DEVICE", "cpu")
"""The device that the laws are proved on: cuda, or cpu, with a software CUDA device as well."""
assert DEVICE in ("cpu", "cuda"), f"NEUCODEC_TEST_DEVICE is {DEVICE!r}: use cpu or cuda"
if DEVICE == "cuda":
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # laws hold for exact products
ROOT = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
"""Worker processes run without the working directory on their path, and some import test modules."""
ESSENTIAL = ("tests/streaming/", "tests/server/", "tests/client/", "tests/test_imports.py", "tests/test_wheel.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips-that-matter",
        action="store_true",
        help="fail when a test under one of ESSENTIAL was skipped",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not hasattr(item.config, "workerinput"):
        return (yield)  # tests run one after the other
    lock = ReadWriteLock(item.config.cache.mkdir("alone") / "lock.db")
    with lock.write_lock() if item.get_closest_marker("alone") else lock.read_lock():
        return (yield)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if not session.config.getoption("--no-skips-that-matter"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return  # a worker of a parallel run; the process that gathers the reports checks them
    reports = [report for kind in ("skipped", "xfailed") for report in reporter.stats.get(kind, [])]
    skipped = sorted(
        {r.nodeid for r in reports if r.nodeid.startswith(ESSENTIAL) and "gpu" not in getattr(r, "keywords", ())}
    )
    if skipped:
        reporter.write_line(f"skipped, and must not be: {', '.join(skipped)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def data_folder() -> Path:
    return ROOT / "tests" / "data"


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> Generator[Any, None, None]:
    """Makes `torch.cuda` available: a real device (None) with NEUCODEC_TEST_DEVICE=cuda, else a SoftDevice."""
    if DEVICE == "cuda":
        yield None
        return
    request.getfixturevalue("compiled")
    from tests.soft_cuda import installed

    with installed() as device:
        yield device


@pytest.fixture
def compiled() -> None:
    """Provides native operations, or skips the test."""
    from neucodec_streaming.kernels import native

    if native._loaded() is None:
        pytest.skip("no C++ compiler")
