"""Handling of missing extras, and the arguments of demos that speak a text."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extras: str) -> Iterator[None]:
    """Raises SystemExit, one line that names the extras, if an import in the block fails."""
    try:
        yield
    except ImportError as error:
        if error.name is None:  # the library is there, and says why it does not load
            raise SystemExit(str(error)) from None
        raise SystemExit(f"{error.name} is missing: install the extras (pip install '.[{extras}]')") from None


def speak_arguments(prog: str, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("speech_lm_url", metavar="MODEL_URL", help="language-model server, ending in /v1")
    parser.add_argument("url", metavar="SERVER_URL", help="such as ws://127.0.0.1:8765")
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("path", metavar="OUT.wav")
    return parser.parse_args()
