"""The Python programs of README and other pages run as they are written, against a server and devices of the test."""

import asyncio
import json
import re
import sys

import numpy as np
import pytest

from demos.language_model import Pace
from demos.speech_lm_server import stand_in
from neucodec_streaming.client.cli import main
from tests.client import fake_sounddevice
from tests.client.fake_server import fake_server
from tests.client.test_cli import HandDriven
from tests.conftest import ROOT

FAST = Pace(prompt_s=0, tokens_per_second=20_000, pause_every=10**9)
PRINTED = 3


def programs(page: str) -> list[str]:
    """The complete programs of a page: those that run something."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [program for program in found if "asyncio.run(" in program]


@pytest.fixture(autouse=True)
def sound(monkeypatch, tmp_path):
    monkeypatch.setattr(fake_sounddevice, "InputStream", HandDriven)
    monkeypatch.setattr(fake_sounddevice, "OutputStream", HandDriven)
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)
    monkeypatch.setattr(HandDriven, "heard", [])
    monkeypatch.chdir(tmp_path)


async def run(program: str, server: str, model: str = "") -> list[tuple]:
    """Runs a program in a thread, with Ctrl-C after PRINTED lines; returns these."""
    lines: list[tuple] = []

    def note(*values: object) -> None:
        lines.append(values)
        if len(lines) == PRINTED:
            raise KeyboardInterrupt

    program = program.replace("ws://127.0.0.1:8765", server).replace("http://127.0.0.1:8000/v1", model)
    await asyncio.to_thread(exec, program, {"print": note})
    return lines


async def test_the_readmes_programs_save_tokens_until_ctrl_c_and_play_them():
    listening, playing = programs("README.md")
    async with fake_server() as server:
        printed = await run(listening, server.url)
        saved = np.fromfile("speech.tok", "<u2")
        assert [position for position, _ in printed] == [5 * number for number in range(PRINTED)]
        assert saved.tolist() == np.concatenate([tokens for _, tokens in printed[:-1]]).tolist()
        np.full(40, 8192, "<u2").tofile("speech.tok")
        await run(playing, server.url)
    assert np.count_nonzero(np.abs(np.concatenate(HandDriven.heard) - 0.25) < 1e-3) > 0.95 * 40 * 960


async def test_the_first_sessions_program_ends_by_ctrl_c():
    (listening,) = programs("docs/first-session.md")
    async with fake_server() as server:
        assert len(await run(listening, server.url)) == PRINTED


async def test_the_program_for_a_language_model_plays_its_answer():
    (speaking,) = programs("docs/speech-language-models.md")
    async with fake_server() as server, stand_in(np.full(40, 8192, np.uint16), FAST) as model:
        await run(speaking, server.url, model.url)
    assert np.count_nonzero(np.abs(np.concatenate(HandDriven.heard) - 0.25) < 1e-3) > 0.95 * 40 * 960


async def test_every_field_of_the_summaries_is_explained(capsys, monkeypatch):
    monkeypatch.setattr("neucodec_streaming.client.commands.sessions.interruption", asyncio.Event)
    monkeypatch.setattr("neucodec_streaming.client.commands.talk.interruption", asyncio.Event)
    np.arange(40, dtype="<u2").tofile("in.tok")
    async with fake_server() as server, stand_in(np.arange(40, dtype=np.uint16), FAST) as model:
        for command in (
            ["decode", "in.tok", "out.wav"],
            ["play", "in.tok"],
            ["mic", "out.tok", "--seconds", "0.3"],
            ["talk", "--seconds", "0.3"],
            ["speak", "Hello.", "--speech-lm-url", model.url],
        ):
            assert await asyncio.to_thread(main, [*command, "--server", server.url, "--json"]) == 0
    named = {name for line in capsys.readouterr().out.splitlines() for name in json.loads(line)}
    page = (ROOT / "docs" / "client.md").read_text()
    assert named <= set(re.findall(r"`(\w+)`", page[page.index("## Summaries") : page.index("## Without a server")]))
