"""The law of FrameReader: on any bytes in any pieces it gives the same result as the protocol class of websockets."""

import random
import struct
from collections.abc import Iterable, Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from benchmarks.common.raw_connection import request
from neucodec_streaming.server.http.frame_reader import FrameReader, binary_header

HEAD = request("/v1/encode", "host")
MAX_BYTES = 200
LENGTHS = (0, 1, 2, 125, 126, 127, MAX_BYTES)
MISTAKES = (
    Frame(Opcode.BINARY, bytes(MAX_BYTES + 1)).serialize(mask=True),
    Frame(Opcode.BINARY, b"ab").serialize(mask=False),
    Frame(Opcode.CLOSE, Close(1000, "").serialize()).serialize(mask=True),
    b"\xc2\x82abcdef",  # a reserved bit
    b"\x83\x82abcdef",  # an undefined opcode
    b"\x89\xfe\x00\xc8" + bytes(204),  # a ping that is too long
    b"\x82\xff" + struct.pack(">Q", 1 << 63) + bytes(4),
    b"\x82\xff" + struct.pack(">Q", 5) + b"abcdhello",  # a length encoded in more bytes than necessary
    b"\x82\xfe\x00\x05abcdhello",
    Frame(Opcode.CONT, b"of what?").serialize(mask=True),
    Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True),
)
Outcome = tuple[list[bytes | str], State, bytes]


def by_the_protocol(pieces: Iterable[bytes]) -> Outcome:
    """Messages, state and answers of websockets alone; invalid UTF-8 ends with status 1007."""
    protocol = ServerProtocol(max_size=MAX_BYTES)
    messages: list[bytes | str] = []
    parts: list[bytes] = []
    is_text = False
    for piece in pieces:
        protocol.receive_data(piece)
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
                continue
            assert isinstance(event, Frame)
            if event.opcode in (Opcode.TEXT, Opcode.BINARY):
                is_text = event.opcode is Opcode.TEXT
            elif event.opcode is not Opcode.CONT:
                continue
            parts.append(bytes(event.data))
            if event.fin:
                data, parts = b"".join(parts), []
                try:
                    messages.append(data.decode() if is_text else data)
                except UnicodeDecodeError:
                    protocol.fail(1007, "text that is not UTF-8")
    return messages, protocol.state, answers(protocol)


def by_the_reader(pieces: Iterable[bytes]) -> Outcome:
    protocol = ServerProtocol(max_size=MAX_BYTES)
    reader = FrameReader(protocol, MAX_BYTES)
    messages: list[bytes | str] = []
    for piece in pieces:
        payload = reader.only_payload(memoryview(piece))
        if payload is not None:
            messages.append(payload)
            continue
        reader.feed(piece)
        while reader.find():
            for message in taken(reader):
                if isinstance(message, Request):
                    protocol.send_response(protocol.accept(message))
                else:
                    messages.append(message)
    return messages, protocol.state, answers(protocol)


def taken(reader: FrameReader) -> Sequence[bytes | str | Request]:
    """Uses the method that matches the result of `find`."""
    return [reader.take_payload()] if reader.found_payload else reader.take()


def answers(protocol: ServerProtocol) -> bytes:
    """Removes the date of the response."""
    return b"".join(protocol.data_to_send()).partition(b"\r\n\r\n")[2]


def one_by_one(data: bytes) -> list[bytes]:
    """Single bytes, so that frames after the end of the connection are not parsed."""
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, rng: random.Random) -> Iterator[bytes]:
    most = rng.choice((1, 3, 50, 4000))
    start = 0
    while start < len(data):
        size = rng.randint(1, most)
        yield data[start : start + size]
        start += size


FRAMES = st.builds(
    lambda opcode, fin, length, fill: Frame(opcode, bytes([fill]) * length, fin=fin).serialize(mask=True),
    st.sampled_from((Opcode.BINARY, Opcode.BINARY, Opcode.BINARY, Opcode.TEXT, Opcode.CONT)),
    st.sampled_from((True, True, True, False)),
    st.sampled_from(LENGTHS),
    st.sampled_from(b"abc"),
)
PINGS = st.binary(max_size=125).map(lambda data: Frame(Opcode.PING, data).serialize(mask=True))
STREAMS = st.lists(
    st.one_of(FRAMES, FRAMES, FRAMES, PINGS, st.sampled_from(MISTAKES), st.binary(max_size=20)), max_size=12
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(units=STREAMS, seed=st.integers(0, 1 << 32))
def test_any_bytes_in_any_pieces_give_the_same_messages_as_websockets(units: list[bytes], seed: int) -> None:
    frames = b"".join(units)
    expected = by_the_protocol([HEAD, *one_by_one(frames)])
    assert by_the_reader(cut(HEAD + frames, random.Random(seed))) == expected
    assert by_the_reader([HEAD, *units]) == expected


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.binary(max_size=300), seed=st.integers(0, 1 << 32))
def test_an_invalid_request_is_refused_as_by_websockets(data: bytes, seed: int) -> None:
    data += b"\r\n\r\n"
    read, expected = by_the_reader(cut(data, random.Random(seed))), by_the_protocol([data])
    assert (read[0], read[1]) == (expected[0], expected[1])


def upgraded() -> FrameReader:
    protocol = ServerProtocol()
    reader = FrameReader(protocol, MAX_BYTES)
    reader.feed(HEAD)
    assert reader.find()
    (event,) = reader.take()
    assert isinstance(event, Request)
    protocol.send_response(protocol.accept(event))
    return reader


def test_payload_is_distinguished_from_empty_and_text_messages() -> None:
    reader = upgraded()
    for opcode, data, is_payload in (
        (Opcode.BINARY, b"ab", True),
        (Opcode.BINARY, b"", False),
        (Opcode.TEXT, b"ab", False),
    ):
        reader.feed(Frame(opcode, data).serialize(mask=True))
        assert reader.find() and reader.found_payload is is_payload
        assert taken(reader) == [data if opcode is Opcode.BINARY else data.decode()]


def test_a_read_of_one_whole_payload_needs_no_buffer() -> None:
    reader = upgraded()
    reader.feed(Frame(Opcode.BINARY, b"first").serialize(mask=True))
    assert reader.find() and taken(reader) == [b"first"]
    for length in LENGTHS[1:]:
        data = bytes(range(length))
        frame = memoryview(Frame(Opcode.BINARY, data).serialize(mask=True))
        assert reader.only_payload(frame) == data
        assert reader.only_payload(frame[:-1]) is None
    reader.feed(frame[:3])
    assert reader.only_payload(frame) is None, "an incomplete frame precedes it"


def test_a_binary_header_equals_that_of_websockets() -> None:
    for length in (0, 125, 126, 65_535, 65_536):
        assert binary_header(length) + bytes(length) == Frame(Opcode.BINARY, bytes(length)).serialize(mask=False)
