"""What the event loop and a worker say to each other: Python objects over a socket, pickled, each behind its length.

Both ends are this program's own, so nobody else's bytes are unpickled.
"""

import pickle
import struct
from typing import Any

_LENGTH = struct.Struct("<I")


def packed(message: object) -> bytes:
    """The message as it goes over the socket."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Puts messages together again, however the socket has cut them."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes | memoryview) -> list[Any]:
        """More bytes -> the messages that are whole now."""
        self._held += data
        messages, start = [], 0
        with memoryview(self._held) as held:
            while len(held) - start >= _LENGTH.size:
                end = start + _LENGTH.size + _LENGTH.unpack_from(held, start)[0]
                if end > len(held):
                    break
                messages.append(pickle.loads(held[start + _LENGTH.size : end]))
                start = end
        del self._held[:start]
        return messages
