"""docs/browser.md describes the page correctly, and its example runs unchanged."""

import re
from pathlib import Path

import pytest

from benchmarks.browser.chromium import CHROMIUM, browser
from benchmarks.browser.elsewhere import hosted_elsewhere
from neucodec_streaming.server.http.pages import FOLDER
from tests.server.hosting import hosted
from tests.streaming.engine.fake import FakeRunner

DOCS = (Path(__file__).parents[2] / "docs" / "browser.md").read_text()
PAGE = (FOLDER / "index.html").read_text()


def test_every_control_in_the_table_exists_on_the_page():
    table = re.search(r"\| control \| \|\n\|---\|---\|\n(.*?)\n\n", DOCS, re.DOTALL)
    assert table is not None
    named = [name.strip() for row in table[1].splitlines() for name in row.split("|")[1].split(",")]
    assert len(named) == 12
    words = re.sub(r"<[^>]+>|\s+", " ", PAGE)
    assert [name for name in named if name not in words] == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian's chromium)")
async def test_the_example_runs_unchanged():
    example = re.search(r"```js\n(.*?)```", DOCS, re.DOTALL)
    assert example is not None
    with hosted(FakeRunner()) as host, hosted_elsewhere() as origin:
        module = host.url.replace("ws://", "http://") + "/neucodec.js"
        script = re.sub(r'import (\{.*\}) from ".*";', rf'const \1 = await import("{module}");', example[1])
        async with browser() as tab:
            await tab.open(origin)
            done = await tab.run(
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
