"""Valid and invalid requests and frames for `benchmarks.fuzz`, from a seeded generator.

A Script is one connection. Its `harmless` frames leave it open, so that the server has to read them all; the last one
may be anything.
"""

import json
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from websockets.frames import Opcode

from benchmarks.common.raw_connection import frame, request
from neucodec_streaming.protocol.query import FORMATS, PATHS, QUERIES

FATAL_SHARE = 0.5
MALFORMED_REQUEST_SHARE = 0.1
EARLY_SHARE = 0.02
MAX_FRAMES = 80
"""Within the server's burst (max_messages_per_s)."""
PACED_FRAMES, PACED_SHARE = 400, 0.01
"""Beyond that burst."""
TOO_LONG_BYTES = 300_000
Make = Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Script:
    """The bytes of one connection.

    `is_early`: the frames do not wait for `ready`. `end`: "close" with a closing handshake, "abort", or "half" (stops
    writing).
    """

    request: tuple[bytes, ...]
    harmless: tuple[bytes, ...] = ()
    last: bytes = b""
    end: str = "half"
    is_early: bool = False

    @property
    def frames(self) -> int:
        return len(self.harmless) + bool(self.last)


def script(rng: random.Random, lost: Sequence[str]) -> Script:
    """A connection. `lost`: path and query of sessions that may be resumed."""
    if rng.random() < MALFORMED_REQUEST_SHARE:
        return Script(_in_pieces(rng, malformed_request(rng)))
    asked = _in_pieces(rng, request(target(rng, lost), "127.0.0.1"))
    count = PACED_FRAMES if rng.random() < PACED_SHARE else rng.randrange(MAX_FRAMES)
    harmless = tuple(rng.choice(HARMLESS)(rng) for _ in range(count))
    is_early = rng.random() < EARLY_SHARE
    if rng.random() < FATAL_SHARE:  # may be the start of something that only the end of the bytes ends
        return Script(asked, harmless, rng.choice(FATAL)(rng), "half", is_early)
    return Script(asked, harmless, b"", rng.choice(("abort", "close", "half")), is_early)


def _in_pieces(rng: random.Random, data: bytes) -> tuple[bytes, ...]:
    cut = rng.randrange(len(data)) if rng.random() < 0.2 else 0
    return tuple(piece for piece in (data[:cut], data[cut:]) if piece)


def target(rng: random.Random, lost: Sequence[str]) -> str:
    kind = rng.choice(("new", "new", "new", "stats", "format", "lost", "lost", "nonsense"))
    path = rng.choice(list(PATHS))
    if kind == "nonsense":
        value = rng.choice(("-1", "1e9", "9" * 30, "%00", "%ff", "a&" * 70, "0,", "\u00e4"))
        return f"{path}?{rng.choice((*QUERIES, 'x' * 50, ''))}={value}"
    if kind == "format":
        return f"{path}?input_format={rng.choice(FORMATS)}&input_rate={rng.choice((8000, 11_050, 44_100, 48_000))}"
    if kind == "lost":
        known = lost and rng.random() < 0.8
        said = [rng.choice(lost) if known else f"{path}?resume=0123."]
        said += [f"received={rng.choice((0, 1, 50, 480, 10**9))}"] * (rng.random() < 0.5)
        said += [f"answers={rng.randrange(9)}"] * (rng.random() < 0.3)
        said += [f"{rng.choice(('utterance', 'tail'))}={rng.choice(('0,0', '320,1', '1,1', '9'))}"] * (
            rng.random() < 0.3
        )
        return "&".join(said)
    return path + ("?stats=1" if kind == "stats" else "")


def malformed_request(rng: random.Random) -> bytes:
    """Bytes that are not a WebSocket request, or not HTTP."""
    right = request("/v1/encode", "127.0.0.1")
    return rng.choice(
        (
            rng.randbytes(rng.randrange(1, 400)) + b"\r\n\r\n",
            right.replace(b"13", b"12"),
            right.replace(b"Sec-WebSocket-Key: AAAA", b"Sec-WebSocket-Key: "),
            right.replace(b"GET", b"POST"),
            right.replace(b"HTTP/1.1", b"HTTP/9"),
            right.replace(b"Host", b"Ho st"),
            right[:-2] + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
            right[:-2] + b"X: y\r\n" * 300 + b"\r\n",
            right.replace(b"/v1/encode", b"/v1/" + bytes(rng.randrange(33, 127) for _ in range(40)).replace(b" ", b"")),
            right.replace(b"/v1/encode", rng.choice((b"/v1/encode?\xff", b"//[", b"*", b"http://[/v1/encode"))),
            _flipped(rng, right),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
        )
    )


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


# Frames after which the connection stays open


def _text(rng: random.Random) -> bytes:
    kind = rng.choice(("flush", "clear", "mark", "mark", "mark"))
    body: dict[str, object] = {"type": kind}
    if kind == "mark":
        body["id"] = rng.choice((0, -(2**53) + 1, "", "\u0000", "\U0001f3a4" * 60, "x" * 256))
    body |= rng.choice(({}, {"more": [[[{}]]] * 9}, {"n": 10**40}, {"\ud800": None}))
    return frame(json.dumps(body, indent=rng.choice((None, 4))))


def _payload(rng: random.Random) -> bytes:
    """Mostly a few bytes (two are 20 ms of audio to a decoder): this does not test the speed of the model."""
    return frame(rng.randbytes(2 * rng.choice((0, 1, 1, 2, 3, 20 if rng.random() < 0.1 else 0))))


def _fragments(rng: random.Random) -> bytes:
    """A fragmented message with a ping in between."""
    text = rng.random() < 0.5
    data = b'{"type":"clear"}' if text else bytes(8)
    cut = rng.randrange(len(data))
    first = frame(data[:cut], Opcode.TEXT if text else Opcode.BINARY, fin=False)
    empty = frame(b"", Opcode.CONT, fin=False) * rng.randrange(3)
    return first + empty + _ping(rng) + frame(data[cut:], Opcode.CONT)


def _ping(rng: random.Random) -> bytes:
    return frame(rng.randbytes(rng.randrange(126)), rng.choice((Opcode.PING, Opcode.PONG)))


HARMLESS: tuple[Make, ...] = (_text, _payload, _payload, _fragments, _ping)


# What ends it, or may


def _cut_short(rng: random.Random) -> bytes:
    whole = frame(rng.randbytes(rng.randrange(1, 2000)))
    return whole[: rng.randrange(1, len(whole))]


def _flipped_frame(rng: random.Random) -> bytes:
    return _flipped(rng, rng.choice(HARMLESS)(rng))


def _reordered(rng: random.Random) -> bytes:
    messages: list[str | bytes] = ['{"type":"end"}', '{"type":"flush"}', '{"type":"clear"}', '{"type":"mark","id":1}']
    messages += [bytes(1280), bytes(64)]
    rng.shuffle(messages)
    return b"".join(map(frame, messages))


def _wrong_text(rng: random.Random) -> bytes:
    return frame(
        rng.choice(
            (
                "", "{", "null", "[]", "{}", '{"type":[]}', '{"type":"sing"}', '{"type":"ready"}', '{"type":"mark"}',
                '{"type":"mark","id":true}', '{"type":"mark","id":1e400}', '{"type":"mark","id":9007199254740992}',
                '{"type":"mark","id":"' + "x" * 257 + '"}', "[" * 50_000, '{"a":' * 5_000, "9" * 5_000, "NaN",
            )
        )
    )  # fmt: skip


def _always(data: bytes, rng: random.Random) -> bytes:
    return data


FATAL: tuple[Make, ...] = (
    _cut_short,
    _flipped_frame,
    _flipped_frame,
    _reordered,
    _wrong_text,
    _wrong_text,
    lambda rng: rng.randbytes(rng.randrange(1, 600)),
    lambda rng: frame(rng.randbytes(rng.choice((1, 3, 639)))),
    lambda rng: frame(b"\xff\xfe" * 9, Opcode.TEXT),
    lambda rng: frame(b"", Opcode.CONT),
    lambda rng: frame(b"a", fin=False) + frame(b"b"),
    lambda rng: frame(bytes(2), mask=False),
    lambda rng: frame(struct.pack("!H", rng.choice((0, 999, 1004, 1005, 1006, 1015, 2999, 5000))), Opcode.CLOSE),
    lambda rng: frame(b"\x03\xe8" + b"\xff" * 9, Opcode.CLOSE),
    *(
        partial(_always, data)
        for data in (
            frame(b"\x03", Opcode.CLOSE),
            frame(bytes(TOO_LONG_BYTES)),
            frame("x" * TOO_LONG_BYTES),
            b"\x82\xff" + b"\x7f" + 7 * b"\xff" + bytes(4),  # 2^63 - 1 bytes announced
            b"\x82\xff" + 8 * b"\xff" + bytes(4),  # negative length
            b"\x82\xfe\x00\x01" + bytes(5),  # a short length in the long form
            b"\x89\xfe\x00\xc8" + bytes(204),  # a ping of 200 bytes
            b"\x09\x80" + bytes(4),  # a fragmented ping
            b"\xf2\x80" + bytes(4),  # reserved bits
            b"\x83\x80" + bytes(4),  # reserved opcodes
            b"\x8b\x80" + bytes(4),
        )
    ),
)
