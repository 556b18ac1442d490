"""tests/server/test_limits.py over uvicorn and hypercorn."""

from tests.server.asgi.hosting import over_asgi  # noqa: F401
from tests.server.test_limits import *  # noqa: F403
