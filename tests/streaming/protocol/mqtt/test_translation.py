"""Translation of frames and requests to a conversation and back, without a device or a broker."""

import json

import pytest

from neucodec_streaming.errors import AudioError, ConfigError
from neucodec_streaming.protocol.messages import Clear, End, Flush, Flushed, Mark, Ready
from neucodec_streaming.protocol.mqtt.hermes import samples_of, wav_of
from neucodec_streaming.protocol.mqtt.packets import FrameWriter, parse_frame
from neucodec_streaming.protocol.mqtt.topics import (
    OpenRequest,
    Reply,
    encode_request,
    hermes_topic,
    parse_answer,
    parse_request,
    topic,
)
from neucodec_streaming.protocol.mqtt.translation import Answer, OutputFrame, Translation
from neucodec_streaming.protocol.session import ServerSession

HOP = 640  # bytes of a frame at 16 kHz


class Bench:
    """The engine answers at once: a frame's token is its first sample."""

    def __init__(self, request: OpenRequest | None = None, position: int | None = 0) -> None:
        self.request = request or OpenRequest("/v1/encode")
        asked = self.request.session
        self.translation = Translation(self.request, Reply("ours", b"0"), source=9, position=position)
        self.session = ServerSession(Ready("s", "m", "default", 5, 5, 0.0, asked.input, asked.output))
        self.writer = FrameWriter(2, source=1)
        self.frames: list = []
        self.answers: list = []
        self._utterance = b""
        self._pump()

    def converse(self, messages) -> None:
        for message in messages:
            self.session.receive(message)
            if isinstance(message, bytes):
                self._utterance += message
                whole = len(self._utterance) // HOP * HOP
                ready, self._utterance = self._utterance[:whole], self._utterance[whole:]
                if ready:
                    self.session.output_ready(
                        b"".join(ready[i : i + 2] for i in range(0, whole, HOP)), self.session.epoch
                    )
            elif not isinstance(message, Mark):
                self._utterance = b""
                if not isinstance(message, Clear):
                    self.session.flush_finished(self.session.epoch)
            self._pump()

    def _pump(self) -> None:
        while (message := self.session.next_message()) is not None:
            for item in self.translation.message(message):
                if isinstance(item, OutputFrame):
                    self.frames.append(item.payload)
                else:
                    self.answers.append((item.reply, json.loads(item.payload)))

    def tokens(self) -> dict[int, int]:
        """Position -> token."""
        found = {}
        for data in self.frames:
            frame = parse_frame(data, 2)
            new = frame.payload[frame.repeated * 2 :]
            found |= {frame.position + i // 2: int.from_bytes(new[i : i + 2], "little") for i in range(0, len(new), 2)}
        return found


def speech(*values: int) -> bytes:
    """20 ms for each value."""
    return b"".join(value.to_bytes(2, "little") * 320 for value in values)


def test_ready_goes_to_the_requesting_client():
    bench = Bench()
    ((reply, ready),) = bench.answers
    assert reply == Reply("ours", b"0") and ready["type"] == "ready" and ready["session"] == "s"


def test_frames_become_tokens_at_their_positions():
    bench = Bench()
    for value in (1, 2, 3):
        bench.converse(bench.translation.frame(bench.writer.write(speech(value))))
    assert bench.tokens() == {0: 1, 1: 2, 2: 3}


def test_a_flush_waits_for_its_position_and_reports_where_the_output_ends():
    bench = Bench()
    bench.converse(bench.translation.request(Flush(), 640, Reply("ours", b"1")))
    assert len(bench.answers) == 1
    bench.converse(bench.translation.frame(bench.writer.write(speech(1, 2))))
    assert bench.answers[1:] == [(Reply("ours", b"1"), {"type": "flushed", "position": 2})]
    assert parse_frame(bench.frames[-1], 2).last


def test_the_output_of_an_utterance_begins_where_its_input_does():
    bench = Bench()
    bench.converse(bench.translation.frame(bench.writer.write(speech(1) + b"\0\0" * 100)))
    bench.converse(bench.translation.request(Flush(), 420, Reply()))
    bench.converse(bench.translation.frame(bench.writer.write(speech(2))))
    assert bench.tokens() == {0: 1, 2: 2}  # the frame of 100 samples gave no token


def test_lost_audio_is_silence_and_keeps_its_place():
    bench = Bench()
    packets = [bench.writer.write(speech(value)) for value in range(1, 6)]
    for packet in (packets[0], packets[2], packets[3], packets[4]):
        bench.converse(bench.translation.frame(packet))
    assert bench.tokens() == {0: 1, 1: 0, 2: 3, 3: 4, 4: 5}
    assert bench.translation.loss.lost_units == 320


def test_a_new_utterance_begins_after_a_long_gap():
    bench = Bench()
    packets = [bench.writer.write(speech(value)) for value in range(100)]
    for packet in (*packets[:2], *packets[90:]):
        bench.converse(bench.translation.frame(packet))
    assert bench.tokens() == {0: 0, 1: 1} | {n: n for n in range(90, 100)}
    assert len(bench.answers) == 1  # no client requested that flush


def test_a_bridge_that_takes_over_aligns_output_with_input_positions():
    bench = Bench(position=None)
    bench.writer.skip_to(320 * 50 + 10)
    bench.converse(bench.translation.frame(bench.writer.write(speech(7))))
    assert bench.tokens() == {51: 7}
    assert bench.translation.loss.lost_units == 0


def test_a_clear_overtakes_pending_input_and_later_input_keeps_its_position():
    bench = Bench()
    late, *_ = (bench.writer.write(speech(value)) for value in (1, 2, 3, 4))
    bench.converse(bench.translation.request(Flush(), 9_999, Reply("ours", b"1")))
    bench.converse(bench.translation.request(Clear(), 4 * 320, Reply("ours", b"2")))
    bench.converse(bench.translation.frame(late))
    bench.converse(bench.translation.frame(bench.writer.write(speech(5))))
    assert bench.tokens() == {4: 5}
    cleared = {"type": "cleared", "input": 1280, "output": 0, "position": 0}
    assert bench.answers[1:] == [(Reply("ours", b"2"), cleared)]


def test_marks_go_to_their_requesters_and_done_has_both_positions():
    bench = Bench()
    bench.converse(bench.translation.request(Mark("a"), 320, Reply("one", b"1")))
    bench.converse(bench.translation.request(Mark("a"), 640, Reply("two", b"2")))
    bench.converse(bench.translation.request(End(), 700, Reply("one", b"3")))
    bench.converse(bench.translation.frame(bench.writer.write(speech(1, 2) + bytes(120))))
    assert bench.answers[1:] == [
        (Reply("one", b"1"), {"type": "mark", "id": "a", "cleared": False, "position": 2}),
        (Reply("two", b"2"), {"type": "mark", "id": "a", "cleared": False, "position": 2}),
        (Reply("one", b"3"), {"type": "done", "input": 700, "output": 2, "dropped": 60, "position": 2}),
    ]


def test_a_duplicate_request_takes_effect_once():
    bench = Bench()
    for _ in range(2):
        bench.converse(bench.translation.request(End(), 0, Reply("ours", b"1")))
    assert [answer["type"] for _, answer in bench.answers] == ["ready", "done"]


def test_an_end_with_missing_input_takes_effect_when_the_wait_ends():
    bench = Bench()
    bench.converse(bench.translation.frame(bench.writer.write(speech(1))))
    bench.converse(bench.translation.request(End(), 960, Reply()))
    assert bench.translation.waits
    bench.converse(bench.translation.give_up())
    assert bench.tokens() == {0: 1, 1: 0, 2: 0}
    assert bench.translation.loss.lost_units == 640


def test_token_frames_have_the_requested_size_and_redundancy():
    bench = Bench(OpenRequest("/v1/encode", redundancy=2, packet_frames=3))
    for value in range(7):
        bench.converse(bench.translation.frame(bench.writer.write(speech(value))))
    bench.converse(bench.translation.request(Flush(), 7 * 320, Reply()))
    frames = [parse_frame(data, 2) for data in bench.frames]
    assert [len(frame.payload) // 2 for frame in frames] == [3, 5, 3]
    assert [frame.repeated for frame in frames] == [0, 2, 2]
    assert bench.tokens() == {n: n for n in range(7)}


def test_wav_from_a_satellite_is_input():
    request = OpenRequest("/v1/encode", input=hermes_topic("kitchen", "audioFrame"))
    bench = Bench(request)
    for value in (1, 2):
        bench.converse(bench.translation.frame(wav_of(speech(value), request.session.input)))
    assert bench.tokens() == {0: 1, 1: 2}
    with pytest.raises(AudioError, match="not a WAV file"):
        bench.translation.frame(b"RIFF")


def test_a_satellite_plays_an_utterance_as_one_wav():
    request = OpenRequest("/v1/decode", output=hermes_topic("kitchen", "playBytes"))
    translation = Translation(request, Reply("ours"), source=1)
    translation.frame(FrameWriter(2, 1).write(b"\1\0"))
    translation.request(Flush(), 1, Reply("ours"))
    assert translation.message(bytes(960)) == []
    wav, answer = translation.message(Flushed())
    assert isinstance(wav, OutputFrame) and isinstance(answer, Answer)
    assert samples_of(wav.payload, request.session.output) == bytes(960)


@pytest.mark.parametrize(
    "fields",
    [
        {"target": "/v2"},
        {"target": "/v1/encode", "qos": 2},
        {"target": "/v1/encode", "redundancy": 128},
        {"target": "/v1/encode", "redundancy": True},
        {"target": "/v1/encode", "input": topic("other", "tokens")},
        {"target": "/v1/decode", "input": hermes_topic("kitchen", "audioFrame")},
        {"target": "/v1/decode", "input": "house/door"},
        {"target": "/v1/encode", "output": hermes_topic("kitchen", "playBytes")},
        {"target": "/v1/decode", "output": topic("other", "speech")},
        {"target": "/v1/encode?input_format=f32le", "input": hermes_topic("kitchen", "audioFrame")},
    ],
)
def test_an_invalid_open_is_refused(fields):
    with pytest.raises(ConfigError):
        OpenRequest(**fields)


def test_a_flush_and_its_answer_are_each_written_and_read_as_json_once(monkeypatch):
    passes = []
    for name in ("dumps", "loads"):
        work = getattr(json, name)
        monkeypatch.setattr(
            json, name, lambda *given, work=work, **options: passes.append(1) or work(*given, **options)
        )
    translation = Translation(OpenRequest("/v1/encode"), Reply(), 0)
    request = parse_request(encode_request(Flush(), 0))
    assert translation.request(request.message, request.position, Reply("ours", b"1")) == [Flush()]
    *_, answer = translation.message(Flushed())
    assert parse_answer(answer.payload) == (Flushed(), 0)
    assert len(passes) == 4
