"""Messages between the event loop and a worker: pickled Python objects on a socket, each after its length.

Both ends belong to this program, so no foreign bytes are unpickled.
"""

import pickle
import struct
from typing import Any

_LENGTH = struct.Struct("<I")


def packed(message: object) -> bytes:
    """The encoded message."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Reassembles messages from any pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes | memoryview) -> list[Any]:
        """Accepts bytes and returns the complete messages."""
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
