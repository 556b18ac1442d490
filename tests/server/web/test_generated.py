"""What is generated for the page is what its sources say."""

from tests.server.web import states_js, worklet_js


def test_the_javascript_table_of_states_is_the_python_one():
    assert states_js.PATH.read_text() == states_js.rendered(), "write it anew: python -m tests.server.web.states_js"


def test_the_code_of_the_audio_thread_is_that_of_its_modules():
    for path, text in worklet_js.rendered().items():
        assert path.read_text() == text, "write it anew: python -m tests.server.web.worklet_js"
