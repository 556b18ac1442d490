"""Options of the commands `mqtt-publish` and `mqtt-listen`; their code loads when they run.

They need aiomqtt, which is in the extra `mqtt` and not in the base installation.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

from neucodec_streaming.client.commands.completion import CompletedParser
from neucodec_streaming.client.errors import ClientError
from neucodec_streaming.lazy import missing_extra
from neucodec_streaming.protocol.query import PATHS

DEFAULT_BROKER = "mqtt://127.0.0.1:1883"
DEFAULT_PACKET_MS = 100
Add = Callable[..., argparse.ArgumentParser]


def add_commands(
    add: Add,
    output: argparse.ArgumentParser,
    server: argparse.ArgumentParser,
    form: argparse.ArgumentParser,
    tagged: argparse.ArgumentParser,
    device: argparse.ArgumentParser,
    timed: argparse.ArgumentParser,
) -> None:
    """Adds both commands with the shared options of cli."""
    broker = _broker_options()
    command = add(
        "mqtt-publish",
        publish,
        [output, form, tagged, device, timed, broker],
        "microphone or file to a session at a broker",
    )
    command.add_argument("--ca", metavar="FILE", help="certificate authorities (PEM) for mqtts://")
    command.add_argument("session", metavar="SESSION")
    command.add_argument(
        "input", metavar="IN", nargs="?", help="audio file, or tokens with --kind decode; or microphone"
    )
    command.add_argument(
        "--kind", choices=tuple(PATHS.values()), default="encode", help="kind of session (%(default)s)"
    )
    command.add_argument("--profile", help="latency profile of the bridge, such as low, default or high")
    command.add_argument("--realtime", action="store_true", help="send a file at the pace of a microphone")
    command.add_argument(
        "--packet-ms", type=int, default=DEFAULT_PACKET_MS, metavar="MS", help="audio in a frame (%(default)s)"
    )
    command.add_argument(
        "--packet-tokens", type=int, default=0, metavar="N", help="minimum number of tokens in a frame (%(default)s)"
    )
    command.add_argument(
        "--redundancy", type=int, default=0, metavar="N", help="tokens that each frame repeats (%(default)s)"
    )
    command = add(
        "mqtt-listen", listen, [server, form, device, timed, broker], "a session's tokens or speech to file or speaker"
    )
    command.add_argument("--ca", metavar="FILE", help="certificate authorities (PEM) for broker and server")
    command.add_argument("session", metavar="SESSION")
    command.add_argument("output", metavar="OUT", nargs="?", help="WAV or token file, - for tokens; or the speaker")
    command.add_argument("--decode", action="store_true", help="hear the tokens, decoded by --server")
    command.add_argument("--live", action="store_true", help="skip late audio, for a live speaker")


def _broker_options() -> argparse.ArgumentParser:
    options = CompletedParser(add_help=False)
    options.add_argument(
        "--broker", metavar="URL", default=os.environ.get("NEUCODEC_MQTT", DEFAULT_BROKER), help="broker (%(default)s)"
    )
    options.add_argument(
        "--qos",
        type=int,
        choices=(0, 1),
        default=1,
        help="1: every frame is confirmed, 0: a lossy link loses frames (%(default)s)",
    )
    options.add_argument("--cert", metavar="FILE", help="client certificate for the broker (PEM)")
    options.add_argument("--key", metavar="FILE", help="private key of --cert (PEM)")
    return options


async def publish(options: argparse.Namespace) -> None:
    """Publishes microphone or file to a session."""
    await _commands().publish(options)


async def listen(options: argparse.Namespace) -> None:
    """Writes a session's tokens or speech to a file or the speaker."""
    await _commands().listen_to(options)


def _commands() -> Any:
    try:
        from neucodec_streaming.client.commands import mqtt as mqtt_commands
    except ModuleNotFoundError as error:
        raise ClientError(str(missing_extra(error, "this command"))) from None
    return mqtt_commands
