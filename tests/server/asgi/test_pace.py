"""tests/server/http/test_pace.py over uvicorn."""

from tests.server.asgi.hosting import over_uvicorn  # noqa: F401
from tests.server.http.test_pace import *  # noqa: F403

# Left out: these are handled by the ASGI server.
del test_a_flood_of_small_frames_does_not_hold_up_another_session  # noqa: F821
del test_a_client_that_does_not_read_its_pongs_is_paused  # noqa: F821
del test_the_unread_bytes_of_a_gone_client_are_discarded  # noqa: F821
