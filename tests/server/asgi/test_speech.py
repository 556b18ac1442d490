"""tests/server/http/test_speech.py over uvicorn."""

from tests.server.asgi.hosting import over_uvicorn  # noqa: F401
from tests.server.http.test_speech import *  # noqa: F403

# Left out: these are handled by the ASGI server.
del test_an_answer_to_head_has_the_length_of_the_body_and_no_body  # noqa: F821
del test_malformed_requests_get_the_matching_status  # noqa: F821
del test_a_client_that_sends_too_much_reads_the_answer  # noqa: F821
del test_a_client_that_never_ends_its_refused_body_is_cut_off  # noqa: F821
del test_speech_is_served_over_tls  # noqa: F821
del test_a_language_model_behind_a_socks_proxy_needs_the_extra  # noqa: F821
