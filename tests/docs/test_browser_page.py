"""docs/browser.md says what the page has, and its example runs as it stands."""

import re
from pathlib import Path

import pytest

from benchmarks.browser.chromium import CHROMIUM, browser
from benchmarks.browser.elsewhere import hosted_elsewhere
from benchmarks.browser.live_talk import run
from neucodec_streaming.server.http.pages import FOLDER
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner

DOCS = (Path(__file__).parents[2] / "docs" / "browser.md").read_text()
PAGE = (FOLDER / "index.html").read_text()


def test_every_button_is_there_with_its_key():
    said = {
        name.strip(): key.strip()
        for key, name in re.findall(r"^\| (\w+) \| (\w+) \|", DOCS.split("## The module")[0], re.MULTILINE)
    }
    buttons = re.findall(r'<button[^>]*aria-keyshortcuts="(\w+)"[^>]*>(\w+)<', PAGE)
    named = {name: {"Escape": "Esc"}.get(key, key.upper() if len(key) == 1 else key) for key, name in buttons}
    assert len(named) == 6
    assert named == {name: key for name, key in said.items() if key != "key"}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian's chromium)")
async def test_the_example_runs_as_it_stands():
    example = re.search(r"```js\n(.*?)```", DOCS, re.DOTALL)
    assert example is not None
    with hosted(FakeRunner()) as host, hosted_elsewhere() as origin:
        module = host.url.replace("ws://", "http://") + "/neucodec.js"
        script = re.sub(r'import (\{.*\}) from ".*";', rf'const \1 = await import("{module}");', example[1])
        async with browser() as tab:
            await tab.open(origin)
            done = await run(
                tab,
                f"""(async () => {{
                const SERVER = "{host.url}";
                {script}
                while (session.session.outputPosition < 24000) await new Promise((resolve) => setTimeout(resolve, 20));
                return stop();
            }})()""",
            )
            assert tab.console == []
    assert done["output"] // 480 == done["input"] // 320 == (done["input"] - done["dropped"]) // 320
    assert done["output"] >= 24_000
