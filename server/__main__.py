"""`neucodec-server`, also as `python -m neucodec_streaming.server`: the server, or a bulk job by its name.

Names a missing extra in one line, and ends silently when the reader of its output has gone (`| head`).
"""

import os
import sys

from neucodec_streaming.lazy import missing_extra


def main() -> int:
    """Runs the command and returns its exit code; 2 if an extra is not installed."""
    try:
        if sys.argv[1:2] in (["encode-files"], ["decode-files"]):
            from neucodec_streaming.server.bulk.cli import main as run
        else:
            from neucodec_streaming.server.cli import main as run
    except ModuleNotFoundError as error:
        missing = missing_extra(error, "neucodec-server")
        if missing is error:
            raise
        print(f"neucodec-server: {missing}", file=sys.stderr)
        return 2
    try:
        try:
            return run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
