"""tests/server/test_resume.py over uvicorn."""

from tests.server.asgi.hosting import over_uvicorn  # noqa: F401
from tests.server.test_resume import *  # noqa: F403
