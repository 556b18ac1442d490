"""The demo of `make demo`: real speech through server and client, live, with a summary of the result.

Streams a recording in real time into a token file, decodes the token file into a WAV file as fast as the server can,
and compares it with the recording.
"""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from demos.command_line import needs
from demos.language_model import RECORDING
from demos.server_process import demo_server
from neucodec_streaming.client.commands.display import ProgressLine, print_rows
from neucodec_streaming.client.connection import connect
from neucodec_streaming.client.files import AudioReader, AudioWriter, TokenWriter, read_audio, read_tokens
from neucodec_streaming.client.transfer import TransferReport, transfer
from neucodec_streaming.config import FRAME_MS, INPUT_HOP, INPUT_RATE, OUTPUT_RATE, TOKENS_PER_SECOND
from neucodec_streaming.resampler import resample

with needs("server,demo"):
    from pystoi import stoi

    from demos.spectrogram import draw_pair

TOKENS_PER_PACKET = 25
PCM_BITS = 16


@dataclass
class LatencyLog:
    """Time from speaking each chunk's first sample to receiving its tokens; pass it to `transfer` as on_progress."""

    milliseconds: list[float] = field(default_factory=list)
    _seen: int = 0

    def __call__(self, report: TransferReport) -> None:
        if report.output_units > self._seen and report.input_units / INPUT_HOP > report.output_units:
            spoken_s = self._seen * FRAME_MS / 1000
            self.milliseconds.append((report.elapsed_s - spoken_s) * 1000)
        self._seen = report.output_units


async def encode(url: str, recording: Path, token_file: Path, realtime: bool) -> tuple[TransferReport, list[float]]:
    """Returns the session's report and the latency of each chunk in ms."""
    source, log = AudioReader(recording, INPUT_RATE), LatencyLog()
    async with connect(url, kind="encode") as connection:
        with TokenWriter(token_file) as writer, ProgressLine(source.seconds) as line:

            def progress(report: TransferReport) -> None:
                log(report)
                line(report)

            report = await transfer(connection, source, writer.write, realtime=realtime, on_progress=progress)
    return report, log.milliseconds


async def decode(url: str, token_file: Path, wav_file: Path) -> TransferReport:
    tokens = read_tokens(token_file)
    packets = [tokens[start : start + TOKENS_PER_PACKET] for start in range(0, tokens.size, TOKENS_PER_PACKET)]
    async with connect(url, kind="decode", output_rate=OUTPUT_RATE) as connection:
        with AudioWriter(wav_file, OUTPUT_RATE) as writer, ProgressLine(tokens.size / TOKENS_PER_SECOND) as line:
            return await transfer(connection, packets, writer.write, on_progress=line)


def compare(recording: Path, wav_file: Path, picture: Path, model: str) -> float:
    """Returns STOI at 16 kHz (Taal et al., 2011) over the length of the decoded audio."""
    original, decoded = read_audio(recording, OUTPUT_RATE), read_audio(wav_file, OUTPUT_RATE)
    original = original[: decoded.size]
    draw_pair([("original", original), (f"after {model}, 800 bit/s, streamed", decoded)], OUTPUT_RATE, picture)
    narrow = [resample(audio, OUTPUT_RATE, INPUT_RATE) for audio in (original, decoded)]
    return float(stoi(*narrow, INPUT_RATE))


async def demonstrate(options: argparse.Namespace) -> dict[str, object]:
    options.output.mkdir(parents=True, exist_ok=True)
    token_file, wav_file, picture = (options.output / name for name in ("speech.tok", "speech.wav", "spectrograms.png"))
    print(f"Starting the server on model {options.model} ...", flush=True)
    async with demo_server(None, options.model) as url:
        print(f"Ready at {url}. Streaming {options.recording.name} in real time ...", flush=True)
        encoded, latencies = await encode(url, options.recording, token_file, not options.fast)
        decoded = await decode(url, token_file, wav_file)
    intelligibility = compare(options.recording, wav_file, picture, encoded.ready.model)
    return {
        "recording": str(options.recording),
        "tokens_file": str(token_file),
        "audio_file": str(wav_file),
        "picture": str(picture),
        "model": encoded.ready.model,
        "seconds": round(encoded.input_seconds, 2),
        "tokens": encoded.tokens,
        "bits_per_second": round(encoded.bits_per_second),
        "smaller_than_pcm": round(INPUT_RATE * PCM_BITS / encoded.bits_per_second),
        "algorithmic_latency_ms": encoded.ready.latency_ms,
        "measured_latency_ms_p50": round(float(np.percentile(latencies, 50)), 1) if latencies else None,
        "measured_latency_ms_max": round(max(latencies), 1) if latencies else None,
        "decode_latency_ms": decoded.ready.latency_ms,
        "decode_real_time_factor": round(decoded.real_time_factor, 3),
        "stoi": round(intelligibility, 3),
    }


def show(figures: dict[str, object], realtime: bool) -> None:
    latency = f"{figures['algorithmic_latency_ms']:g} ms algorithmic"
    if realtime:
        latency += (
            f"; measured, from a chunk's first sample to its tokens: {figures['measured_latency_ms_p50']} ms (p50)"
        )
        latency += f", {figures['measured_latency_ms_max']} ms (max)"
    rows = {
        "tokens": f"{figures['tokens_file']} ({figures['tokens']} tokens for {figures['seconds']} s)",
        "audio": f"{figures['audio_file']} (24 kHz; the original: {figures['recording']})",
        "picture": f"{figures['picture']} (both spectrograms)",
        "bit rate": f"{figures['bits_per_second']} bit/s, {figures['smaller_than_pcm']} times smaller than 16 kHz PCM",
        "speech to tokens": latency,
        "tokens to audio": f"{figures['decode_latency_ms']:g} ms algorithmic",
        "speed": f"decoded at real-time factor {figures['decode_real_time_factor']} (below 1: faster than it plays)",
        "STOI": f"{figures['stoi']} against the original (1 is perfect)",
    }
    print("Results:")
    print_rows(rows, sys.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="demo", description="Real speech through a live NeuCodec.")
    parser.add_argument("--model", default="nano", help="model of the server (%(default)s)")
    parser.add_argument("--recording", type=Path, default=RECORDING, help="WAV or FLAC (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder (%(default)s)")
    parser.add_argument("--fast", action="store_true", help="stream as fast as possible, not in real time")
    options = parser.parse_args()
    options.recording = Path(os.path.relpath(options.recording))
    figures = asyncio.run(demonstrate(options))
    (options.output / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
    show(figures, not options.fast)


if __name__ == "__main__":
    main()
