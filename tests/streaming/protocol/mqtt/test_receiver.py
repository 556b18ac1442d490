"""Frames, redundancy and the loss detector: no broker, no clock."""

import random

import pytest

from neucodec_streaming.errors import InputError
from neucodec_streaming.protocol.concealment import MIDDLE_TOKEN, concealed
from neucodec_streaming.protocol.messages import INPUT_AUDIO, TOKENS
from neucodec_streaming.protocol.mqtt.packets import HEADER, POSITIONS, Frame, FrameWriter, parse_frame
from neucodec_streaming.protocol.mqtt.receiver import Piece, Receiver


def u16(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "little") for value in values)


def frames(count: int, units: int = 5, redundancy: int = 0, **options) -> list[bytes]:
    """The units are 0, 1, 2, ..."""
    writer = FrameWriter(2, source=7, redundancy=redundancy, **options)
    return [writer.write(u16(*range(n * units, (n + 1) * units))) for n in range(count)]


def heard(receiver: Receiver, packets) -> list[int | None]:
    """None stands for lost units; fails unless every piece starts at the end of the one before."""
    units: list[int | None] = []
    pieces = [piece for packet in packets for piece in receiver.receive(packet)] + receiver.give_up()
    for piece in pieces:
        units += [None] * piece.lost
        assert piece.position == len(units)
        units += [int.from_bytes(piece.payload[i : i + 2], "little") for i in range(0, len(piece.payload), 2)]
    return units


def test_a_frame_is_read_as_it_was_written():
    frame = Frame(3, 65_000, POSITIONS - 1, u16(1, 2, 3), repeated=1, last=True)
    assert parse_frame(frame.encode(), 2) == frame
    assert len(frame.encode()) == HEADER.size + 6 == 14


@pytest.mark.parametrize("data", [b"", b"\0" * 7, Frame(0, 0, 0, b"\0").encode(), Frame(0, 0, 0, b"", 1).encode()])
def test_invalid_frames_are_refused(data):
    with pytest.raises(InputError, match="frame"):
        Receiver(2).receive(data)


def test_frames_in_order_are_handed_on_at_once():
    receiver = Receiver(2)
    for n, packet in enumerate(frames(4)):
        assert receiver.receive(packet) == [Piece(n * 5, u16(*range(n * 5, n * 5 + 5)))]
    assert not receiver.waits


@pytest.mark.parametrize("seed", range(20))
def test_over_any_link_every_unit_is_correct_or_counted_as_lost(seed):
    chance = random.Random(seed)
    redundancy = chance.choice([0, 3, 5, 12])
    sent = frames(300, redundancy=redundancy)
    arriving = []
    for n, packet in enumerate(sent):
        copies = chance.choices([0, 1, 2], [0.1, 0.8, 0.1])[0]
        arriving += [(n + chance.choice([0, 0, 0, 0, 1.5, 2.5]), packet)] * copies
    arriving = [packet for _, packet in sorted(arriving, key=lambda pair: pair[0])]
    receiver = Receiver(2)
    units = heard(receiver, arriving)
    lost = [n for n, unit in enumerate(units) if unit is None]
    assert all(unit == n for n, unit in enumerate(units) if unit is not None)
    assert len(lost) == receiver.loss.lost_units
    last = max(parse_frame(packet, 2).position for packet in arriving) + 5
    assert len(units) == last
    came = {parse_frame(packet, 2).position // 5 for packet in arriving}
    if redundancy == 0:  # no frame was further out of order than the receiver waits for
        assert lost == [n for n in range(last) if n // 5 not in came]
        assert receiver.loss.lost_frames == last // 5 - len(came)
    assert receiver.loss.frames + receiver.loss.late_frames == len(came)
    assert receiver.loss.duplicate_frames == len(arriving) - len(came)


def test_redundancy_recovers_the_units_that_the_next_frame_repeats():
    first, _, third = frames(3, redundancy=5)
    receiver = Receiver(2)
    receiver.receive(first)
    assert receiver.receive(third) == [Piece(5, u16(*range(5, 15)))]
    assert receiver.loss.recovered_units == 5
    assert receiver.loss.lost_frames == receiver.loss.lost_units == 0


def test_redundancy_brings_back_part_of_a_longer_gap():
    packets = frames(6, redundancy=3)
    assert heard(Receiver(2), [packets[0], packets[2], packets[3], packets[4], packets[5]]) == [
        *range(5), None, None, *range(7, 30),
    ]  # fmt: skip


def test_units_that_the_sender_skipped_do_not_count_as_lost():
    writer = FrameWriter(2, source=1, redundancy=4)
    receiver = Receiver(2)
    packets = [writer.write(u16(1, 2))]
    writer.skip_to(100)
    packets.append(writer.write(u16(3), last=True))
    pieces = [piece for packet in packets for piece in receiver.receive(packet)]
    assert pieces == [Piece(0, u16(1, 2)), Piece(100, u16(3), last=True)]
    assert receiver.loss.lost_units == 0


def test_a_new_sender_that_continues_later_leaves_a_gap_of_known_length():
    receiver = Receiver(2)
    for packet in frames(3):
        receiver.receive(packet)
    successor = FrameWriter(2, source=8, position=22)
    assert receiver.receive(successor.write(u16(22))) == [Piece(22, u16(22), lost=7)]
    assert receiver.loss.lost_units == 7


def test_a_late_listener_misses_nothing_from_its_first_frame_on():
    receiver = Receiver(2, position=None)
    packets = frames(6, redundancy=2)
    assert receiver.receive(packets[3]) == [
        Piece(13, u16(*range(13, 20)))
    ]  # with the units repeated in its first frame
    assert receiver.receive(packets[4]) == [Piece(20, u16(*range(20, 25)))]
    assert receiver.loss.lost_units == 0


def test_sequence_numbers_wrap_around():
    receiver = Receiver(2, position=None)
    writer = FrameWriter(2, source=1, position=POSITIONS - 10)
    writer._sequence = 65_530
    for _ in range(12):
        (piece,) = receiver.receive(writer.write(u16(1)))
    assert piece.position == POSITIONS + 1
    assert receiver.loss.as_dict() == {**dict.fromkeys(receiver.loss.as_dict(), 0), "frames": 12}


def test_a_stream_continues_after_an_outage_of_half_the_sequence_numbers():
    receiver = Receiver(2)
    packets = frames(3)
    receiver.receive(packets[0])
    writer = FrameWriter(2, source=7, position=200_000)
    writer._sequence = 40_000
    assert receiver.receive(writer.write(u16(1))) == [Piece(200_000, u16(1), lost=199_995)]


def test_events_are_delivered_at_their_position_in_any_order_of_arrival():
    packets = frames(3)
    receiver = Receiver(2)
    assert receiver.put("flush", 10) == []
    assert receiver.receive(packets[0])[-1] != "flush"
    assert receiver.receive(packets[1])[-1] == "flush"
    assert receiver.put("mark", 10) == ["mark"]


def test_missing_frames_count_as_lost_up_to_the_event():
    packets = frames(3)
    receiver = Receiver(2)
    receiver.receive(packets[0])
    receiver.put("end", 15)
    receiver.receive(packets[2])
    assert receiver.waits
    assert receiver.give_up() == [Piece(10, u16(*range(10, 15)), lost=5), "end"]
    receiver.put("another", 20)
    assert receiver.give_up() == [Piece(20, b"", lost=5), "another"]
    assert receiver.loss.lost_units == 10


def test_cleared_units_are_neither_delivered_nor_lost():
    packets = frames(6)
    receiver = Receiver(2)
    receiver.receive(packets[0])
    receiver.receive(packets[2])
    receiver.drop_until(20)
    assert receiver.receive(packets[1]) == []
    assert receiver.receive(packets[4]) == [Piece(20, u16(*range(20, 25)))]  # the previous frame does not help
    assert receiver.receive(packets[3]) == []
    assert receiver.loss.lost_units == 0


def test_one_lost_token_is_the_mean_of_its_neighbours():
    assert concealed(TOKENS, u16(0x0000), 1, u16(0xAAAA)) == u16(0x5555)
    assert concealed(TOKENS, u16(5, 0xFFFF), 1, u16(0xFFFF, 9)) == u16(0xFFFF)


def test_a_long_gap_and_one_without_neighbours_become_the_middle_token():
    tokens = concealed(TOKENS, u16(0), 20, u16(0))
    assert tokens[20:22] == u16(MIDDLE_TOKEN)
    assert tokens[:2] == tokens[-2:] == u16(0x5555)  # half way to the middle
    assert concealed(TOKENS, b"", 2, b"") == u16(MIDDLE_TOKEN, MIDDLE_TOKEN)


def test_lost_audio_is_silence():
    assert concealed(INPUT_AUDIO, u16(1), 3, u16(1)) == bytes(6)
