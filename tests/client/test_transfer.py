"""The pump: pace, figures, and failures of either side."""

import asyncio

import numpy as np
import pytest

from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.errors import Disconnected
from neucodec_streaming.client.transfer import transfer
from neucodec_streaming.errors import AudioError
from tests.client.fake_server import Fault, fake_server


def packets(count: int) -> list[np.ndarray]:
    return [np.zeros(320, np.float32)] * count


async def test_the_report_counts_input_and_output():
    tokens = []
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        report = await transfer(connection, packets(50), tokens.append)
    assert np.concatenate(tokens).size == 50
    assert (report.input_seconds, report.output_seconds, report.tokens, report.bits_per_second) == (1.0, 1.0, 50, 800.0)
    assert report.first_output_s is not None
    assert 0 < report.first_output_s <= report.elapsed_s
    figures = report.as_dict()
    assert (figures["model"], figures["latency_ms"], figures["tokens"]) == ("fake", 215.0, 50)


async def test_tokens_are_counted_for_every_kind_of_session():
    async with fake_server() as server:
        async with connect(server.url, kind="decode") as connection:
            assert (await transfer(connection, [np.zeros(7, np.uint16)], lambda audio: None)).tokens == 7
        async with connect(server.url, kind="roundtrip") as connection:
            assert (await transfer(connection, packets(9), lambda audio: None)).tokens == 9


async def test_an_empty_transfer_gives_a_report_of_zeros():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        report = await transfer(connection, [], lambda tokens: None)
    assert (report.tokens, report.bits_per_second, report.real_time_factor, report.first_output_s) == (0, 0, 0, None)


async def test_realtime_sends_each_packet_once_its_duration_has_passed():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        report = await transfer(connection, packets(15), lambda tokens: None, realtime=True)
    assert 0.3 <= report.elapsed_s < 1.0
    assert report.first_output_s >= 0.1


async def test_an_asynchronous_source_is_accepted_too():
    async def source():
        for packet in packets(5):
            yield packet

    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        assert (await transfer(connection, source(), lambda tokens: None)).tokens == 5


@pytest.mark.parametrize(("fault", "error"), [(Fault.VANISH, Disconnected), (Fault.REFUSE_INPUT, AudioError)])
async def test_a_server_failure_ends_the_sender_and_is_raised_once(fault, error):
    async def endless():
        while True:
            yield np.zeros(320, np.float32)
            await asyncio.sleep(0.001)

    async with (
        fake_server(fault) as server,
        connect(server.url, kind="encode", deadlines=Deadlines(close_s=0.2)) as connection,
    ):
        with pytest.raises(error):
            await transfer(connection, endless(), lambda tokens: None)


async def test_a_source_failure_ends_the_session_and_is_raised():
    def broken():
        yield np.zeros(320, np.float32)
        raise AudioError("sample 3 is nan")

    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        with pytest.raises(AudioError, match="sample 3"):
            await transfer(connection, broken(), lambda tokens: None)


async def test_an_output_failure_ends_the_session_and_is_raised():
    def full_disk(tokens):
        raise OSError(28, "No space left on device")

    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        with pytest.raises(OSError, match="No space left"):
            await transfer(connection, packets(50), full_disk)
