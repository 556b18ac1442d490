"""The connection's contract, against a server with the real protocol and an arithmetic codec."""

import asyncio
import socket

import numpy as np
import pytest

from neucodec_streaming.audio import pcm_to_bytes
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.errors import DeadlineExceeded, Disconnected, Unreachable
from neucodec_streaming.client.events import Audio, Cleared, Done, Flushed, Marked, Stats, Tokens
from neucodec_streaming.errors import (
    AudioError,
    AuthError,
    CapacityError,
    ConfigError,
    LimitError,
    LocalProtocolError,
    StreamingError,
    TokenError,
)
from tests.client.fake_server import Fault, fake_server

HASTY = Deadlines(open_s=0.2, send_s=0.2, answer_s=0.2, close_s=0.2)


def speech(frames: int) -> np.ndarray:
    """Frame i starts with the sample i / 32768."""
    audio = np.zeros((frames, 320), np.float32)
    audio[:, 0] = np.arange(frames) / 32768
    return audio.reshape(-1)


async def collect(connection):
    return [event async for event in connection]


async def test_encode_gives_every_token_once_and_in_order_then_the_totals():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(12))
        await connection.send(np.zeros(100, np.float32))
        await connection.end()
        events = await collect(connection)
    assert isinstance(events[-1], Done)
    assert (events[-1].input, events[-1].output, events[-1].dropped) == (12 * 320 + 100, 12, 100)
    assert np.concatenate([e.tokens for e in events[:-1]]).tolist() == list(range(12))
    assert [e.position for e in events[:-1]] == [0, 10]


async def test_decode_gives_480_samples_for_each_token():
    async with fake_server() as server, connect(server.url, kind="decode") as connection:
        await connection.send(np.array([100, 200, 300], np.uint16))
        await connection.end()
        audio = np.concatenate([e.samples for e in await collect(connection) if isinstance(e, Audio)])
    assert np.array_equal(audio, np.repeat(np.float32([100, 200, 300]) / 32768, 480))


async def test_a_long_recording_is_sent_in_packets_of_accepted_size():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        sender = asyncio.create_task(connection.send(speech(1500)))
        await sender
        await connection.end()
        tokens = np.concatenate([e.tokens for e in await collect(connection) if isinstance(e, Tokens)])
    assert np.array_equal(tokens, np.arange(1500))


async def test_f32le_sends_samples_without_rounding():
    async with fake_server() as server, connect(server.url, kind="encode", input_format="f32le") as connection:
        assert connection.ready.input.format == "f32le"
        await connection.send(np.zeros(640, np.float32))
        assert connection.input_position == 640


async def test_ready_describes_the_session():
    async with fake_server() as server, connect(server.url, kind="roundtrip", profile="low") as connection:
        assert (connection.ready.model, connection.ready.profile, connection.ready.latency_ms) == ("fake", "low", 215.0)
        assert (connection.ready.input.rate, connection.ready.output.rate) == (16_000, 24_000)


async def test_requested_rates_are_confirmed():
    async with (
        fake_server() as server,
        connect(server.url, kind="roundtrip", input_rate=48_000, output_rate=8_000) as connection,
    ):
        assert (connection.ready.input.rate, connection.ready.output.rate) == (48_000, 8_000)


async def test_the_key_goes_into_a_header_and_not_into_the_url():
    async with fake_server() as server, connect(server.url, kind="encode", api_key="s3cret"):
        (request,) = server.requests
        assert request.headers["Authorization"] == "Bearer s3cret"
        assert "s3cret" not in request.path


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schl\u00fcssel"])
async def test_an_invalid_key_is_refused_at_once_and_not_echoed(key):
    with pytest.raises(ConfigError, match="not shown") as refused:
        async with connect("ws://127.0.0.1:1", api_key=key):
            pass
    assert not key or key not in str(refused.value)


async def test_flush_mark_and_clear_are_answered_in_order():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(7))
        await connection.mark("seven")
        await connection.flush()
        seen = []
        while not (seen and isinstance(seen[-1], Flushed)):
            seen.append(await anext(connection))
        assert [type(e) for e in seen] == [Tokens, Tokens, Marked, Flushed]
        assert seen[2] == Marked("seven", cleared=False)
        await connection.send(speech(3))
        await connection.mark(8)
        await connection.clear()
        assert await anext(connection) == Marked(8, cleared=True)
        assert await anext(connection) == Cleared(input=connection.input_position, output=7)
        await connection.end()
        assert [type(e) for e in await collect(connection)] == [Done]


async def test_no_output_of_the_old_utterance_follows_clear():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(50))
        await connection.clear()
        after = []
        async for event in connection:
            after.append(event)
            if isinstance(event, Cleared):
                break
        await connection.send(speech(5))
        await connection.end()
        rest = await collect(connection)
    assert not any(isinstance(event, Tokens) for event in after)
    assert [e.tokens.tolist() for e in rest if isinstance(e, Tokens)] == [[0, 1, 2, 3, 4]]
    assert rest[-1].input == connection.input_position <= 55 * 320


async def stalled(connection, sending: asyncio.Task) -> bool:
    """Whether a send waits for the socket."""
    position = -1
    while position != connection.input_position and not sending.done():
        position = connection.input_position
        await asyncio.wait({sending}, timeout=0.1)
    return not sending.done()


async def test_clear_drops_unsent_input_and_ends_the_send_in_progress():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        server.reads.clear()
        sending = asyncio.create_task(connection.send(speech(50 * 300)))
        assert await stalled(connection, sending)
        marking = asyncio.create_task(connection.mark("pending"))
        await asyncio.sleep(0)
        await connection.clear()
        await asyncio.gather(sending, marking)
        assert connection.input_position < 200 * 16_000
        server.reads.set()
        seen = [await anext(connection)]
        while not isinstance(seen[-1], Cleared):
            seen.append(await anext(connection))
        assert seen == [Marked("pending", cleared=True), Cleared(connection.input_position, seen[-1].output)]
        position = connection.input_position
        await connection.send(speech(5))
        await connection.end()
        *rest, done = await collect(connection)
    assert [event.tokens.tolist() for event in rest] == [[0, 1, 2, 3, 4]]
    assert done.input == position + 5 * 320


async def test_the_input_position_after_a_clear_is_the_servers():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(10))
        await anext(connection)
        server.miscounts = 320
        await connection.clear()
        while not isinstance(event := await anext(connection), Cleared):
            pass
        assert connection.input_position == event.input == 9 * 320
        await connection.send(speech(1))
        assert connection.input_position == 10 * 320


async def test_bytes_are_sent_and_received_unchanged():
    audio = speech(5)
    async with fake_server() as server, connect(server.url, raw=True) as connection:
        await connection.send_bytes(pcm_to_bytes(audio))
        await connection.end()
        events = [event for event in await collect(connection) if isinstance(event, Audio)]
    assert np.array_equal(np.frombuffer(b"".join(event.data for event in events), "<i2"), np.repeat(np.arange(5), 480))
    assert not any(event.samples.size for event in events)


@pytest.mark.parametrize(
    ("form", "data", "says"),
    [("s16le", b"123", "not a whole number"), ("f32le", np.float32([0, np.nan]).tobytes(), "sample 1 of 2 is nan")],
)
async def test_bytes_that_are_not_whole_samples_are_refused_before_sending(form, data, says):
    async with fake_server() as server, connect(server.url, kind="encode", input_format=form) as connection:
        with pytest.raises(AudioError, match=says):
            await connection.send_bytes(data)
        assert connection.input_position == 0


async def test_use_of_a_closed_connection_is_a_clear_error():
    async with fake_server() as server:
        async with connect(server.url, kind="encode") as connection:
            pass
        for use in (connection.send(speech(1)), connection.clear(), connection.end(), anext(connection)):
            with pytest.raises(LocalProtocolError, match="closed at the end of its `async with`"):
                await use


async def test_stats_arrive_when_requested():
    async with fake_server() as server, connect(server.url, kind="encode", stats=True) as connection:
        await connection.send(speech(1))
        assert isinstance(await anext(connection), Stats)


async def test_messages_of_a_later_version_are_ignored():
    async with fake_server(Fault.UNKNOWN_MESSAGES) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(5))
        assert isinstance(await anext(connection), Tokens)


@pytest.mark.parametrize(
    ("chunk", "kind", "error", "says"),
    [
        (np.full(320, np.nan, np.float32), "encode", AudioError, "sample 0 of 320 is nan"),
        (np.zeros(320), "encode", AudioError, "float64"),
        (np.zeros((2, 320), np.float32), "encode", AudioError, r"\(2, 320\)"),
        (np.array([1, 65536]), "decode", TokenError, "token 1 of 2 is 65536"),
        (np.array([-1]), "decode", TokenError, "-1"),
        (["1", "2"], "decode", TokenError, "list"),
    ],
)
async def test_bad_input_is_refused_before_sending_and_the_session_continues(chunk, kind, error, says):
    async with fake_server() as server, connect(server.url, kind=kind) as connection:
        with pytest.raises(error, match=says):
            await connection.send(chunk)
        assert connection.input_position == 0
        await connection.end()
        assert [type(e) for e in await collect(connection)] == [Done]


async def test_an_error_in_input_counts_from_the_start_of_the_stream():
    async with fake_server() as server, connect(server.url, kind="decode") as connection:
        await connection.send(np.zeros(7, np.uint16))
        with pytest.raises(TokenError, match="after 7 tokens of the stream: token 1 of 2 is 65536"):
            await connection.send(np.array([1, 65536]))


async def test_nothing_can_be_sent_after_the_end():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        await connection.end()
        with pytest.raises(LocalProtocolError, match=r"after end\(\) nothing"):
            await connection.send(speech(1))


async def test_a_clear_after_the_end_is_refused_and_takes_nothing_back():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(5))
        await connection.end()
        with pytest.raises(LocalProtocolError, match=r"after end\(\) nothing"):
            await connection.clear()
        *seen, done = await collect(connection)
    assert (done.input, connection.input_position) == (5 * 320, 5 * 320)
    assert [event.tokens.tolist() for event in seen] == [[0, 1, 2, 3, 4]]


async def test_the_error_without_a_server_names_the_command_that_starts_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match=rf"not reachable at ws://127.0.0.1:{port}: start it with `neucodec-server"):
        async with connect(f"http://127.0.0.1:{port}/"):
            pass


@pytest.mark.parametrize(
    "url", ["ftp://host", "ws://", "ws://host:port", "ws://host:99999", "ws://host?x=1", "ws://[::1"]
)
async def test_an_invalid_url_is_named(url):
    with pytest.raises(ConfigError, match="is invalid"):
        async with connect(url):
            pass


async def test_a_full_server_raises_an_error_with_the_retry_delay():
    async with fake_server(Fault.FULL) as server:
        with pytest.raises(CapacityError, match=r"all 4 sessions are taken \(try again in 3 s\)"):
            async with connect(server.url):
                pass


async def test_a_refusal_carries_the_servers_reason():
    async with fake_server() as server:
        with pytest.raises(ConfigError, match="path '/elsewhere' is unknown"):
            async with connect(server.url + "/elsewhere"):
                pass


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (Fault.PROXY, Unreachable, "HTTP 502 no upstream"),
        (Fault.PROXY_LIMIT, LimitError, "slow down"),
        (Fault.PROXY_LOGIN, AuthError, "log in first"),
    ],
)
async def test_a_proxys_message_is_passed_on(fault, error, says):
    async with fake_server(fault) as server:
        with pytest.raises(error, match=says):
            async with connect(server.url):
                pass


async def test_an_unknown_kind_or_format_is_refused_at_once():
    with pytest.raises(ConfigError, match="kind 'translate'"):
        async with connect("ws://127.0.0.1:1", kind="translate"):
            pass
    with pytest.raises(ConfigError, match="input_format"):
        async with connect("ws://127.0.0.1:1", input_format="mp3"):
            pass


@pytest.mark.parametrize("fault", [Fault.NO_READY, Fault.NOT_A_READY])
async def test_a_server_that_never_sends_ready_is_unreachable(fault):
    async with fake_server(fault) as server:
        with pytest.raises(Unreachable):
            async with connect(server.url, deadlines=HASTY):
                pass


async def test_a_plain_tcp_service_is_not_accepted_as_a_server():
    async def hang_up(reader, writer):
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as service:
        port = service.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match="does not speak"):
            async with connect(f"ws://127.0.0.1:{port}"):
                pass


async def test_a_lost_connection_raises_disconnected_for_reader_and_writer():
    async with fake_server(Fault.VANISH) as server, connect(server.url, kind="encode") as connection:
        await connection.send(speech(1))
        with pytest.raises(Disconnected, match="without a closing handshake"):
            await anext(connection)
        with pytest.raises(Disconnected):
            await connection.send(speech(1))


async def test_server_errors_are_raised_with_their_class_for_reader_and_writer():
    async with fake_server(Fault.REFUSE_INPUT) as server:
        async with connect(server.url, kind="encode") as connection:
            await connection.send(speech(1))
            with pytest.raises(AudioError, match="sample 7"):
                await anext(connection)
        async with connect(server.url, kind="encode") as connection:
            with pytest.raises(AudioError, match="sample 7"):
                for _ in range(1000):
                    await connection.send(speech(50))


@pytest.mark.parametrize("ask", ["end", "flush"])
async def test_a_server_that_never_answers_hits_the_deadline(ask):
    async with (
        fake_server(Fault.NEVER_DONE) as server,
        connect(server.url, kind="encode", deadlines=HASTY) as connection,
    ):
        await connection.send(speech(3))
        await getattr(connection, ask)()
        with pytest.raises(DeadlineExceeded, match=r"no answer from the server within 0.2 s"):
            await anext(connection)


async def test_the_answer_deadline_applies_to_a_reader_that_waited_before_the_request():
    async with (
        fake_server(Fault.NEVER_DONE) as server,
        connect(server.url, kind="encode", deadlines=HASTY) as connection,
    ):
        waiting = asyncio.ensure_future(anext(connection))
        done, _ = await asyncio.wait({waiting}, timeout=2 * HASTY.answer_s)
        assert not done
        await connection.flush()
        with pytest.raises(DeadlineExceeded, match="no answer"):
            await waiting


async def test_the_answer_deadline_does_not_apply_without_a_pending_request():
    quick = Deadlines(answer_s=0.01)
    async with fake_server() as server, connect(server.url, kind="encode", deadlines=quick) as connection:
        waiting = asyncio.ensure_future(anext(connection))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
        await connection.send(speech(5))
        assert isinstance(await waiting, Tokens)


async def test_a_server_that_never_reads_hits_the_deadline():
    async with (
        fake_server(Fault.NEVER_READ) as server,
        connect(server.url, kind="encode", deadlines=HASTY) as connection,
    ):
        with pytest.raises(DeadlineExceeded, match="took no input"):
            for _ in range(10_000):
                await connection.send(speech(50))


async def test_cancelling_leaves_no_task_and_no_session_behind():
    before = asyncio.all_tasks()
    async with fake_server() as server:
        entered = asyncio.Event()

        async def session():
            async with connect(server.url, kind="encode") as connection:
                entered.set()
                await anext(connection)

        task = asyncio.create_task(session())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await server.emptied.wait()
        assert server.open_sessions == 0
    assert asyncio.all_tasks() == before


async def test_cancelling_a_wait_for_an_event_loses_nothing():
    async with fake_server() as server, connect(server.url, kind="encode") as connection:
        waiting = asyncio.create_task(anext(connection))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await connection.send(speech(5))
        assert (await anext(connection)).tokens.tolist() == [0, 1, 2, 3, 4]


def test_every_client_error_belongs_to_the_error_tree():
    for kind in (Unreachable, Disconnected, DeadlineExceeded):
        assert issubclass(kind, StreamingError)
