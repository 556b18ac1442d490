"""tests/server/test_bad_input.py over uvicorn."""

from tests.server.asgi.hosting import over_uvicorn  # noqa: F401
from tests.server.test_bad_input import *  # noqa: F403

# What is the business of the ASGI server.
del test_a_busy_port_is_said_clearly  # noqa: F821
del test_a_client_that_says_no_more_than_hello_gives_its_place_back  # noqa: F821
del test_a_reader_that_never_reads_is_disconnected  # noqa: F821
