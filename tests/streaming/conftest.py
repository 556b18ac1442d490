"""Runs tests of layers with native operations both with those and with torch's own."""

import pytest

from neucodec_streaming.kernels import native


@pytest.fixture(params=["native", "torch"])
def operations(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(native, "_loaded", lambda: None)
    else:
        request.getfixturevalue("compiled")
