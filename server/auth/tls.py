"""TLS from certificate files that are reloaded when they change, so that a renewed certificate needs no restart.

A pair of files is loaded into a context of its own and takes effect as a whole or not at all. Every handshake asks for
the present context (`sni_callback`, which OpenSSL also calls for clients without a server name), so no task is needed
and certificate and key always match. Open connections keep their context.
"""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from neucodec_streaming.errors import ConfigError, reason_of
from neucodec_streaming.server.auth.file_watch import FileWatch

_log = logging.getLogger(__name__)


class Certificate:
    """The certificate chain and private key in two PEM files; `context` is for the listening socket.

    TLS 1.2 or newer, with Python's default ciphers. `clock` gives seconds. Raises ConfigError for unreadable or
    mismatched files; later such files are logged, and the old certificate stays.
    """

    def __init__(self, cert: Path, key: Path, clock: Callable[[], float]) -> None:
        self._cert, self._key = cert, key
        self._watch = FileWatch([cert, key], clock)
        self.context = self._present = _read(cert, key)
        self.context.sni_callback = self._offer

    def _offer(self, handshake: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        if self._watch.changed():
            try:
                self._present = _read(self._cert, self._key)
            except ConfigError as error:
                _log.error("keeping the previous certificate: %s", error)
            else:
                _log.info("certificate read from %s", self._cert)
        handshake.context = self._present


def _read(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password="")  # without one OpenSSL would ask on the terminal
    except OSError as error:  # SSLError is an OSError too
        raise ConfigError(
            f"certificate {cert} and key {key} cannot be used ({reason_of(error)}): specify matching PEM files, the"
            " chain with the server's own certificate first, and a key without a password"
        ) from None
    return context
