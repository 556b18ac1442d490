"""Short-lived tokens for browsers, which cannot keep a key: signed with a key, verified with its hash.

A token is `nct_UNTIL_MAC`: UNTIL in Unix seconds, MAC the HMAC-SHA256 of "neucodec token until UNTIL" in hexadecimal,
keyed by the SHA-256 of the API key. Until then it grants what the key grants. Nothing is stored, so a restarted server
and other servers with the same key file accept it.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable

from neucodec_streaming.errors import AuthError, ConfigError

MAX_MINUTES = 60
"""Limit of a token's lifetime; longer ones are refused even if signed."""
DEFAULT_MINUTES = 5
_TOKEN = re.compile(r"nct_(\d{1,12})_([0-9a-f]{64})")


def is_token(text: str) -> bool:
    """Whether a text is a token, not a key."""
    return text.startswith("nct_")


def new_token(key: str, now_s: float, minutes: float = DEFAULT_MINUTES) -> str:
    """A token signed with the key, valid from now on. Raises ConfigError for a lifetime that servers refuse."""
    if not 0 < minutes <= MAX_MINUTES:
        raise ConfigError(f"minutes is {minutes:g}: expected a number above 0 and at most {MAX_MINUTES}")
    until = int(now_s + 60 * minutes)
    return f"nct_{until}_{_signature(hashlib.sha256(key.encode()).digest(), until)}"


def name_of_token(token: str, entries: Iterable[tuple[str, bytes]], now_s: float) -> str:
    """The name of the key that signed the token. Raises AuthError.

    Every entry is compared in constant time.
    """
    parts = _TOKEN.fullmatch(token)
    until = int(parts[1]) if parts else 0
    found = None
    for name, digest in entries:
        if parts and hmac.compare_digest(_signature(digest, until), parts[2]):
            found = name
    if found is None:
        raise AuthError("the token is not signed by a key of this server: request a new one from its issuer")
    if now_s >= until:
        raise AuthError("the token has expired: request a new one from its issuer for each connection")
    if until > now_s + 60 * (MAX_MINUTES + 1):
        raise AuthError(
            f"the token is valid for more than {MAX_MINUTES} minutes, the limit: request a shorter one from its issuer"
        )
    return found


def _signature(digest: bytes, until: int) -> str:
    return hmac.new(digest, f"neucodec token until {until}".encode(), hashlib.sha256).hexdigest()
