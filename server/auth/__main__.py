"""`python -m neucodec_streaming.server.auth NAME` creates an API key; `... auth token` a short-lived token."""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.auth.keys import key_line, new_key
from neucodec_streaming.server.auth.tokens import DEFAULT_MINUTES, MAX_MINUTES, new_token

PROGRAM = "python -m neucodec_streaming.server.auth"
KEY_VARIABLE = "NEUCODEC_API_KEY"


def main(arguments: Sequence[str] | None = None) -> int:
    """Creates a key or a token; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _token(given[1:]) if given[:1] == ["token"] else _key(given)
    except ConfigError as error:
        print(f"auth: {error}", file=sys.stderr)
        return 2


def _key(arguments: Sequence[str]) -> int:
    """Prints the line for the key file to stdout and the key itself to stderr, its only appearance."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Makes an API key. Append the printed line to the key file: %(prog)s NAME >> KEYS",
        epilog="`%(prog)s token` makes a short-lived token for a browser.",
    )
    parser.add_argument("name", help="name of the key's owner, for logs and limits")
    key = new_key()
    line = key_line(parser.parse_args(arguments).name, key)
    print(line, flush=True)
    print(f"the key, shown once: {key}", file=sys.stderr)
    return 0


def _token(arguments: Sequence[str]) -> int:
    """Prints the token to stdout. The key comes from the environment, since other users see command lines."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} token",
        description=f"Makes a short-lived token for a browser, signed by the key in {KEY_VARIABLE}.",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=DEFAULT_MINUTES,
        help=f"lifetime, at most {MAX_MINUTES} (default %(default)s)",
    )
    minutes = parser.parse_args(arguments).minutes
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise ConfigError(f"no key to sign the token with: set {KEY_VARIABLE} to a key that the server accepts")
    print(new_token(key, time.time(), minutes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
