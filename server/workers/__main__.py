"""The first process of the workers, started by handle.py with sockets as descriptors and settings on stdin."""

import logging
import os
import signal
import socket
import sys

from neucodec_streaming.server.logs import log_to_stderr
from neucodec_streaming.server.workers.converter import converter_before
from neucodec_streaming.server.workers.ipc import Unpacker
from neucodec_streaming.server.workers.worker import work


def main() -> None:
    """Works until the other ends of the sockets are closed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the server gets it too, and ends this process
    settings, load = Unpacker().feed(sys.stdin.buffer.read())[0]
    log_to_stderr(settings.log_level, settings.log_format)
    forks = sys.platform == "linux"  # elsewhere libraries of the system may not work in a forked process
    sockets = [socket.socket(fileno=int(number)) for number in sys.argv[1:]]
    if forks and settings.device.startswith("cuda"):
        sockets[0] = converter_before(sockets[0])
    os.nice(settings.nice)
    work(sockets, settings, load, forks=forks)


if __name__ == "__main__":
    main()
    logging.shutdown()
    os._exit(0)  # skips the interpreter's shutdown, in which libraries of PyTorch report leaks
