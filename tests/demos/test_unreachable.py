"""Messages of the demos with devices when no server is reachable."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("module", ["demos.agent", "demos.agent_pipecat", "demos.tts"])
def test_an_unreachable_server_is_reported_in_one_line(module):
    command = [sys.executable, "-m", module, "--server", "ws://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"{module.removeprefix('demos.')}: server not reachable at ws://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
