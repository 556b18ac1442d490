"""tests/server/test_bad_input.py over uvicorn."""

from tests.server.asgi.hosting import over_uvicorn  # noqa: F401
from tests.server.test_bad_input import *  # noqa: F403

# Left out: these are handled by the ASGI server.
del test_a_busy_port_gets_a_clear_error  # noqa: F821
del test_a_client_that_leaves_during_the_handshake_frees_its_slot  # noqa: F821
del test_a_client_that_never_reads_is_disconnected  # noqa: F821
