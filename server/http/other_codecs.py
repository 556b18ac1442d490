"""POST /v1/compare: a visitor's speech through other codecs, for the web page's comparison.

The codecs are the commands of Debian's opus-tools and codec2; a codec is offered if its two commands are installed.
They run as processes, which read standard input and write standard output, one request at a time, with a deadline. The
body is mono mu-law at 16 kHz, so that 15 s are shorter than the default limit of a body; the answer is JSON with s16le
at 8 kHz, as base64, per codec, aligned with the input.
"""

import asyncio
import base64
import json
import logging
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import numpy as np

from neucodec_streaming.audio import pcm_from_bytes, pcm_to_bytes
from neucodec_streaming.config import INPUT_RATE
from neucodec_streaming.errors import CapacityError, ConfigError, StreamingError
from neucodec_streaming.resampler import resample
from neucodec_streaming.server.auth.gate import Gate
from neucodec_streaming.server.http.exchange import Exchange, HttpRequest, reply_with
from neucodec_streaming.server.http.responses import JSON, error_response, plain
from neucodec_streaming.server.metrics import Metrics

MAX_SECONDS = 15
MAX_WAITING = 8
DEADLINE_S = 10.0
NICENESS = 19
"""Of the commands: live steps go first."""
OUTPUT_RATE = 8000
PADDING_SAMPLES = INPUT_RATE // 10
"""Silence after the input, for the delay of a codec and the incomplete frame that it drops."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PipedCodec:
    """Commands from PCM at `input_rate` to PCM at OUTPUT_RATE; `delay_samples` of their output are removed."""

    encoder: tuple[str, ...]
    decoder: tuple[str, ...]
    input_rate: int
    delay_samples: int = 0

    @property
    def is_installed(self) -> bool:
        """Whether both commands are found."""
        return all(shutil.which(command[0]) for command in (self.encoder, self.decoder))


_RAW = ("--raw", "--raw-rate", str(INPUT_RATE), "--raw-chan", "1", "--raw-bits", "16")
CODECS = {
    "opus": PipedCodec(
        ("opusenc", "--quiet", "--speech", "--bitrate", "6", *_RAW, "-", "-"),
        ("opusdec", "--quiet", "--rate", str(OUTPUT_RATE), "-", "-"),
        INPUT_RATE,
    ),
    "codec2": PipedCodec(("c2enc", "700C", "-", "-"), ("c2dec", "700C", "-", "-"), 8000, delay_samples=265),
}
"""By the names of the page. The delay is the median that `benchmarks.browser.samples` prints."""


class CompareEndpoint:
    """Answers the requests of one server with the codecs that are installed when it starts."""

    def __init__(self, gate: Gate, metrics: Metrics) -> None:
        self._gate, self._metrics = gate, metrics
        self.codecs = {name: codec for name, codec in CODECS.items() if codec.is_installed}
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def answer(self, request: HttpRequest, exchange: Exchange) -> None:
        """Codes the body by every codec, or answers with the error."""
        try:
            self._gate.check(request.headers, None, request.peer)
            _check(request.body)
            if self._waiting >= MAX_WAITING:
                raise CapacityError(f"{MAX_WAITING} comparisons are waiting, which is the limit: try again later")
        except StreamingError as error:
            self._metrics.refusals.labels(error.code).inc()
            reply_with(exchange, error_response(error))
            return
        self._waiting += 1
        try:
            async with self._turn:
                coded = {name: await coded_by(codec, request.body) for name, codec in self.codecs.items()}
        finally:
            self._waiting -= 1
        fields = {name: base64.b64encode(audio).decode() for name, audio in coded.items() if audio is not None}
        body = json.dumps({"rate": OUTPUT_RATE, "audio": fields})
        reply_with(exchange, plain(HTTPStatus.OK, body, JSON, {"Cache-Control": "no-store"}))


def _check(body: bytes) -> None:
    """Raises ConfigError for a body that is not speech of at most MAX_SECONDS."""
    if not body:
        raise ConfigError(f"the body is empty: send mu-law samples at {INPUT_RATE} Hz")
    if len(body) > MAX_SECONDS * INPUT_RATE:
        raise ConfigError(f"the body is {len(body) / INPUT_RATE:.2f} s long: send at most {MAX_SECONDS} s")


async def coded_by(codec: PipedCodec, speech: bytes) -> bytes | None:
    """Mu-law at 16 kHz -> the codec's output, s16le at OUTPUT_RATE, of the same duration; None if a command fails."""
    count = len(speech) * OUTPUT_RATE // INPUT_RATE
    try:
        padded = await asyncio.to_thread(_padded, speech, codec.input_rate)
        coded = await _piped(codec.encoder, padded)
        heard = (await _piped(codec.decoder, coded))[codec.delay_samples * 2 :]
    except OSError as error:  # TimeoutError is one
        _log.warning("comparison left out: %s", error)
        return None
    return heard[: count * 2].ljust(count * 2, b"\0")


def _padded(speech: bytes, rate: int) -> bytes:
    audio = np.pad(pcm_from_bytes(speech, "mulaw"), (0, PADDING_SAMPLES))
    return pcm_to_bytes(audio if rate == INPUT_RATE else resample(audio, INPUT_RATE, rate))


async def _piped(command: tuple[str, ...], data: bytes) -> bytes:
    """Returns the standard output of a command. Raises OSError if it fails, TimeoutError after DEADLINE_S."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=null)
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
    try:
        async with asyncio.timeout(DEADLINE_S):
            output, _ = await process.communicate(data)
    except TimeoutError:
        raise TimeoutError(f"{command[0]} takes longer than {DEADLINE_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode or not output:
        raise OSError(f"{command[0]} ended with status {process.returncode} and {len(output)} bytes of output")
    return output
