"""`python -m neucodec_streaming.server.auth NAME` makes an API key."""

import argparse
import sys
from collections.abc import Sequence

from neucodec_streaming.errors import ConfigError
from neucodec_streaming.server.auth.keys import key_line, new_key


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes a key: the line for the file goes to stdout, the key itself to stderr, and nowhere else."""
    parser = argparse.ArgumentParser(
        prog="python -m neucodec_streaming.server.auth",
        description="Makes an API key. Append the line to the file: %(prog)s NAME >> KEYS",
    )
    parser.add_argument("name", help="whose key it is; logs and limits call it so")
    key = new_key()
    try:
        line = key_line(parser.parse_args(arguments).name, key)
    except ConfigError as error:
        print(f"auth: {error}", file=sys.stderr)
        return 2
    print(line, flush=True)
    print(f"the key, shown once: {key}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
