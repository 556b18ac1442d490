"""tests/server/http/test_pace.py over uvicorn."""

from tests.server.asgi.hosting import over_uvicorn  # noqa: F401
from tests.server.http.test_pace import *  # noqa: F403

# What is the business of the ASGI server.
del test_a_flood_of_small_frames_does_not_hold_up_another_session  # noqa: F821
del test_pings_whose_answers_are_not_taken_are_read_no_further  # noqa: F821
del test_a_client_that_is_gone_is_forgotten_with_what_it_has_sent  # noqa: F821
