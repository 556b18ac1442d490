"""Client, Mosquitto and bridge together: sessions, requests, listeners, satellites, limits."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import aiomqtt
import numpy as np
import pytest

from neucodec_streaming.audio import pcm_to_bytes
from neucodec_streaming.client.dial import Deadlines
from neucodec_streaming.client.errors import Unreachable
from neucodec_streaming.client.events import Audio, Cleared, Done, Flushed, Marked, Primed, Tokens
from neucodec_streaming.client.mqtt.listener import Listener, listen
from neucodec_streaming.client.mqtt.session import open_at_broker
from neucodec_streaming.client.mqtt.stream import UtteranceEnded
from neucodec_streaming.errors import CapacityError, ConfigError, InputError
from neucodec_streaming.protocol.messages import INPUT_AUDIO, OUTPUT_AUDIO, End, encode_message
from neucodec_streaming.protocol.mqtt.hermes import samples_of, wav_of
from neucodec_streaming.protocol.mqtt.message import BrokerMessage
from neucodec_streaming.protocol.mqtt.packets import FrameWriter
from neucodec_streaming.protocol.mqtt.topics import OpenRequest, Reply, SessionStatus, hermes_topic, parse_status, topic
from neucodec_streaming.server.mqtt.session import BrokerSession
from tests.server.mqtt.broker import broker, needs_mosquitto
from tests.server.mqtt.hosting import DEADLINE_S, bridged
from tests.streaming.engine.fake import FakeRunner, audio_of, speech, tokens_of

pytestmark = needs_mosquitto
LEVELS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory):
    with broker(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture
async def host(mosquitto):
    async with bridged(mosquitto.url, FakeRunner()) as running:
        yield running


def tokens_in(events) -> np.ndarray:
    return np.concatenate([event.tokens for event in events if isinstance(event, Tokens)])


def audio_in(events) -> np.ndarray:
    return np.concatenate([event.samples for event in events if isinstance(event, Audio)])


async def heard(events, until=()) -> list:
    """Collects up to the end, or to an event of one of these kinds."""
    found = []
    async with asyncio.timeout(DEADLINE_S):
        async for event in events:
            found.append(event)
            if isinstance(event, until):
                break
    return found


async def test_audio_becomes_tokens(mosquitto, host):
    async with open_at_broker(mosquitto.url, "encode") as session:
        assert (session.ready.model, session.ready.output.kind) == ("fake", "tokens")
        for start in range(0, 20, 3):
            await session.send(speech(*LEVELS[start : start + 3]))
        await session.end()
        events = await heard(session)
    assert np.array_equal(tokens_in(events), tokens_of(LEVELS))
    assert events[-1] == Done(20 * 320, 20, 0)
    assert session.loss.lost_units == 0 and session.loss.frames > 0


@pytest.mark.parametrize("kind", ["decode", "roundtrip"])
async def test_tokens_and_audio_become_speech(mosquitto, host, kind):
    async with open_at_broker(mosquitto.url, kind, kind=kind) as session:
        await session.send(tokens_of(LEVELS) if kind == "decode" else speech(*LEVELS))
        await session.end()
        events = await heard(session)
    audio = audio_in(events)
    assert np.abs(audio - audio_of(tokens_of(LEVELS))).max() <= 1 / 32768
    assert events[-1].output == 20 * 480


@pytest.mark.parametrize(
    ("kind", "model_rate", "asked"),
    [
        ("decode", 48_000, None),
        ("roundtrip", 48_000, None),
        ("decode", 48_000, 24_000),
        ("roundtrip", 44_100, None),
        ("decode", 48_000, 44_100),
    ],
)
async def test_speech_has_the_requested_rate_or_the_models_for_client_and_listener(mosquitto, kind, model_rate, asked):
    runner = FakeRunner()
    runner.output_hop = model_rate // 50
    rate, name = asked or model_rate, f"rate-{kind}-{model_rate}-{asked}"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bridged(mosquitto.url, runner, output_rate=model_rate))
        listener = await stack.enter_async_context(listen(mosquitto.url, name, "speech"))
        hearing = asyncio.create_task(heard(listener))
        session = await stack.enter_async_context(open_at_broker(mosquitto.url, name, kind=kind, output_rate=asked))
        assert session.ready.output.rate == rate
        for _ in range(2):
            await session.send(tokens_of(LEVELS) if kind == "decode" else speech(*LEVELS))
            await session.flush()
        await session.end()
        events = await heard(session)
        told = await asyncio.wait_for(hearing, DEADLINE_S)
    assert listener.stream.rate == rate and np.array_equal(audio_in(told), audio_in(events))
    assert events[-1].output == audio_in(events).size == 2 * len(LEVELS) * rate // 50
    assert session.loss.lost_units == listener.loss.lost_units == 0
    if asked is None:
        expected = np.tile(np.repeat(tokens_of(LEVELS).astype(np.float32) / 65_536, rate // 50), 2)
        assert np.abs(audio_in(events) - expected).max() <= 1 / 32768


async def test_a_listener_keeps_its_counts_of_loss_when_the_format_changes():
    listener = Listener("cafe", "speech")
    for rate, seen in ((24_000, [0, 2, 3]), (48_000, [0, 1, 3])):
        writer = FrameWriter(2, source=rate // 1_000)
        frames = [writer.write(bytes(200)) for _ in range(4)]
        for number in seen:
            listener.on_message(
                BrokerMessage(topic("cafe", "speech"), frames[number], content_type="audio/x-s16le", rate=rate)
            )
    listener.close()
    assert (listener.loss.frames, listener.loss.lost_frames, listener.loss.lost_units) == (6, 2, 200)


def test_a_session_that_cannot_be_served_takes_no_place():
    opened = []
    with pytest.raises(ConfigError, match="session name"):
        BrokerSession(
            "no/name",
            OpenRequest("/v1/encode"),
            Reply(),
            bridge="one",
            open=lambda request, caller: opened.append(request),
            connect=None,
            on_replaced=None,
            position=0,
            max_message_bytes=1_000,
        )
    assert not opened


async def test_audio_at_another_rate_is_refused(mosquitto, host):
    async with open_at_broker(mosquitto.url, "chipmunks") as session:
        session._frame_rate = 44_100
        await session.send(speech(*LEVELS))
        with pytest.raises(InputError, match="44100 Hz: the session expects 16000"):
            await heard(session)


async def test_flush_and_mark_are_answered_in_order(mosquitto, host):
    async with open_at_broker(mosquitto.url, "requests") as session:
        await session.send(speech(*LEVELS[:7]))
        await session.mark("a")
        await session.flush()
        await session.send(speech(*LEVELS[7:]))
        await session.end()
        events = await heard(session)
    places = [i for i, event in enumerate(events) if isinstance(event, (Marked, Flushed))]
    assert np.array_equal(tokens_in(events[: places[0]]), tokens_of(LEVELS[:7]))
    assert [type(events[i]) for i in places] == [Marked, Flushed]
    assert np.array_equal(tokens_in(events[places[1] :]), tokens_of(LEVELS[7:]))


async def test_no_output_of_the_old_utterance_follows_cleared(mosquitto, host):
    async with open_at_broker(mosquitto.url, "clear") as session:
        await session.send(speech(*LEVELS[:8]))
        await session.clear()
        await session.send(speech(*LEVELS[8:]))
        await session.end()
        events = await heard(session)
    place = next(i for i, event in enumerate(events) if isinstance(event, Cleared))
    after = events[place:]
    assert np.array_equal(tokens_in(after), tokens_of(LEVELS[8:]))
    assert next(event.position for event in after if isinstance(event, Tokens)) == 8
    assert session.loss.lost_units == 0


async def test_clear_ends_a_send_that_waits_for_the_bridge(mosquitto, host):
    async with open_at_broker(mosquitto.url, "barge-in", kind="decode") as session:
        sending = asyncio.create_task(session.send(np.zeros(180_000, np.uint16)))  # an hour
        await heard(session, Audio)
        await session.clear()
        await asyncio.wait_for(sending, DEADLINE_S)
        *_, cleared = await heard(session, Cleared)
        assert cleared.input == session.input_position < 1000
        await session.send(tokens_of(LEVELS))
        await session.end()
        assert np.abs(audio_in(await heard(session)) - audio_of(tokens_of(LEVELS))).max() <= 1 / 32768


async def test_three_listeners_hear_one_speaker_and_one_that_joins_late_hears_the_rest(mosquitto, host):
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_at_broker(mosquitto.url, "spoken"))
        early = [await stack.enter_async_context(listen(mosquitto.url, "spoken")) for _ in range(3)]
        await session.send(speech(*LEVELS[:10]))
        await session.flush()
        assert isinstance((await heard(session, until=Flushed))[-1], Flushed)
        late = await stack.enter_async_context(listen(mosquitto.url, "spoken"))
        await session.send(speech(*LEVELS[10:]))
        await session.end()
        everything = np.concatenate([tokens_of(LEVELS[:10]), tokens_of(LEVELS[10:])])
        for events in await asyncio.gather(*map(heard, early)):
            assert np.array_equal(tokens_in(events), everything)
            assert sum(isinstance(event, UtteranceEnded) for event in events) == 2
        events = await heard(late)
        assert np.array_equal(tokens_in(events), everything[10:])
        assert next(event.position for event in events if isinstance(event, Tokens)) == 10


async def test_a_session_can_decode_another_sessions_tokens(mosquitto, host):
    async with (
        open_at_broker(mosquitto.url, "speaker") as speaker,
        open_at_broker(
            mosquitto.url, "hearer", kind="decode", input=topic("speaker", "tokens")
        ) as hearer,
        listen(mosquitto.url, "hearer", "speech") as listener,
    ):  # fmt: skip
        await speaker.send(speech(*LEVELS))
        await speaker.end()
        await heard(speaker)
        audio = audio_in(await heard(listener, until=UtteranceEnded))
    assert np.abs(audio - audio_of(tokens_of(LEVELS))).max() <= 1 / 32768
    assert hearer.name == "hearer"


async def test_the_retained_status_reports_the_end_of_the_session(mosquitto, host):
    async with open_at_broker(mosquitto.url, "told") as session, listen(mosquitto.url, "told") as listener:
        await session.send(speech(*LEVELS))
        await session.end()
        await heard(session)
        await heard(listener)
        assert listener.status.state == SessionStatus.CLOSED
        assert (listener.status.input, listener.status.output) == (20 * 320, 20)
        assert listener.status.loss["lost_units"] == 0


async def test_impossible_requests_are_refused_with_the_servers_message(mosquitto, host):
    with pytest.raises(ConfigError, match="profile"):
        async with open_at_broker(mosquitto.url, "refused", profile="none"):
            pass


async def test_a_full_server_refuses_and_accepts_again_after_a_session_ends(mosquitto):
    async with bridged(mosquitto.url, FakeRunner(slots=1), max_sessions=1) as full:
        async with open_at_broker(mosquitto.url, "first"):
            with pytest.raises(CapacityError):
                async with open_at_broker(mosquitto.url, "second"):
                    pass
        await asyncio.wait_for(full.app.emptied(), DEADLINE_S)
        async with open_at_broker(mosquitto.url, "third") as session:
            assert session.ready.capacity == 1


async def test_opening_an_open_session_replaces_its_client(mosquitto, host):
    async with open_at_broker(mosquitto.url, "twice") as first:
        await first.send(speech(*LEVELS[:3]))
        async with open_at_broker(mosquitto.url, "twice") as second:
            await second.send(speech(*LEVELS))
            await second.end()
            assert np.array_equal(tokens_in(await heard(second)), tokens_of(LEVELS))
            assert host.app.sessions == 0


async def test_a_missing_bridge_and_a_missing_broker_are_distinguished(mosquitto):
    hurry = Deadlines(open_s=0.2)
    with pytest.raises(Unreachable, match="no bridge"):
        async with open_at_broker(mosquitto.url, "alone", deadlines=hurry):
            pass
    with pytest.raises(Unreachable, match="no broker"):
        async with open_at_broker("mqtt://127.0.0.1:9", "alone", deadlines=hurry):
            pass


async def test_bad_frames_end_the_session_and_bad_requests_do_not(mosquitto, host):
    async with (
        open_at_broker(mosquitto.url, "bad") as session,
        aiomqtt.Client("127.0.0.1", mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5) as stranger,
    ):
        await stranger.publish(topic("bad", "control"), b"no JSON", 1)
        await session.flush()
        assert isinstance((await heard(session, until=Flushed))[-1], Flushed)
        await stranger.publish(topic("bad", "audio"), b"short", 1)
        with pytest.raises(Exception, match="frame of 5 bytes"):
            await heard(session)


async def test_a_configured_satellite_has_a_session_without_a_request(mosquitto):
    async with bridged(mosquitto.url, FakeRunner(), sites=("kitchen",)), listen(mosquitto.url, "kitchen") as listener:
        async with aiomqtt.Client("127.0.0.1", mosquitto.port) as satellite:
            await satellite.subscribe(topic("kitchen", "status"))
            while True:
                message = await asyncio.wait_for(anext(satellite.messages), DEADLINE_S)
                if parse_status(message.payload).state == SessionStatus.OPEN:
                    break
            for value in LEVELS:
                await satellite.publish(
                    hermes_topic("kitchen", "audioFrame"), wav_of(pcm_to_bytes(speech(value)), INPUT_AUDIO)
                )
        found = np.zeros(0, np.uint16)
        async with asyncio.timeout(DEADLINE_S):
            while found.size < 10:  # all but the lookahead
                found = np.concatenate([found, (await anext(listener)).tokens])
    assert np.array_equal(found, tokens_of(LEVELS)[: found.size])


async def test_audio_from_a_satellite_reopens_its_ended_session(mosquitto, monkeypatch):
    monkeypatch.setattr("neucodec_streaming.server.mqtt.bridge.ASK_AGAIN_S", 0.0)
    async with (
        bridged(mosquitto.url, FakeRunner(), sites=("hall",)),
        aiomqtt.Client("127.0.0.1", mosquitto.port) as satellite,
    ):
        await satellite.subscribe(topic("hall", "status"))

        async def until(state: SessionStatus) -> None:
            async with asyncio.timeout(DEADLINE_S):
                async for message in satellite.messages:
                    if parse_status(message.payload).state == state:
                        return

        await until(SessionStatus.OPEN)
        for _ in range(2):
            await satellite.publish(topic("hall", "control"), encode_message(End()), 1)
            await until(SessionStatus.CLOSED)
            said = wav_of(pcm_to_bytes(speech(7)), INPUT_AUDIO)
            await satellite.publish(hermes_topic("hall", "audioFrame"), said)
            await until(SessionStatus.OPEN)


async def test_an_unusable_message_of_a_satellite_is_skipped(mosquitto, caplog):
    async with bridged(mosquitto.url, FakeRunner()), aiomqtt.Client("127.0.0.1", mosquitto.port) as satellite:
        source = hermes_topic("attic", "audioFrame")
        async with open_at_broker(mosquitto.url, "attic", input=source) as session:
            for value in LEVELS:
                await satellite.publish(source, wav_of(pcm_to_bytes(speech(value)), INPUT_AUDIO), 1)
                await satellite.publish(source, wav_of(bytes(640), replace(INPUT_AUDIO, rate=8000)), 1)
                await satellite.publish(source, b"no WAV", 1)
            tokens = np.zeros(0, np.uint16)
            async with asyncio.timeout(DEADLINE_S):
                while tokens.size < 10:
                    tokens = np.concatenate([tokens, tokens_in([await anext(session)])])
    assert np.array_equal(tokens, tokens_of(LEVELS)[: tokens.size])
    told = [record.getMessage() for record in caplog.records if "skips a message" in record.getMessage()]
    assert any("attic" in line and "8000 Hz" in line for line in told)


async def test_a_satellite_plays_decoded_audio(mosquitto, host):
    play = hermes_topic("kitchen", "playBytes")
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as satellite:
        await satellite.subscribe(play + "/#")
        async with open_at_broker(mosquitto.url, "to-kitchen", kind="decode", output=play) as session:
            await session.send(tokens_of(LEVELS))
            await session.flush()
            await heard(session, until=Flushed)
            message = await asyncio.wait_for(anext(satellite.messages), DEADLINE_S)
    assert samples_of(message.payload, OUTPUT_AUDIO) == pcm_to_bytes(audio_of(tokens_of(LEVELS)))


async def test_a_session_is_primed_and_unprimed_at_a_broker(mosquitto):
    voice, tokens = np.arange(100, dtype=np.uint16), tokens_of(LEVELS)
    runner = FakeRunner()
    async with bridged(mosquitto.url, runner), open_at_broker(mosquitto.url, "alice", kind="decode") as session:
        for start in (voice, None):
            await session.prime(start)
            await session.send(tokens)
            await session.flush()
            events = await heard(session, until=Flushed)
            assert [event.tokens for event in events if isinstance(event, Primed)] == [0 if start is None else 100]
            np.testing.assert_allclose(audio_in(events), audio_of(tokens), atol=1 / 32768)
        await session.end()
        await heard(session)
    assert {tuple(primed) for _, primed in runner.primed} == {tuple(voice.tolist())}
