"""tests/server/test_golden.py over uvicorn."""

from tests.server.asgi.hosting import over_uvicorn  # noqa: F401
from tests.server.test_golden import *  # noqa: F403
