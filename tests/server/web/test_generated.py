"""Generated files of the page are current."""

from tests.server.web import states_js, worklet_js


def test_the_javascript_state_table_equals_the_python_one():
    assert states_js.PATH.read_text() == states_js.rendered(), "write it anew: python -m tests.server.web.states_js"


def test_the_worklet_script_equals_its_modules():
    for path, text in worklet_js.rendered().items():
        assert path.read_text() == text, "write it anew: python -m tests.server.web.worklet_js"
