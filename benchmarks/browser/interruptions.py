"""Recovery of a live talk in a browser: latency above the algorithmic one 2 s after an interruption, and skipped input.

Uses headless browsers with recorded speech as the microphone, the module on a page of another origin, and `nano` over
loopback through a proxy that injects the faults.

    python -m benchmarks.browser.interruptions
"""

import argparse
import asyncio
import json
import signal
import socket
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import soundfile

from benchmarks.browser.browsers import BROWSERS, add_browsers
from benchmarks.browser.elsewhere import hosted_elsewhere
from benchmarks.browser.live_talk import INTERRUPTIONS, above_ms, talking
from benchmarks.browser.tab import ahead_of_others
from benchmarks.common.faulty_proxy import proxy
from benchmarks.common.sound_room import RATE
from benchmarks.common.surroundings import RESULTS_FOLDER, write_report
from benchmarks.mouth_to_ear.__main__ import SPEECH
from demos.server_process import ServerProcess
from neucodec_streaming.client.files import read_audio

RESULTS = RESULTS_FOLDER / "browser-interruptions.json"


def free_port() -> int:
    """Returns a port for a server that needs the same one again after a restart."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def measured(server: ServerProcess, browser: str, recording: Path) -> dict[str, dict[str, float]]:
    """Returns milliseconds and seconds for each interruption; a restart lasts as long as this server takes to start."""
    found: dict[str, dict[str, float]] = {}
    port = urlsplit(server.url).port
    assert port is not None
    module = server.url.replace("ws://", "http://")
    with hosted_elsewhere() as origin:
        async with BROWSERS[browser].open(recording, ahead=True) as tab:
            await tab.open(origin)
            for name in (*INTERRUPTIONS, "server restarted"):
                async with proxy("127.0.0.1", port) as line, talking(tab, module, line.url):
                    before_ms = await above_ms(tab)
                    began_s = time.monotonic()
                    if name in INTERRUPTIONS:
                        await INTERRUPTIONS[name](tab, line)
                    else:
                        await asyncio.to_thread(server.stop, signal.SIGTERM)
                        await asyncio.to_thread(server.start)
                    away_s = time.monotonic() - began_s
                    after_ms = await above_ms(tab)
                    skipped_s = await tab.run("talk.skipped")
                found[name] = {"before_ms": before_ms, "after_ms": after_ms, "away_s": away_s, "skipped_s": skipped_s}
                found[name] = {key: round(value, 2) for key, value in found[name].items()}
                print(browser, name, json.dumps(found[name]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_browsers(parser)
    browsers = parser.parse_args().browsers
    arguments = ("--model", "nano", "--threads", "1", "--workers", "1", "--profiles", "default", "--batch-sizes", "1")
    with ahead_of_others():
        server = ServerProcess(*arguments, "--max-sessions", "4", "--drain-s", "0", "--port", free_port())
        server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            recording = Path(folder) / "speech.wav"
            soundfile.write(recording, read_audio(SPEECH, RATE), RATE, subtype="PCM_16")
            found = {browser: asyncio.run(measured(server, browser, recording)) for browser in browsers}
    finally:
        server.stop()
    write_report(RESULTS, found)


if __name__ == "__main__":
    main()
