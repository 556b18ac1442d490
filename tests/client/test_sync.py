"""The client without `async`: the same conversation from a plain thread, with and without a loop around it."""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from neucodec_streaming.client import (
    Cleared,
    Done,
    Flushed,
    Marked,
    Tokens,
    blocking,
    connect,
    decode,
    encode,
    roundtrip,
)
from neucodec_streaming.client.errors import Disconnected, Unreachable
from neucodec_streaming.errors import AudioError, ConfigError, LocalProtocolError, TokenError
from tests.client.fake_server import Fault, fake_server
from tests.client.test_connection import speech

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text()


async def in_a_script(function, *arguments):
    """Runs in a thread without an event loop."""
    return await asyncio.to_thread(function, *arguments)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "neucodec"]


async def test_whole_arrays_take_one_call():
    async with fake_server() as server:
        assert (await in_a_script(encode, speech(12), server.url)).tolist() == list(range(12))
        audio = await in_a_script(decode, np.array([100, 200]), server.url)
        assert np.array_equal(audio, np.repeat(np.float32([100, 200]) / 32768, 480))
        assert (await in_a_script(roundtrip, speech(7), server.url)).size == 7 * 480
        assert (await in_a_script(encode, np.zeros(0, np.float32), server.url)).dtype == np.uint16
    assert threads() == []


@pytest.mark.parametrize("kind", [np.float64, np.int16, np.int32, "column"])
async def test_audio_of_every_common_type_is_accepted(kind):
    audio = speech(12)
    if kind == "column":
        audio = audio[:, None]
    elif kind in (np.int16, np.int32):
        audio = (audio.astype(np.float64) * -float(np.iinfo(kind).min)).astype(kind)
    else:
        audio = audio.astype(kind)
    async with fake_server() as server:
        assert (await in_a_script(encode, audio, server.url)).tolist() == list(range(12))


@pytest.mark.parametrize("form", [list, torch.tensor, lambda tokens: np.array([[tokens]])])
async def test_tokens_of_every_form_are_decoded(form):
    async with fake_server() as server:
        audio = await in_a_script(decode, form([100, 200]), server.url)
        assert np.array_equal(audio, np.repeat(np.float32([100, 200]) / 32768, 480))


@pytest.mark.parametrize(("tokens", "says"), [([70_000], "is 70000"), ([1.5], "type float64"), (None, "a NoneType")])
def test_invalid_tokens_are_refused_before_connecting(tokens, says):
    with pytest.raises(TokenError, match=says):
        decode(tokens)


async def test_audio_of_another_rate_is_resampled():
    async with fake_server() as server:
        for call, units in ((encode, 50), (roundtrip, 50 * 480)):
            result = await asyncio.to_thread(call, np.zeros(44_100), server.url, input_rate=44_100)
            assert result.size == units


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((np.zeros((100, 2)),), r"shape \(100, 2\): give one channel, such as audio.mean\(axis=1\)"),
        ((np.zeros((2, 100)),), r"give one channel, such as audio.mean\(axis=0\)"),
        (("ws://127.0.0.1:1", np.zeros(100)), "the server URL is a ndarray"),
        ((np.zeros(100), 44_100), "use input_rate=44100"),
        ((np.full(100, 20_000.0),), "divide 16-bit samples by 32768"),
        ((np.zeros(100, np.uint8),), "type uint8"),
        (("speech.wav",), "audio is a str 'speech.wav'"),
    ],
)
def test_audio_with_an_ambiguous_scale_or_shape_is_refused_before_connecting(arguments, says):
    for call in (encode, roundtrip):
        with pytest.raises((AudioError, ConfigError), match=says):
            call(*arguments)


async def test_a_session_in_a_script_sends_first_and_reads_later():
    def script(url):
        with blocking(connect(url, kind="encode")) as connection:
            assert connection.ready.model == "fake"
            connection.send(speech(500))
            connection.mark("here")
            connection.flush()
            assert connection.input_position == 500 * 320
            events = [next(connection)]
            while not isinstance(events[-1], Flushed):
                events.append(next(connection))
            connection.clear()
            connection.end()
            return events + list(connection)

    async with fake_server() as server:
        events = await in_a_script(script, server.url)
    tokens = np.concatenate([event.tokens for event in events if isinstance(event, Tokens)])
    assert tokens.tolist() == list(range(500))
    assert [type(event) for event in events if not isinstance(event, Tokens)] == [Marked, Flushed, Cleared, Done]
    assert threads() == []


def test_calls_work_inside_a_running_loop_as_in_a_notebook():
    async def cell(url):
        return encode(speech(5), url).tolist()

    started, stop = threading.Event(), threading.Event()
    found = {}

    async def serve():
        async with fake_server() as server:
            found["url"] = server.url
            started.set()
            await asyncio.to_thread(stop.wait, 10)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        assert asyncio.run(cell(found["url"])) == [0, 1, 2, 3, 4]
    finally:
        stop.set()
        thread.join(10)


async def test_the_example_of_the_documentation_runs():
    (example,) = (
        block.split("```")[0]
        for block in PAGE.split("```python\n")
        if block.startswith("from neucodec_streaming.client")
    )
    names: dict = {"pcm": speech(12)}
    async with fake_server() as server:
        await in_a_script(exec, example.replace("ws://127.0.0.1:8765", server.url), names)
    assert (names["tokens"].tolist(), names["audio"].size) == (list(range(12)), 12 * 480)


async def test_errors_are_raised_at_the_call():
    def bad_input(url):
        with blocking(connect(url, kind="encode")) as connection:
            with pytest.raises(AudioError):
                connection.send(np.full(320, np.nan, np.float32))
            connection.end()
            with pytest.raises(LocalProtocolError):
                connection.end()
            assert [type(event) for event in connection] == [Done]
            assert list(connection) == []

    def refused(url):
        with blocking(connect(url, kind="encode")) as connection:
            connection.send(speech(1))
            for _ in range(2):
                with pytest.raises(AudioError, match="sample 7"):
                    next(connection)

    def vanished(url):
        with blocking(connect(url, kind="encode")) as connection:
            connection.send(speech(1))
            with pytest.raises(Disconnected):
                next(connection)

    for script, fault in ((bad_input, Fault.NONE), (refused, Fault.REFUSE_INPUT), (vanished, Fault.VANISH)):
        async with fake_server(fault) as server:
            await in_a_script(script, server.url)
    with pytest.raises(Unreachable):
        await in_a_script(encode, speech(1), "ws://127.0.0.1:1")
    assert threads() == []


async def test_an_exception_in_the_script_closes_the_session():
    def script(url):
        with blocking(connect(url, kind="encode")) as connection:
            connection.send(speech(1))
            raise KeyboardInterrupt

    async with fake_server() as server:
        outcome = {}

        def run():
            try:
                script(server.url)
            except KeyboardInterrupt:
                outcome["interrupted"] = True

        await in_a_script(run)
        async with asyncio.timeout(5):
            await server.emptied.wait()
        assert outcome == {"interrupted": True}
    assert threads() == []


async def test_bytes_are_sent_unchanged_and_use_of_a_closed_session_is_an_error():
    def script(url):
        with blocking(connect(url, kind="encode")) as connection:
            connection.send_bytes((speech(5) * 32768).astype("<i2").tobytes())
            connection.end()
            tokens = [event.tokens for event in connection if isinstance(event, Tokens)]
        for use in (lambda: connection.send(speech(1)), connection.clear, connection.end):
            with pytest.raises(LocalProtocolError, match="closed at the end of its `with`"):
                use()
        return np.concatenate(tokens).tolist()

    async with fake_server() as server:
        assert await in_a_script(script, server.url) == [0, 1, 2, 3, 4]
