"""The example of a pipeline that speaks."""

import numpy as np
import soundfile

from demos.language_model import Pace
from demos.speak_pipecat import speak
from demos.speech_lm_server import stand_in
from tests.client.fake_server import fake_server

FAST = Pace(prompt_s=0, tokens_per_second=20_000, pause_every=10**9)


async def test_the_example_speaks_its_text(tmp_path):
    tokens = np.arange(40, dtype=np.uint16)
    async with fake_server() as server, stand_in(tokens, FAST) as model:
        await speak(model.url, server.url, "Good morning.", str(tmp_path / "out.wav"))
    assert soundfile.read(tmp_path / "out.wav", dtype="int16")[0].tolist() == np.repeat(tokens, 480).tolist()
