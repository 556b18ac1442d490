"""The example of docs/asgi.md runs unchanged, except for the model, which is the tests' own."""

import re

import pytest

from neucodec_streaming.client import connect
from tests.conftest import ROOT
from tests.server.asgi.hosting import uvicorn_server
from tests.server.hosting import GOLDEN


@pytest.mark.slow
async def test_the_example_serves_sessions_below_its_prefix():
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "asgi.md").read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) <= 10
    small = f'model={str(GOLDEN)!r}, profiles={{"default": None}}, batch_sizes=(1,)'
    made = example.replace('model="nano"', small).replace("workers=2", "workers=1")
    assert made != example
    scope: dict = {}
    exec(made, scope)
    async with uvicorn_server(scope["app"]) as url, connect(url + "/codec", kind="encode") as session:
        await session.flush()
        await session.end()
        assert [type(event).__name__ async for event in session] == ["Flushed", "Done"]
