"""Broker URLs (`mqtt://`, `mqtts://`) and TLS files. Standard library only."""

import ssl
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from neucodec_streaming.errors import ConfigError, reason_of

PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class BrokerAddress:
    """A broker. With `tls`, its certificate is verified by the system's authorities or by `ca_file`; `cert_file` and
    `key_file` are the client certificate, for brokers that require one.
    """

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """None without TLS. Raises ConfigError for files that cannot be used."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                # Without a password OpenSSL would ask for that of an encrypted key on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
        except OSError as error:  # SSLError is an OSError too
            raise ConfigError(
                f"the certificates for {self} cannot be used ({reason_of(error)}): specify PEM files, and a key without"
                " a password"
            ) from None
        return context


def parse_broker(
    url: str, ca_file: str | None = None, cert_file: str | None = None, key_file: str | None = None
) -> BrokerAddress:
    """Parses `mqtt://USER:PASSWORD@HOST:PORT`, or `mqtts://` for TLS; user, password and port are optional.

    Raises ConfigError, whose message never contains the password.
    """
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        host, port = None, None
        split = urlsplit("")
    if split.scheme not in PORTS or not host or split.path.strip("/") or split.query or split.fragment:
        raise ConfigError("the broker's URL is invalid: use one like mqtt://127.0.0.1:1883 or mqtts://broker.example")
    tls = split.scheme == "mqtts"
    if not tls and (ca_file or cert_file or key_file):
        raise ConfigError(f"certificates are set, but mqtt://{host} does not use TLS: use mqtts://{host}")
    if (cert_file is None) != (key_file is None):
        raise ConfigError("TLS client authentication needs a certificate and its key: set both or neither")
    username = None if split.username is None else unquote(split.username)
    password = None if split.password is None else unquote(split.password)
    return BrokerAddress(host, port or PORTS[split.scheme], tls, username, password, ca_file, cert_file, key_file)
