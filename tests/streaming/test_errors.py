"""The error tree drawn in the docstring equals the class hierarchy."""

import re

from neucodec_streaming import errors
from neucodec_streaming.errors import StreamingError

BRANCH, CODE, CLOSE = r"((?:\|   |    )*(?:\|-- |`-- )?)", r'code "(\w+)"', r"(?:WebSocket close )?(\d{4})"
ROW = re.compile(rf"^    {BRANCH}(\w+) +{CODE} +{CLOSE}", re.MULTILINE)


def test_the_documented_error_tree_equals_the_class_hierarchy():
    drawn, above, close_code = {}, [], 0
    for branch, name, code, drawn_close_code in ROW.findall(errors.__doc__):
        depth = len(branch) // 4
        close_code = int(drawn_close_code)
        drawn[name] = (above[depth - 1] if depth else "Exception", code, close_code)
        above[depth:] = [name]
    classes = {
        name: (value.__base__.__name__, value.code, value.close_code)
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, StreamingError)
    }
    assert drawn == classes
