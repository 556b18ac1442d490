"""What the demos' command lines share: missing extras, and the arguments of a text to be spoken."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extras: str) -> Iterator[None]:
    """For imports of libraries of these extras. Raises SystemExit, one line that names them, if one is missing."""
    try:
        yield
    except ImportError as error:
        if error.name is None:  # the library is there, and says why it does not load
            raise SystemExit(str(error)) from None
        raise SystemExit(f"{error.name} is missing: install the extras (pip install '.[{extras}]')") from None


def speak_arguments(prog: str, description: str) -> argparse.Namespace:
    """The arguments of a demo that speaks a text into a file."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("speech_lm_url", metavar="MODEL_URL", help="language-model server, ending in /v1")
    parser.add_argument("url", metavar="SERVER_URL", help="such as ws://127.0.0.1:8765")
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("path", metavar="OUT.wav")
    return parser.parse_args()
