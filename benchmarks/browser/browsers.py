"""The browsers in which the page and the module are tested and measured, by name."""

import argparse
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from benchmarks.browser import chromium, firefox
from benchmarks.browser.tab import Tab


@dataclass(frozen=True)
class Browser:
    """`open` is `chromium.browser` or its equal."""

    is_installed: bool
    package: str
    open: Callable[..., AbstractAsyncContextManager[Tab]]


BROWSERS: Mapping[str, Browser] = {
    "chromium": Browser(chromium.CHROMIUM is not None, "chromium", chromium.browser),
    "firefox": Browser(firefox.FIREFOX is not None, "firefox-esr, pulseaudio, pulseaudio-utils", firefox.browser),
}
INSTALLED = [name for name, browser in BROWSERS.items() if browser.is_installed]


def add_browsers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--browsers", nargs="+", choices=INSTALLED, default=INSTALLED, required=not INSTALLED)
