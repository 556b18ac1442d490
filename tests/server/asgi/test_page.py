"""tests/server/web/test_page.py and test_page_live.py over hypercorn: the page in Chromium."""

import pytest

from benchmarks.browser.browsers import BROWSERS, Browser
from tests.server.asgi.hosting import over_hypercorn  # noqa: F401
from tests.server.web import test_page
from tests.server.web.test_page import *  # noqa: F403
from tests.server.web.test_page_live import *  # noqa: F403

pytestmark = [*test_page.pytestmark, pytest.mark.servers]


@pytest.fixture(scope="module")
def browser() -> Browser:
    return BROWSERS["chromium"]
