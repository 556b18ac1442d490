"""tests/client/test_against_server.py over uvicorn."""

from tests.client.test_against_server import *  # noqa: F403
from tests.server.asgi.hosting import over_uvicorn  # noqa: F401
