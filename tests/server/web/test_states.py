"""The page walks the same table of states as the server."""

from tests.server.web.states_js import PATH, rendered


def test_the_javascript_table_is_the_python_one():
    assert PATH.read_text() == rendered(), "write it anew: python -m tests.server.web.states_js"
