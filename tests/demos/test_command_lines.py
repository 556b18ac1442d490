"""The demos' command lines: each has a help that does nothing else, and names the extras that it lacks."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

RUN = """
import runpy, sys
for name in {hidden}:
    sys.modules[name] = None
sys.path.insert(0, {root})
sys.argv = {argv}
runpy.run_module({demo}, run_name="__main__")
"""
EXTRAS = {
    "agent": ("silero_vad", "server,demo"),
    "agent_pipecat": ("pipecat", "server,demo,pipecat"),
    "demo": ("pystoi", "server,demo"),
    "mqtt": ("aiomqtt", "server,demo,mqtt"),
    "speak_livekit": ("livekit", "livekit"),
    "speak_pipecat": ("pipecat", "pipecat"),
    "speech_lm_server": ("torch", "server"),
    "telephony": (None, ""),
    "tiny_speech_lm": ("transformers", "server"),
    "tts": (None, ""),
}


def run(demo: str, folder, hidden=(), argv=()) -> subprocess.CompletedProcess[str]:
    code = RUN.format(hidden=list(hidden), root=repr(str(ROOT)), argv=[demo, *argv], demo=repr(f"demos.{demo}"))
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_every_demo_is_listed():
    found = {path.stem for path in (ROOT / "demos").glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert found | {"mqtt"} == set(EXTRAS)


@pytest.mark.slow
@pytest.mark.parametrize("demo", EXTRAS)
def test_help_prints_the_usage_and_does_nothing_else(demo, tmp_path):
    if demo == "speak_livekit":
        pytest.importorskip("livekit.agents")
    done = run(demo, tmp_path, argv=["--help"])
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("demo", [demo for demo, (library, _) in EXTRAS.items() if library])
def test_a_missing_library_gives_one_line_that_names_the_extras(demo, tmp_path):
    library, extras = EXTRAS[demo]
    done = run(demo, tmp_path, hidden=[library])
    assert done.returncode == 1
    assert done.stderr.endswith(f"is missing: install the extras (pip install '.[{extras}]')\n")
    assert done.stderr.count("\n") == 1
