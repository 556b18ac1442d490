"""tests/server/test_conversations.py over uvicorn and hypercorn."""

from tests.server.asgi.hosting import over_asgi  # noqa: F401
from tests.server.test_conversations import *  # noqa: F403
