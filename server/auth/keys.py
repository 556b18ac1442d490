"""API keys: authenticates a request by its key.

`python -m neucodec_streaming.server.auth NAME` creates a key. Keys are kept as SHA-256 hashes, in a file of lines
`NAME:HASH` that is reloaded when it changes, or computed from plain keys of the environment. Slow, salted hashes
protect guessable secrets; a key is 256 random bits (a plain one at least 22 characters), so one fast hash suffices and
an attempt costs the event loop next to nothing. Without a file and plain keys everybody is admitted; an empty file
admits nobody.
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from websockets.datastructures import Headers

from neucodec_streaming.errors import AuthError, ConfigError, reason_of
from neucodec_streaming.server.auth.file_watch import FileWatch
from neucodec_streaming.server.auth.tokens import is_token, name_of_token

MIN_KEY_LENGTH = 22
"""Minimum length of a plain key: 128 random bits in base64."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_HOW = "expected NAME:HASH, as printed by `python -m neucodec_streaming.server.auth NAME`"

_Entries = list[tuple[str, bytes]]
_log = logging.getLogger(__name__)


class Keys:
    """The valid keys: those of `file`, and the `plain` ones, which are named plain-1, plain-2, ...

    A name may have several keys, for rotation without a gap. `clock` gives seconds, `wall_clock` Unix time. Raises
    ConfigError for an unreadable file or a plain key that is too short. If the file becomes unreadable later, that is
    logged and its old keys stay.
    """

    def __init__(
        self,
        file: Path | None,
        plain: Sequence[str],
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        for number, key in enumerate(plain, 1):
            if len(key) < MIN_KEY_LENGTH:
                raise ConfigError(
                    f"plain API key {number} has {len(key)} characters: use at least {MIN_KEY_LENGTH} random ones, such"
                    " as a key from `python -m neucodec_streaming.server.auth NAME`"
                )
        self._plain: _Entries = [(f"plain-{number}", _digest(key)) for number, key in enumerate(plain, 1)]
        self._wall_clock = wall_clock
        self._path = file
        self._watch = FileWatch([file] if file else [], clock)
        self._filed = _read(file) if file else []

    @property
    def required(self) -> bool:
        return self._path is not None or bool(self._plain)

    def name_of(self, key: str | None) -> str | None:
        """The name of a key, or of the key that signed a token (tokens.py); None if no key is required.

        Raises AuthError for a missing or unknown key. Every entry is compared in constant time, so that timing reveals
        nothing.
        """
        if not self.required:
            return None
        if not key:
            raise AuthError(
                "this server requires an API key: send `Authorization: Bearer KEY`, or access_token in the URL"
            )
        self._reread()
        if is_token(key):
            return name_of_token(key, self._filed + self._plain, self._wall_clock())
        given = _digest(key)
        found = None
        for name, digest in self._filed + self._plain:
            if hmac.compare_digest(digest, given):
                found = name
        if found is None:
            raise AuthError("unknown API key: request a new one from the operator of this server")
        return found

    def _reread(self) -> None:
        if self._path is None or not self._watch.changed():
            return
        try:
            self._filed = _read(self._path)
        except ConfigError as error:
            _log.error("keeping the previous API keys: %s", error)
        else:
            _log.info("%d API keys read from %s", len(self._filed), self._path)


def key_from(headers: Headers, access_token: str | None) -> str | None:
    """The key of a request: from `Authorization: Bearer` (RFC 6750), else from the query, else None.

    Other schemes, such as Basic for a proxy, are ignored.
    """
    for value in headers.get_all("Authorization"):
        scheme, _, key = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            return key.strip()
    return access_token


def new_key() -> str:
    """256 random bits, in characters allowed in URLs and headers."""
    return "nck_" + secrets.token_urlsafe(32)


def key_line(name: str, key: str) -> str:
    """The line of the file for a key. Raises ConfigError for an invalid name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"key name {name!r} is invalid: use 1 to 64 of A-Z, a-z, 0-9, dot, dash and underscore")
    return f"{name}:{_digest(key).hex()}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _read(path: Path) -> _Entries:
    """Parses names and hashes; empty lines and comments (#) are skipped. Raises ConfigError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"API key file {path} cannot be read: {reason_of(error)}") from None
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, digest = line.strip().partition(":")
        if not (_NAME.fullmatch(name) and _HASH.fullmatch(digest)):
            # never the line: it may contain a key
            raise ConfigError(f"line {number} of {path} is not an API key: {_HOW}")
        entries.append((name, bytes.fromhex(digest)))
    return entries
