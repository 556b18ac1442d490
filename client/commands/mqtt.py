"""The commands `mqtt-publish` and `mqtt-listen`; their options are in mqtt_options."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neucodec_streaming.client.commands.display import ProgressLine, announced, print_report, print_rows
from neucodec_streaming.client.commands.sessions import open_session
from neucodec_streaming.client.commands.sources import FileSource, audio_source, print_notes, token_source
from neucodec_streaming.client.commands.terminal import interruption
from neucodec_streaming.client.connection import Connection
from neucodec_streaming.client.devices import Microphone, Speaker
from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.events import Audio, Flushed, Tokens, units_of
from neucodec_streaming.client.files import AUDIO_ENDINGS, AudioWriter, TokenWriter
from neucodec_streaming.client.mqtt.listener import Listener, listen
from neucodec_streaming.client.mqtt.session import open_at_broker
from neucodec_streaming.client.mqtt.stream import Missing, UtteranceEnded
from neucodec_streaming.client.pipes import is_standard_output
from neucodec_streaming.client.transfer import Source, cause_of, transfer
from neucodec_streaming.config import INPUT_RATE
from neucodec_streaming.protocol.mqtt.address import BrokerAddress, parse_broker
from neucodec_streaming.protocol.mqtt.topics import SPEECH, TOKENS


async def publish(options: argparse.Namespace) -> None:
    """Publishes microphone or file to a session."""
    async with AsyncExitStack() as stack:
        source = _source(options, stack)
        session = await stack.enter_async_context(
            open_at_broker(
                broker_of(options),
                options.session,
                kind=options.kind,
                profile=options.profile,
                qos=options.qos,
                redundancy=options.redundancy,
                packet_frames=options.packet_tokens,
            )
        )
        if isinstance(source, FileSource):
            source.note_model(session.ready)
            print_notes(source.notes, quiet=options.json)
        line = stack.enter_context(ProgressLine(quiet=options.json))
        report = await transfer(session, source, lambda output: None, realtime=options.realtime, on_progress=line)
    extra: dict[str, Any] = {"command": "mqtt-publish", "session": options.session}
    if session.status is not None:
        extra["lost_input"] = session.status.loss.get("lost_units", 0)
    extra["lost_output"] = session.loss.lost_units
    is_paced = options.realtime or options.input is None
    print_report(report, extra, options.json, piped=False, is_paced=is_paced)
    if isinstance(source, FileSource) and source.error is not None:
        raise source.error


def _source(options: argparse.Namespace, stack: AsyncExitStack) -> Source:
    if options.input is None:
        return _spoken(stack.enter_context(Microphone(INPUT_RATE, options.device)), interruption(), options)
    if options.kind == "decode":
        return token_source(options.input, options.form, options.tags)
    return audio_source(options.input, packet_seconds=options.packet_ms / 1000)


async def _spoken(
    microphone: Microphone, stop: asyncio.Event, options: argparse.Namespace
) -> AsyncIterator[np.ndarray]:
    """Microphone audio in packets of the given length."""
    size, waiting, sent = INPUT_RATE * options.packet_ms // 1000, np.zeros(0, np.float32), 0
    async for packet in announced(microphone, options.json):
        waiting = np.concatenate([waiting, packet])
        while waiting.size >= size:
            yield waiting[:size]
            waiting, sent = waiting[size:], sent + size
        if stop.is_set() or (options.seconds and sent / INPUT_RATE >= options.seconds):
            yield waiting
            return


@dataclass
class _Sink:
    write: Callable[[np.ndarray], None]
    finish: Callable[[], None] = lambda: None
    speaker: Speaker | None = None
    missing_units: int = 0


async def listen_to(options: argparse.Namespace) -> None:
    """Writes a session's tokens or speech to a file or the speaker, until it ends, Ctrl-C, or for --seconds."""
    is_audio = options.output is None or Path(options.output).suffix.lower() in AUDIO_ENDINGS
    stream = SPEECH if is_audio and not options.decode else TOKENS
    stop = interruption()
    if options.seconds:
        asyncio.get_running_loop().call_later(options.seconds, stop.set)
    async with (
        listen(broker_of(options), options.session, stream, qos=options.qos) as listener,
        AsyncExitStack() as stack,
    ):
        events = _until(stop, listener)
        if stream == TOKENS and is_audio:
            decoder = await stack.enter_async_context(open_session(options, "decode", live=options.live))
            sink = _audio_sink(options, decoder.ready.output.rate, stack)
            await _decode(events, decoder, sink)
        else:
            sink = await _copy(events, listener, options, stack)
        if sink.speaker is not None:
            await sink.speaker.drained()
    _print_loss(options, listener, sink)


async def _copy(
    events: AsyncIterator[Any], listener: Listener, options: argparse.Namespace, stack: AsyncExitStack
) -> _Sink:
    """Writes a stream as it is; the first frame of audio tells its rate."""
    if listener.stream.kind == "tokens":
        sink = _Sink(stack.enter_context(TokenWriter(options.output, options.form, keep=True)).write)
    else:
        first = await anext(events, None)
        sink = _audio_sink(options, listener.stream.rate, stack)
        _take(first, sink)
    rate = listener.stream.rate
    async for event in events:
        if listener.stream.rate != rate:
            raise FileError(f"the session's rate changed from {rate} to {listener.stream.rate} Hz: listen again")
        _take(event, sink)
    return sink


def _audio_sink(options: argparse.Namespace, rate: int, stack: AsyncExitStack) -> _Sink:
    if options.output is None:
        speaker = stack.enter_context(Speaker(rate, options.device, live=options.live))
        return _Sink(speaker.push, speaker.finish, speaker)
    return _Sink(stack.enter_context(AudioWriter(options.output, rate, keep=True)).write)


def _take(event: Any, sink: _Sink) -> None:
    if isinstance(event, Audio | Tokens):
        sink.write(units_of(event))
    elif isinstance(event, Missing):
        sink.missing_units += event.units
    elif isinstance(event, UtteranceEnded | Flushed):
        sink.finish()


async def _decode(events: AsyncIterator[Any], decoder: Connection, sink: _Sink) -> None:
    async def forward() -> None:
        async for event in events:
            if isinstance(event, Tokens):
                await decoder.send(event.tokens)
            elif isinstance(event, UtteranceEnded):
                await decoder.flush()
            else:
                _take(event, sink)
        await decoder.end()

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(forward(), name="tokens")
            async for event in decoder:
                _take(event, sink)
    except BaseExceptionGroup as group:
        raise cause_of(group) from None
    sink.finish()


async def _until(stop: asyncio.Event, events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    stopping = asyncio.ensure_future(stop.wait())
    try:
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                coming.cancel()
                return
            if (event := coming.result()) is None:
                return
            yield event
    finally:
        stopping.cancel()


def _print_loss(options: argparse.Namespace, listener: Listener, sink: _Sink) -> None:
    told = {"command": "mqtt-listen", "session": options.session, "written": options.output}
    told |= {**listener.loss.as_dict(), "missing_units": sink.missing_units}
    file = sys.stderr if is_standard_output(options.output) else sys.stdout
    if options.json:
        print(json.dumps(told), file=file)
    else:
        print_rows({name.replace("_", " "): str(value) for name, value in told.items() if value is not None}, file)


def broker_of(options: argparse.Namespace) -> BrokerAddress:
    """The broker of the options, with user and password from the environment if the URL has none.

    Raises ConfigError.
    """
    address = parse_broker(options.broker, options.ca, options.cert, options.key)
    if address.username is not None:
        return address
    username, password = (os.environ.get(f"NEUCODEC_MQTT_{name}") or None for name in ("USERNAME", "PASSWORD"))
    return replace(address, username=username, password=password)
