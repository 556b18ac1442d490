"""`python -m neucodec_streaming.client`: the command `neucodec`. Ctrl-C never gives a traceback, not while it loads."""

import signal
import sys


def main() -> int:
    """Loads the command and runs it; returns its exit code."""
    interrupt = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_DFL if interrupt is signal.default_int_handler else signal.SIG_IGN)
    from neucodec_streaming.client import cli

    try:
        signal.signal(signal.SIGINT, interrupt)
        return cli.main()
    except KeyboardInterrupt:
        return cli.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
