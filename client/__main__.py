"""`python -m neucodec_streaming.client`: the command `neucodec`.

Neither Ctrl-C, even while it loads, nor a reader of its output that has gone (`| head`) gives a traceback.
"""

import os
import signal
import sys


def main() -> int:
    """Loads and runs the command; returns its exit code.

    Until the command handles Ctrl-C itself, it ends the process at once: a KeyboardInterrupt is lost if it is raised in
    a callback of the import system.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from neucodec_streaming.client import cli

    try:
        return cli.main()
    except KeyboardInterrupt:
        return cli.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _flush()


def _flush() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
