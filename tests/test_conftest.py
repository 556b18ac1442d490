"""The check that laws, golden vectors and server tests are never skipped can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
OPTION = "--no-skips-that-matter"


@pytest.fixture
def project(tmp_path):
    """Runs our conftest over a passing test and `body`."""
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs one\n")

    def run(path: str, body: str, *options: str) -> subprocess.CompletedProcess[str]:
        test = tmp_path / path
        test.parent.mkdir(parents=True)
        test.write_text(f"import pytest\n\ndef test_passes(): pass\n\n{body}\n")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    "body", ["def test_law(): pytest.skip('not today')", "pytest.skip('all', allow_module_level=True)"]
)
def test_a_skipped_law_fails_the_run_that_forbids_it(project, body):
    done = project("tests/streaming/test_laws.py", body, OPTION)
    assert done.returncode == 1
    assert "skipped, and must not be: tests/streaming/test_laws.py" in done.stdout


def test_the_same_skip_passes_where_nothing_forbids_it(project):
    assert project("tests/streaming/test_laws.py", "def test_law(): pytest.skip('not today')").returncode == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("tests/training/test_x.py", "def test_other(): pytest.skip('no data')"),
        ("tests/server/test_x.py", "@pytest.mark.gpu\ndef test_cuda(): pytest.skip('no GPU')"),
    ],
)
def test_gpu_and_optional_tests_may_be_skipped(project, path, body):
    assert project(path, body, OPTION).returncode == 0
