"""Versioned bytes of a slot or a stream: magic, version, a JSON header that identifies the owner, raw arrays, SHA-256.

No pickle: reading gives numbers of known shapes. Bytes of another model, configuration or version are refused, and so
are damaged ones.
"""

import hashlib
import json
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from neucodec_streaming.errors import SnapshotError

MAGIC = b"NEUS"
VERSION = 2
_PREFIX = struct.Struct("<4sHI")
_DIGEST_BYTES = 32


def pack(identity: dict[str, Any], parts: Iterable[np.ndarray | bytes]) -> bytes:
    """Packs header and parts. `identity` must be equal when they are unpacked."""
    raw = [bytes(part) for part in parts]
    header = json.dumps({"identity": identity, "bytes": [len(part) for part in raw]}).encode()
    body = b"".join([_PREFIX.pack(MAGIC, VERSION, len(header)), header, *raw])
    return body + hashlib.sha256(body).digest()


def unpack(identity: dict[str, Any], snapshot: bytes) -> list[bytes]:
    """The parts' raw bytes, in the order of packing. Raises SnapshotError if their identity is not `identity`."""
    body, digest = snapshot[:-_DIGEST_BYTES], snapshot[-_DIGEST_BYTES:]
    if len(snapshot) < _PREFIX.size + _DIGEST_BYTES or not body.startswith(MAGIC):
        raise SnapshotError(f"{len(snapshot)} bytes are not a snapshot: pass the bytes that `snapshot()` returned")
    _, version, header_bytes = _PREFIX.unpack_from(body)
    if version != VERSION:
        raise SnapshotError(f"snapshot has version {version}, this software reads {VERSION}: start a new stream")
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotError("snapshot is damaged (its checksum does not match): start a new stream")
    start = _PREFIX.size + header_bytes
    header = json.loads(body[_PREFIX.size : start])
    for field, own in identity.items():
        theirs = header["identity"].get(field)
        if theirs != own:
            raise SnapshotError(
                f"snapshot has {field} {theirs!r}, but this stream has {own!r}: use the same model and configuration"
            )
    parts = []
    for size in header["bytes"]:
        parts.append(body[start : start + size])
        start += size
    return parts
