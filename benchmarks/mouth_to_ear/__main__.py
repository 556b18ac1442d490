"""Mouth to ear: latency from a virtual microphone to a virtual speaker, its parts, losses, and barge-in.

Speech is played into a room of PulseAudio null sinks (benchmarks.common.sound_room) and passes PortAudio, client,
server and back; one recording of the room holds mouth and ear. Their delay is found by cross-correlation of the
envelopes in 16 bands, in pieces of four seconds; lost or inserted audio anywhere would change it. The parts:
`microphone` and `speaker` as PortAudio reports them in each callback (including blocks of 10 ms, buffers and rate
conversion), `algorithm` = ready.latency_ms, `computing` from the last packet of a chunk's window to its output
(including network), `jitter` = the level of the jitter buffer when a chunk arrives. STOI is against the mouth, next to
that of the same model offline. Barge-in measures the time from clear() to the last sound at the ear, silence after it,
and the reported against the real position heard.

    python -m benchmarks.mouth_to_ear --data FOLDER --minutes 5
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pystoi import stoi

from benchmarks.common.recordings import recordings
from benchmarks.common.sound_room import RATE, Recorder, installed, lift, say, sound_room
from benchmarks.common.surroundings import RESULTS_FOLDER, ROOT, write_report
from benchmarks.mouth_to_ear.delay import SOUND, delays_ms, heard_at, stretches
from benchmarks.mouth_to_ear.process import LEAD_IN_S, LOSSES, TAIL_S, client
from benchmarks.mouth_to_ear.stall import MAX_STOI_LOSS, STALL_OVER_S, measure_stalls
from demos.server_process import ServerProcess
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.codec import Codec, load_codec
from neucodec_streaming.config import INPUT_RATE, OUTPUT_RATE
from neucodec_streaming.resampler import resample

RESULTS = RESULTS_FOLDER / "mouth_to_ear.json"
SPEECH = ROOT / "demos" / "data" / "speech.flac"
QUIET_DB = -25
UTTERANCE_S = 6.0
GAP_S = 0.1
"""A longer silence ends an utterance, or its interrupted rest."""
MAX_CLEAR_MS = 60
PARTS = ("microphone_ms", "algorithm_ms", "computing_ms", "jitter_ms", "speaker_ms")


def spoken(data: Path | None, seconds: float) -> np.ndarray:
    """Speech at RATE, float32, with half a second of silence between recordings."""
    files = [path for _, path in recordings(data)] if data else [SPEECH]
    parts: list[np.ndarray] = []
    while (missing := round(seconds * RATE) - sum(map(len, parts))) > 0:
        part = read_audio(files[len(parts) // 2 % len(files)], RATE)
        parts += [part[:missing], np.zeros(RATE // 2, np.float32)]
    return np.concatenate(parts)


def intelligibility(mouth: np.ndarray, ear: np.ndarray, codec: Codec) -> tuple[float, float]:
    """Mean STOI of pieces, each at its own delay: of the heard audio, and of the codec alone."""
    scores = []
    delays = delays_ms(mouth, ear)
    for stretch, delay in zip(stretches(mouth), delays, strict=True):
        said = mouth[stretch]
        alone = resample(codec.decode(codec.encode(resample(said, RATE, INPUT_RATE))), OUTPUT_RATE, RATE)
        scores.append((stoi(said, heard_at(ear, stretch, delay), RATE), stoi(said[: alone.size], alone, RATE)))
    return tuple(np.mean(scores, axis=0).round(3).tolist())


@contextmanager
def serving(model: str, profile: str) -> Iterator[str]:
    """The URL of a server for one session, at real-time priority."""
    arguments = ("--model", model, "--threads", "1", "--workers", "1", "--profiles", profile)
    with ServerProcess(*arguments, "--batch-sizes", "1", "--max-sessions", "4") as server:
        lift(server.pid, 5)
        yield server.url


def measure_way(room: dict[str, str], url: str, profile: str, speech: np.ndarray, codec: Codec) -> dict[str, Any]:
    seconds = speech.size / RATE + LEAD_IN_S + TAIL_S
    with Recorder(room) as recorder, client(room, "talk", url, profile, seconds) as told:
        next(told)
        time.sleep(LEAD_IN_S)
        voice = say(speech, room)
        figures = next(told)
        voice.wait(20)
    delays = np.array(delays_ms(recorder.mouth, recorder.ear))
    heard_stoi, codec_stoi = intelligibility(recorder.mouth, recorder.ear, codec)
    return {
        "latency_ms": float(np.median(delays)),
        "latency_least_ms": float(delays.min()),
        "latency_most_ms": float(delays.max()),
        "sum_of_parts_ms": round(sum(figures[part] for part in PARTS), 1),
        **figures,
        "seconds": round(speech.size / RATE, 1),
        "stoi": heard_stoi,
        "stoi_codec_alone": codec_stoi,
    }


def without_pauses(speech: np.ndarray, seconds: float) -> np.ndarray:
    """Speech at INPUT_RATE without its quiet frames, so that silence has a cause."""
    frames = speech[: speech.size // 320 * 320].reshape(-1, 320)
    energy = np.square(frames).mean(axis=1)
    loud = frames[energy > energy.max() * 10 ** (QUIET_DB / 10)].reshape(-1)
    return np.resize(loud, round(seconds * INPUT_RATE)).astype(np.float32)


def measure_clear(room: dict[str, str], url: str, profile: str, codec: Codec, times: int, home: Path) -> dict[str, Any]:
    """Returns how long the ear still hears something, what it hears after that, and the reported position heard."""
    tokens = codec.encode(without_pauses(read_audio(SPEECH, INPUT_RATE), UTTERANCE_S))
    tokens.astype("<u2").tofile(home / "utterance.tok")
    with Recorder(room) as recorder, client(room, "barge-in", url, profile, home / "utterance.tok", times) as told:
        next(told)
        cleared = [next(told)["cleared"] for _ in range(times)]
        time.sleep(0.2)
    sounds = np.flatnonzero(np.abs(recorder.ear) > SOUND)
    firsts = np.flatnonzero(np.diff(sounds, prepend=-RATE) > GAP_S * RATE)
    begins, ends = sounds[firsts], sounds[np.append(firsts[1:], sounds.size) - 1]
    silent_ms, wrong_ms = [], []
    for said in cleared:
        current = int(np.searchsorted(begins, recorder.sample_at(said["moment"]))) - 1
        begin, end = begins[current], ends[current]
        silent_ms.append((recorder.moment(int(end)) - said["moment"]) * 1000)
        heard_s = (recorder.sample_at(said["moment"]) - begin) / RATE
        wrong_ms.append((said["heard"] / OUTPUT_RATE - heard_s) * 1000)
    return {
        "clears": times,
        "clear_to_silence_median_ms": round(float(np.median(silent_ms)), 1),
        "clear_to_silence_most_ms": round(max(silent_ms), 1),
        "sounds_after_silence": begins.size - times,
        "heard_position_error_median_ms": round(float(np.median(wrong_ms)), 1),
        "heard_position_error_most_ms": round(float(np.abs(wrong_ms).max()), 1),
    }


def report(way: dict[str, Any], clear: dict[str, Any], stalls: list[dict[str, Any]]) -> None:
    rows = [
        (
            "mouth to ear, ms",
            f"{way['latency_ms']:.0f} ({way['latency_least_ms']:.0f} to {way['latency_most_ms']:.0f})",
        ),
        *((f"  {part.removesuffix('_ms')}", f"{way[part]:.1f}") for part in PARTS),
        ("  their sum", f"{way['sum_of_parts_ms']:.1f}"),
        (
            f"lost at the microphone, breaks, device breaks, ms skipped in {way['seconds']:.0f} s (asked: 0)",
            ", ".join(str(way[name]) for name in LOSSES),
        ),
        ("STOI, and of the codec alone", f"{way['stoi']:.3f}, {way['stoi_codec_alone']:.3f}"),
        (
            f"clear to silence, ms (asked: below {MAX_CLEAR_MS})",
            f"{clear['clear_to_silence_median_ms']:.0f}, at most {clear['clear_to_silence_most_ms']:.0f}",
        ),
        ("sounds of the old utterance after that (asked: 0)", str(clear["sounds_after_silence"])),
        (
            "error of the position heard, ms",
            f"{clear['heard_position_error_median_ms']:.0f}, at most {clear['heard_position_error_most_ms']:.0f}",
        ),
        *(
            (
                f"stall of {stall['stall_s']:g} s, noise: ms before, {STALL_OVER_S:g} s after; STOI lost"
                f" (asked: {MAX_STOI_LOSS})",
                f"{stall['before_ms']:.0f}, {stall['after_ms']:.0f}; {stall['stoi_loss']:.3f}",
            )
            for stall in stalls
        ),
    ]
    for name, value in rows:
        print(f"{name:<74} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--profile", default="default")
    parser.add_argument("--data", type=Path, help="a folder that holds eval/SPEAKER/*.flac; else the demo's recording")
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--clears", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if not installed():
        raise SystemExit("needs Debian's pulseaudio, pulseaudio-utils and libasound2-plugins")
    codec = load_codec(given.model)
    speech = spoken(given.data, given.minutes * 60)
    with (
        tempfile.TemporaryDirectory() as folder,
        sound_room(Path(folder)) as room,
        serving(given.model, given.profile) as url,
    ):
        way = measure_way(room, url, given.profile, speech, codec)
        clear = measure_clear(room, url, given.profile, codec, given.clears, Path(folder))
        stalls = measure_stalls(room, url, given.profile, speech)
    report(way, clear, stalls)
    write_report(given.out, {"profile": given.profile, "way": way, "clear": clear, "stalls": stalls})


if __name__ == "__main__":
    main()
