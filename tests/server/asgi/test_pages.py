"""tests/server/web/test_pages.py over hypercorn."""

from tests.server.asgi.hosting import over_hypercorn  # noqa: F401
from tests.server.web.test_pages import *  # noqa: F403
