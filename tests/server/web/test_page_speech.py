"""Someone talks to the page, over the bundled model: rate, latency and sound, as a visitor has them."""

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio
import soundfile

from benchmarks.browser.__main__ import intelligibility, later_ms, page, played_by_client, served, speak
from benchmarks.common.sound_room import RATE
from benchmarks.mouth_to_ear.__main__ import SPEECH
from neucodec_streaming.client.files import read_audio
from tests.server.web.browsers import in_browsers

SECONDS = 5.0
TRIES = 3
"""A busy machine interrupts the audio: output with gaps cannot be rated."""
MAX_BUFFERED_MS = 100
"""Beyond what a profile waits for and what this machine computes, which may take twice as long from run to run."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest.fixture(scope="module")
def url():
    with served("nano", "default,high") as url:
        yield url


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, read_audio(SPEECH, RATE)[: round(SECONDS * RATE)], RATE, subtype="PCM_16")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=in_browsers())
async def tab(request, url, recording):
    async with page(url, recording, request.param) as tab:
        yield tab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spoken(tab):
    for _ in range(TRIES):
        heard = await speak(tab, SECONDS)
        if heard.underruns == 0:
            break
    return heard


async def test_tokens_arrive_at_50_a_second(spoken):
    assert spoken.tokens_a_second == pytest.approx(50, abs=2.5)


async def test_the_displayed_latency_equals_the_measured_one(spoken):
    assert spoken.shown["totalMs"] == pytest.approx(later_ms(spoken.said, spoken.heard, seconds=2), abs=25)


async def test_the_page_sounds_like_the_python_client(url, recording, tab, spoken, tmp_path):
    speech = read_audio(recording, RATE)
    alone = await asyncio.to_thread(played_by_client, url, recording, tmp_path)
    expected = pytest.approx(intelligibility(speech, alone), abs=0.02)
    for _ in range(TRIES):
        if intelligibility(speech, spoken.heard.audio) == expected:
            break
        spoken = await speak(tab, SECONDS)  # a busy machine also interrupts the microphone
    assert intelligibility(speech, spoken.heard.audio) == expected


@pytest.mark.alone
async def test_latency_settles_near_the_algorithmic_one_at_every_profile(tab, spoken):
    await tab.click("talk")
    for profile, algorithmic_ms in (("default", 315), ("high", 615)):
        await tab.evaluate("demo.live.history.clear()")
        await tab.evaluate(f"document.querySelector('[name=profile][value={profile}]').click()")
        await tab.until(
            f"demo.live.loop?.latency?.modelMs === {algorithmic_ms} && demo.live.history.tokens.count > 100"
        )
        buffered = f"demo.live.loop.latency.totalMs - demo.live.loop.latency.computingMs - {algorithmic_ms}"
        await tab.until(f"{buffered} <= {MAX_BUFFERED_MS}")
    assert tab.console == []
