"""tests/server/http/test_doors.py over uvicorn and hypercorn."""

from tests.server.asgi.hosting import over_asgi  # noqa: F401
from tests.server.http.test_doors import *  # noqa: F403

# Left out: handled by the ASGI server.
del test_with_a_certificate_sessions_are_encrypted  # noqa: F821
