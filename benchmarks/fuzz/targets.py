"""Targets of fuzzing: each function feeds untrusted bytes to a parser and returns, or raises if it found a bug.

Invalid input raises a StreamingError; valid input survives encoding and decoding unchanged. hypothesis drives the
targets in tests/fuzz, libFuzzer in benchmarks.fuzz.guided.
"""

import json
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from websockets.datastructures import Headers

from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.config import StreamConfig
from neucodec_streaming.errors import InputError, ProtocolError, StreamingError
from neucodec_streaming.formats import PCM_FORMATS
from neucodec_streaming.protocol.client_session import ClientSession
from neucodec_streaming.protocol.messages import (
    INPUT_AUDIO,
    TOKENS,
    Clear,
    ClientMessage,
    Done,
    End,
    Mark,
    Ready,
    Resume,
    ServerMessage,
    StreamFormat,
    encode_message,
    parse_client_message,
    parse_server_message,
)
from neucodec_streaming.protocol.mqtt.hermes import samples_of, wav_of
from neucodec_streaming.protocol.mqtt.packets import HEADER
from neucodec_streaming.protocol.mqtt.receiver import Receiver
from neucodec_streaming.protocol.mqtt.topics import (
    OpenRequest,
    Reply,
    Status,
    encode_open,
    encode_request,
    parse_answer,
    parse_request,
    parse_status,
)
from neucodec_streaming.protocol.query import parse_target
from neucodec_streaming.protocol.session import ServerSession
from neucodec_streaming.protocol.states import State
from neucodec_streaming.resampler import Resampler
from neucodec_streaming.server.auth.gate import Gate
from neucodec_streaming.server.auth.keys import Keys
from neucodec_streaming.server.sessions.window_buffer import WindowBuffer
from neucodec_streaming.tokens import TokenText, tokens_from_bytes, tokens_from_npy, tokens_to_bytes
from neucodec_streaming.torch_file import integers_from_pt

READY = Ready("s1", "mini", "default", 5, 5, 215.0, INPUT_AUDIO, TOKENS, Resume("t", 30.0))
REPLAY_BYTES = 256
RATES = (8000, 11_050, 16_000, 24_000, 44_100, 48_000)


class Reader:
    """Bytes interpreted as choices; after their end everything is 0 or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, below: int) -> int:
        return int.from_bytes(self.take(1 if below <= 256 else 2), "little") % below

    def text(self) -> str:
        """Decoded as a server decodes a UTF-8 message."""
        return self.take(self.number(300)).decode(errors="replace")


class FuzzedSession:
    """A server's session with a client that may send anything, and an engine that turns every frame into a token."""

    def __init__(self) -> None:
        self.server = ServerSession(READY, max_replay_bytes=REPLAY_BYTES)
        self.is_attached = True
        self._engine: list[tuple[bytes | ClientMessage, int]] = []
        self._samples = 0
        self._input = 0
        self.said: list[bytes | ServerMessage] = []
        self.send()

    def hear(self, data: bytes | str) -> None:
        server = self.server
        if not self.is_attached or server.failure is not None or server.is_over:
            return
        before = server.input_position, server.state
        try:
            command = parse_client_message(data)
            server.receive(command)
        except StreamingError as error:
            assert (server.input_position, server.state) == before, "what is refused changes nothing"
            server.fail(error)
            return
        if not isinstance(command, Mark):
            self._engine.append((command, server.epoch))

    def compute(self) -> None:
        """Runs one command of the engine, with all its output at once."""
        if not self._engine:
            return
        command, epoch = self._engine.pop(0)
        if isinstance(command, bytes):
            before, self._samples = self._samples, self._samples + len(command) // 2
            frames = self._samples // 320 - before // 320
            if frames:
                self.server.output_ready(bytes(2 * frames), epoch)
        else:
            self._samples = 0
            if not isinstance(command, Clear):
                self.server.flush_finished(epoch)

    def send(self) -> None:
        if not self.is_attached or (message := self.server.next_message()) is None:
            return
        assert parse_server_message(encode_message(message)) == message
        self.said.append(message)

    def lose(self) -> None:
        if self.is_attached and self.server.state in (State.STREAMING, State.ENDING):
            self.server.lose()
            self.is_attached = False

    def resume(self, received: int, answers: int | None) -> None:
        """The server sends `ready` first."""
        if not self.is_attached and self.server.can_resume(received, answers):
            self.server.resume(READY, received, answers)
            self.is_attached = True
            self.send()

    def check(self) -> None:
        server = self.server
        assert server.queued_units >= 0 and server.owed_frames >= 0
        assert server.output_position + server.queued_units <= server.input_position // 320
        assert self._input <= server.input_position
        self._input = server.input_position

    def finish(self) -> None:
        if not self.is_attached:
            self.resume(self.server.output_position, None)
        self.hear(encode_message(End()))
        while self._engine:
            self.compute()
        while self.is_attached and self.server.queued_messages:
            self.send()
        self.check()
        if self.is_attached and self.server.failure is None:
            done = self.said[-1]
            assert isinstance(done, Done) and done.input == done.output * 320 + done.dropped


def conversation(data: bytes) -> None:
    """A hostile client's whole session, with losses and resumptions."""
    reader, talk = Reader(data), FuzzedSession()
    acts: Sequence[Callable[[], None]] = (
        lambda: talk.hear(reader.take(reader.number(2000))),
        lambda: talk.hear(reader.text()),
        lambda: talk.hear(encode_message((Clear(), Mark(1), End())[reader.number(3)])),
        lambda: talk.hear('{"type":"flush"}'),
        talk.compute,
        talk.send,
        talk.lose,
        lambda: talk.resume(reader.number(64), (None, reader.number(16))[reader.number(2)]),
    )
    while not reader.is_empty:
        acts[reader.number(len(acts))]()
        talk.check()
    talk.finish()


def client_message(data: bytes) -> None:
    with suppress(ProtocolError):
        message = parse_client_message(data.decode(errors="replace"))
        assert parse_client_message(encode_message(message)) == message


def server_messages(data: bytes) -> None:
    """Any messages from a server to a client that requested everything."""
    reader, client = Reader(data), ClientSession(INPUT_AUDIO, TOKENS)
    client.receive(READY)
    client.send_payload(bytes(6400))
    client.send(Mark("m"))
    with suppress(StreamingError):
        while not reader.is_empty:
            is_text = reader.number(2)
            client.receive(parse_server_message(reader.text() if is_text else reader.take(reader.number(64))))


def target(data: bytes) -> None:
    with suppress(StreamingError):
        request = parse_target("/v1/" + data.decode("latin-1"))
        if request is not None:
            assert parse_target(request.target) == request


def headers(data: bytes) -> None:
    """Headers of access control: keys, origin, proxies."""
    reader = Reader(data)
    gate = Gate(
        Keys(None, ["a key that is long enough"], lambda: 0.0),
        clock=lambda: 0.0,
        origins=["https://*.example.org"],
        trusted_proxies=["10.0.0.0/8"],
    )
    names = ("Authorization", "Origin", "X-Forwarded-For")
    given = Headers()
    while not reader.is_empty:
        name, value = names[reader.number(len(names))], reader.text()
        if value.isascii() and value.isprintable():  # others do not pass the HTTP parser
            given[name] = value
    with suppress(StreamingError):
        gate.check(given, reader.text() or None, "10.0.0.1")


def audio(data: bytes) -> None:
    """Payload of any format, in packets, through a resampler: the same for every cut."""
    reader = Reader(data)
    form = list(PCM_FORMATS)[reader.number(len(PCM_FORMATS))]
    rates = RATES[reader.number(len(RATES))], RATES[reader.number(len(RATES))]
    whole, parts = Resampler(*rates), Resampler(*rates)
    packets = []
    with suppress(StreamingError):
        while not reader.is_empty:
            packets.append(pcm_from_bytes(reader.take(reader.number(1000)), form))
            assert packets[-1].dtype == np.float32 and np.isfinite(packets[-1]).all()
            assert len(pcm_to_bytes(packets[-1], form)) == packets[-1].size * PCM_FORMATS[form].sample_bytes
    cut = [parts.feed(packet) for packet in packets] + [parts.flush()]
    joined = whole.feed(np.concatenate([np.zeros(0, np.float32), *packets]), last=True)
    assert np.array_equal(np.concatenate(cut), joined)


def window_buffer(data: bytes) -> None:
    """Packets in the window buffer: none is lost or reordered."""
    reader = Reader(data)
    rate, form = RATES[reader.number(len(RATES))], tuple(PCM_FORMATS)[reader.number(len(PCM_FORMATS))]
    held = WindowBuffer(StreamFormat("audio", form, rate), StreamConfig(5, 5))
    given, got = [], []
    while not reader.is_empty:
        given.append(reader.take(reader.number(5000)))
        got.append(held.put(given[-1]))
    assert b"".join([*got, held.end()]) == b"".join(given)


def mqtt_control(data: bytes) -> None:
    for parse in (parse_request, parse_answer, parse_status, lambda payload: samples_of(payload, INPUT_AUDIO)):
        with suppress(StreamingError):
            parse(data)


def mqtt_stream(data: bytes) -> None:
    """Frames of a stream in any order, with repeats and gaps: whole units come out."""
    reader, receiver = Reader(data), Receiver(2, position=None)
    while not reader.is_empty:
        act = reader.number(8)
        with suppress(InputError):
            if act == 0:
                pieces = receiver.give_up()
            elif act == 1 and receiver.position is not None:
                pieces = receiver.put("event", reader.number(64))
            else:
                header = struct.pack(
                    HEADER.format, reader.number(2), reader.number(256), reader.number(9), reader.number(64)
                )
                pieces = receiver.receive(header + reader.take(reader.number(20)))
            for piece in pieces:
                assert piece == "event" or (piece.lost >= 0 and len(piece.payload) % 2 == 0)


def tokens(data: bytes) -> None:
    """Tokens from the wire and from files of every kind."""
    with suppress(StreamingError):
        assert tokens_to_bytes(tokens_from_bytes(data)) == data
    for read in (tokens_from_npy, integers_from_pt):
        with suppress(StreamingError):
            read(data)
    reader, text = Reader(data), TokenText()
    with suppress(StreamingError):
        while not reader.is_empty:
            text.feed(reader.text())


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        client_message, server_messages, conversation, target, headers, audio, window_buffer, tokens,
        mqtt_control, mqtt_stream,
    )
}  # fmt: skip

SEEDS: dict[str, list[bytes]] = {
    "client_message": [
        b'{"type":"flush"}',
        b'{"type":"clear","x":[]}',
        b'{"type":"mark","id":"m"}',
        b'{"type":"mark","id":-9007199254740991}',
        b'{"type":"end"}',
    ],
    "server_messages": [
        b"\x01" + len(text).to_bytes(2, "little") + text
        for text in (
            json.dumps({"type": "mark", "id": "m", "cleared": False}).encode(),
            b'{"type":"stats","buffered_ms":1,"behind_ms":0}',
            b'{"type":"error","code":"full","message":"no"}',
            b'{"type":"flushed"}',
        )
    ],
    "target": [
        b"encode?input_rate=48000&input_format=f32le&stats=1",
        b"decode?output_rate=8000&output_format=mulaw&profile=low",
        b"roundtrip?resume=t&received=5&answers=1&utterance=320,1",
        b"roundtrip?resume=t&received=5&tail=320,1&access_token=%F0%9F%94%91",
    ],
    "headers": [b"\0\x08\0Bearer k", b"\1\x18\0https://www.example.org", b"\2\x12\x00192.0.2.1, 10.1.2.3"],
    "tokens": [b"<|speech_12345|>", b"\x93NUMPY\x01\0v\0{'descr': '<u2', 'fortran_order': False, 'shape': (1,), }\n"],
    "mqtt_control": [
        encode_open(OpenRequest("/v1/encode?profile=low")),
        encode_request(Mark("m"), 320),
        Status(
            "open", "bridge", OpenRequest("/v1/decode", redundancy=5), Reply("answers", b"c"), 1, 2, {"frames": 3}
        ).encode(),
        wav_of(bytes(20), INPUT_AUDIO),
    ],
    "mqtt_stream": [bytes([2, 1, 0, 0, 0, 4, *bytes(4), 3, 1, 0, 2, 3, 4, *bytes(4), 4, 1, 1, 1, 2, 4, *bytes(4), 0])],
    "conversation": [bytes([0, 128, 2, *bytes(640), 4, 5, 6, 7, 0, 0]), bytes([3, 2, 0, 2, 1, 4, 5, 4, 5])],
}
