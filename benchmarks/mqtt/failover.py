"""A killed bridge, a restarted broker, a hundred live sessions: losses, reports of losses, lateness."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.mqtt.testbed import SMALL_MODEL, Heard, bridge_process
from benchmarks.wire.servers import hosted, load_constant
from demos.mqtt.broker import Broker, broker
from demos.server_process import ServerProcess
from neucodec_streaming.client.events import Tokens
from neucodec_streaming.client.latency import ResponseTimes
from neucodec_streaming.client.mqtt.listener import listen
from neucodec_streaming.client.mqtt.session import MqttSession, open_at_broker
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE
from neucodec_streaming.protocol.mqtt.address import parse_broker
from neucodec_streaming.protocol.mqtt.topics import SessionStatus, Status
from neucodec_streaming.server.app import App
from neucodec_streaming.server.mqtt.bridge import Bridge
from neucodec_streaming.server.settings.fields import Settings

PACKET_SAMPLES = INPUT_RATE // 10
RESTART_S, KILL_S = 8.0, 30.0
"""Seconds of speech; during the longer, another server starts."""
TROUBLE_AFTER_S = 2.0
DOWN_S = 1.0
POLL_S = 0.005
DEADLINE_S = 120.0
FailoverStep = Callable[[], Coroutine[None, None, None]]
STEP_S = 0.002
PERSISTENT = "allow_anonymous true\npersistence true\npersistence_location {folder}/\nuser root\n"


async def _speak(session: MqttSession, seconds: float, times: ResponseTimes | None = None) -> None:
    loop = asyncio.get_running_loop()
    noise = np.random.default_rng(0).standard_normal(PACKET_SAMPLES).astype(np.float32) * 0.05
    start_s = loop.time() - session.input_position / INPUT_RATE
    while session.input_position < seconds * INPUT_RATE:
        await asyncio.sleep(max(0.0, start_s + session.input_position / INPUT_RATE - loop.time()))
        await session.send(noise)
        if times is not None:
            times.sent(session.input_position, loop.time())
    await session.end()


async def _told(
    broker_url: str, name: str, seconds: float, prepare: FailoverStep, trouble: FailoverStep
) -> dict[str, object]:
    """Runs `prepare`, then `trouble`, while the session speaks."""
    loop = asyncio.get_running_loop()
    frames = int(seconds * INPUT_RATE) // INPUT_HOP
    heard, moments = Heard(frames), {}
    async with open_at_broker(broker_url, name) as session, listen(broker_url, name) as listener:

        async def follow() -> None:
            async for event in listener:
                heard.take(event, loop.time())

        async def break_it() -> None:
            await prepare()
            await asyncio.sleep(TROUBLE_AFTER_S)
            owner = listener.status.bridge if listener.status is not None else ""
            moments["broken"] = loop.time()
            await trouble()
            while not _is_anothers(listener.status, owner):  # noqa: ASYNC110 (a status has no event)
                await asyncio.sleep(POLL_S)
            moments.setdefault("taken_over", loop.time())

        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            group.create_task(_speak(session, seconds))
            breaking = group.create_task(break_it())
            following = group.create_task(follow())
            async for _ in session:
                pass
            await following
            breaking.cancel()
        loss = listener.status.loss if listener.status is not None else {}
    after = heard.at_s[heard.at_s > moments["broken"]]
    pause = np.diff(np.sort(np.unique(heard.at_s[~np.isnan(heard.at_s)]))).max()
    found: dict[str, object] = {
        "tokens": frames,
        "lost_tokens": int(heard.lost.sum()),
        "told_tokens": heard.told_units,
        "input_lost_samples_told": loss.get("lost_units", 0),
        "longest_pause_s": round(float(pause), 3),
        "heard_again": bool(after.size),
    }
    if "taken_over" in moments:
        found["takeover_s"] = round(moments["taken_over"] - moments["broken"], 3)
    return found


def _is_anothers(status: Status | None, owner: str) -> bool:
    return status is not None and status.state == SessionStatus.OPEN and status.bridge != owner


async def killed_bridges(times: int) -> list[dict[str, object]]:
    """Kills a bridge after another has joined, which then takes the session over."""
    rows = []
    with TemporaryDirectory() as folder, broker(Path(folder)) as running:
        async with AsyncExitStack() as stack:

            async def join() -> None:
                bridges.append(await stack.enter_async_context(bridge_process(running.url, SMALL_MODEL)))

            async def kill() -> None:
                await asyncio.to_thread(bridges.pop(0).stop, signal.SIGKILL)

            bridges: list[ServerProcess] = []
            await join()
            for number in range(times):
                rows.append(await _told(running.url, f"killed-{number}", KILL_S, join, kill))
    return rows


async def restarted_brokers(times: int) -> list[dict[str, object]]:
    """Stops and restarts the broker of one bridge, then kills and restarts it, `times` times each."""
    rows = []
    for how in ("stopped", "killed") * times:
        with TemporaryDirectory() as folder, broker(Path(folder), PERSISTENT.format(folder=folder)) as running:

            async def restart(running: Broker = running, how: str = how) -> None:
                (running.stop if how == "stopped" else running.kill)()
                await asyncio.sleep(DOWN_S)
                running.start()

            async with bridge_process(running.url, SMALL_MODEL):
                told = await _told(running.url, how, RESTART_S, partial(asyncio.sleep, 0), restart)
                rows.append({"broker": how, "down_s": DOWN_S, **told})
    return rows


@asynccontextmanager
async def _constant(broker_url: str, count: int) -> AsyncIterator[str]:
    settings = Settings(port=0, max_sessions=count, workers=1, batch_sizes=(1, 4, 16, 64), web=False, max_load=1e9)
    app = App(settings, partial(load_constant, STEP_S))
    bridge = Bridge(parse_broker(broker_url), app.open)
    try:
        await app.start()
        await app.loaded()
        bridge.start()
        await bridge.connected.wait()
        yield app.url
    finally:
        await bridge.stop(settings.stop_timeout_s)
        await app.stop()


async def many_sessions(count: int, seconds: float) -> dict[str, object]:
    """Runs live sessions over steps of constant time; returns the lateness of their tokens, and whether all came."""
    loop = asyncio.get_running_loop()
    with (
        TemporaryDirectory() as folder,
        broker(Path(folder)) as running,
        hosted(partial(_constant, running.url, count)),
    ):

        async def one(number: int) -> tuple[int, list[float]]:
            await asyncio.sleep(number / count)
            async with open_at_broker(running.url, f"many-{number}") as session:
                times, tokens = ResponseTimes(session.ready), 0
                speaking = asyncio.create_task(_speak(session, seconds, times))
                async for event in session:
                    if isinstance(event, Tokens):
                        tokens += event.tokens.size
                        times.received(session.output_position, loop.time())
                await speaking
                return tokens, list(times.milliseconds)

        async with asyncio.timeout(DEADLINE_S):
            found = await asyncio.gather(*(one(number) for number in range(count)))
    late = np.concatenate([times for _, times in found])
    p50, p99 = np.percentile(late, [50, 99])
    return {
        "sessions": count,
        "seconds": seconds,
        "tokens": sum(tokens for tokens, _ in found),
        "tokens_due": count * int(seconds * INPUT_RATE) // INPUT_HOP,
        "response_p50_ms": round(float(p50), 1),
        "response_p99_ms": round(float(p99), 1),
    }
