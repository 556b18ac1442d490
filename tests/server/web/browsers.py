"""Tests in every browser."""

import pytest

from benchmarks.browser.browsers import BROWSERS


def in_browsers() -> list:
    """Skips browsers that are not installed. Others than Chromium are for CI."""
    return [
        pytest.param(
            name,
            marks=[
                pytest.mark.skipif(
                    not browser.is_installed, reason=f"{name} is not installed (Debian's {browser.package})"
                ),
                *([] if name == "chromium" else [pytest.mark.servers]),
            ],
        )
        for name, browser in BROWSERS.items()
    ]
