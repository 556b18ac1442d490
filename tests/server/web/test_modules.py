"""The page's modules that need no browser, in node: their own tests, and their figures compared with Python's."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.config import StreamConfig, roundtrip_latency_ms
from neucodec_streaming.formats import PCM_FORMATS

NODE = shutil.which("node")
WEB = Path(__file__).parents[3] / "server" / "web"
MODULES = Path(__file__).parent / "modules"

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed (Debian's nodejs)")


def node(*arguments: str, script: str = "") -> str:
    assert NODE is not None
    command = [NODE, *arguments]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=60, cwd=WEB)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def evaluate(script: str) -> object:
    """The module may import from the page's folder."""
    return json.loads(node("--input-type=module", script=script))


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(path.name for path in MODULES.glob("*.test.mjs")))
def test_the_module_passes_its_own_tests(module):
    node("--test", str(MODULES / module))


def test_the_page_and_the_server_agree_about_latency_and_bytes():
    pairs = [(chunk, lookahead) for chunk in range(1, 11) for lookahead in range(16)]
    samples = [0.0, 0.1, -0.1, 0.99999, 1.0, -1.0, 3.0, 1e-5, 0.4999 / 32768]
    latencies, payload = evaluate(f"""
        import {{ algorithmicMs }} from "./page/latency.js";
        import {{ audioToBytes }} from "./payload.js";
        const profile = ([chunk_frames, lookahead_frames]) => ({{ chunk_frames, lookahead_frames }});
        const latencies = {json.dumps(pairs)}.map((pair) => algorithmicMs(profile(pair)));
        console.log(JSON.stringify([latencies, [...audioToBytes(Float32Array.from({json.dumps(samples)}))]]));
    """)  # type: ignore[misc]
    configs = [StreamConfig(chunk, lookahead, context_frames=chunk) for chunk, lookahead in pairs]
    assert latencies == [roundtrip_latency_ms(config, config) for config in configs]
    assert bytes(payload) == pcm_to_bytes(np.array(samples, np.float32), "s16le")


@pytest.mark.parametrize("name", PCM_FORMATS)
def test_the_module_and_the_server_agree_about_every_format_of_audio(name):
    step = 1 if name in ("mulaw", "alaw") else 97
    samples = np.arange(-32_768, 32_768, step).astype(np.float32) / 32_768
    payload, back = evaluate(f"""
        import {{ audioFromBytes, audioToBytes }} from "./payload.js";
        const samples = Float32Array.from({{ length: {samples.size} }}, (_, i) => (i * {step} - 32768) / 32768);
        const payload = audioToBytes(samples, "{name}");
        console.log(JSON.stringify([[...payload], [...audioFromBytes(payload, "{name}")]]));
    """)  # type: ignore[misc]
    assert bytes(payload) == pcm_to_bytes(samples, name)
    assert np.array_equal(np.array(back, np.float32), pcm_from_bytes(bytes(payload), name))
