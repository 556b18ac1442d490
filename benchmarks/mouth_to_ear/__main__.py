"""Mouth to ear: latency from a virtual microphone to a virtual speaker, its parts, losses, and barge-in.

Speech is played into a room of PulseAudio null sinks (benchmarks.common.sound_room) and passes PortAudio, client,
server and back; one recording of the room holds mouth and ear. Their delay is found by cross-correlation of the
envelopes in 16 bands, in pieces of four seconds; lost or inserted audio anywhere would change it. The parts:
`microphone` and `speaker` as PortAudio reports them in each callback (including blocks of 10 ms, buffers and rate
conversion), `algorithm` = ready.latency_ms, `computing` from the last packet of a chunk's window to its output
(including network), `jitter` = the level of the jitter buffer when a chunk arrives. STOI is against the mouth, next to
that of the same model offline. Barge-in: utterances are interrupted repeatedly; measured are the time from clear() to
the last sound at the ear, silence after it, and the reported against the real position heard. Last, the network stalls
(benchmarks.common.faulty_proxy) in a room with noise NOISE_DB below the speech: latency before, and from STALL_OVER_S
after it; STOI before, and in the meantime against the speech cut at the splices.

    python -m benchmarks.mouth_to_ear --data FOLDER --minutes 5
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pystoi import stoi

from benchmarks.common.recordings import recordings
from benchmarks.common.sound_room import RATE, Recorder, installed, lift, say, sound_room
from benchmarks.common.surroundings import RESULTS_FOLDER, ROOT, write_report
from demos.server_process import ServerProcess
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.codec import Codec, load_codec
from neucodec_streaming.config import INPUT_RATE, OUTPUT_RATE
from neucodec_streaming.resampler import resample

RESULTS = RESULTS_FOLDER / "mouth_to_ear.json"
SPEECH = ROOT / "demos" / "data" / "speech.flac"
LEAD_IN_S, TAIL_S = 1.0, 2.0
STRETCH_S = 4.0
MAX_S = 2.0
"""Range of the delays searched."""
ENVELOPE_RATE = 1000
EDGES_HZ = np.geomspace(150, 7000, 17)
QUIET_DB = -25
SOUND = 2e-4
"""Threshold at the ear: -74 dBFS; a null sink is silent to the last bit."""
UTTERANCE_S = 6.0
GAP_S = 0.1
"""A longer silence ends an utterance, or its interrupted rest."""
MAX_CLEAR_MS = 60
NOISE_DB = 15
STALLS_S = (0.4, 1.5)
STALL_AT_S, STALL_OVER_S, STALLED_TALK_S = 12.0, 10.0, 34.0
LOSSES = ("microphone_lost", "underruns", "underflows", "skipped_ms")
PARTS = ("microphone_ms", "algorithm_ms", "computing_ms", "jitter_ms", "speaker_ms")


def spoken(data: Path | None, seconds: float) -> np.ndarray:
    """Speech at RATE, float32, with half a second of silence between recordings."""
    files = [path for _, path in recordings(data)] if data else [SPEECH]
    parts: list[np.ndarray] = []
    while (missing := round(seconds * RATE) - sum(map(len, parts))) > 0:
        part = read_audio(files[len(parts) // 2 % len(files)], RATE)
        parts += [part[:missing], np.zeros(RATE // 2, np.float32)]
    return np.concatenate(parts)


def envelopes(audio: np.ndarray) -> np.ndarray:
    """float32 (n,) at RATE -> magnitudes in each band minus their mean, every millisecond: (16, n // 48)."""
    hop, size = RATE // ENVELOPE_RATE, 512
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(audio, size // 2), size)[: audio.size // hop * hop : hop]
    bins = np.searchsorted(np.fft.rfftfreq(size, 1 / RATE), EDGES_HZ)
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(size).astype(np.float32)))
    bands = np.stack([spectrum[:, a : max(b, a + 1)].mean(axis=1) for a, b in pairwise(bins)])
    return bands**0.5


def delay_ms(mouth: np.ndarray, ear: np.ndarray) -> float:
    """Delay of `ear` (n + MAX_S,) against `mouth` (n,), both at RATE and from the same moment."""
    said, heard = envelopes(mouth), envelopes(ear)
    said -= said.mean(axis=1, keepdims=True)
    size = 1 << (said.shape[1] + heard.shape[1]).bit_length()
    products = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)))
    return float(np.argmax(products.sum(axis=0)[: heard.shape[1] - said.shape[1]]))


def stretches(audio: np.ndarray) -> Iterator[slice]:
    """The speech in (n,) from its first to its last sound, in pieces of STRETCH_S."""
    first, last = np.flatnonzero(np.abs(audio) > SOUND)[[0, -1]]
    size = round(STRETCH_S * RATE)
    return (slice(start, start + size) for start in range(int(first), int(last) - size, size))


def heard_at(ear: np.ndarray, stretch: slice, later_ms: float = 0.0, longer_s: float = 0.0) -> np.ndarray:
    """The ear's audio at that delay after a piece of the mouth."""
    later = round(later_ms * RATE / 1000)
    return ear[stretch.start + later : stretch.stop + later + round(longer_s * RATE)]


def delays_ms(mouth: np.ndarray, ear: np.ndarray) -> list[float]:
    """The delay in each piece of the speech."""
    return [delay_ms(mouth[stretch], heard_at(ear, stretch, longer_s=MAX_S)) for stretch in stretches(mouth)]


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


@contextmanager
def client(room: dict[str, str], *arguments: object) -> Iterator[Iterator[dict[str, Any]]]:
    """The messages of a client in the room, first that it listens."""
    command = [sys.executable, "-m", "benchmarks.mouth_to_ear.client", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=room, stdout=subprocess.PIPE, text=True)
    lift(process.pid)
    try:
        assert process.stdout is not None
        yield _told(process.stdout)
        process.wait(20)  # its session ends with a closing handshake: a lost one keeps its place for a while
    finally:
        process.terminate()
        process.wait(20)


def _told(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, lines)
    raise SystemExit("the client ended before it had told all: see above")


def measure_way(room: dict[str, str], url: str, profile: str, speech: np.ndarray, codec: Codec) -> dict[str, Any]:
    """Mouth to ear: latency and its parts, losses, intelligibility."""
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
    """Barge-in: how long the ear still hears something, what it hears after that, and the reported position heard."""
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


def measure_stall(room: dict[str, str], url: str, profile: str, speech: np.ndarray, stall_s: float) -> dict[str, Any]:
    """Latency before a stall of the network, and from STALL_OVER_S after it, in a noisy room."""
    level = float(np.sqrt(np.mean(speech**2))) * 10 ** (-NOISE_DB / 20)
    speech = np.resize(speech, round(STALLED_TALK_S * RATE))
    noisy = speech + np.random.default_rng(0).normal(0, level, speech.size).astype(np.float32)
    seconds = LEAD_IN_S + STALLED_TALK_S + TAIL_S
    begin_s = LEAD_IN_S + STALL_AT_S
    with Recorder(room) as recorder, client(room, "stall", url, profile, seconds, begin_s, stall_s) as told:
        next(told)
        time.sleep(LEAD_IN_S)
        voice = say(noisy, room)
        figures = next(told)
        voice.wait(20)
    first = int(np.flatnonzero(np.abs(recorder.mouth) > SOUND)[0])
    starts_s = [(stretch.start - first) / RATE for stretch in stretches(recorder.mouth)]
    by_start = list(zip(starts_s, delays_ms(recorder.mouth, recorder.ear), strict=True))
    before = [delay for start, delay in by_start if start + STRETCH_S < STALL_AT_S - MAX_S]
    after = [delay for start, delay in by_start if start >= STALL_AT_S + stall_s + STALL_OVER_S]
    scores = stall_scores(recorder, speech, first, figures, by_start, stall_s)
    return {
        "stall_s": stall_s,
        "before_ms": float(np.median(before)),
        "after_ms": float(np.median(after)),
        "after_most_ms": float(max(after)),
        "stoi_before": scores[0],
        "stoi_recovering": scores[1],
        **{name: figures[name] for name in (*LOSSES, "skips")},
        "splices": len(figures["splices"]),
    }


def stall_scores(
    recorder: Recorder,
    speech: np.ndarray,
    first: int,
    figures: dict[str, Any],
    by_start: list[tuple[float, float]],
    stall_s: float,
) -> tuple[float, float]:
    """Returns STOI at the ear before a stall, and in the STALL_OVER_S after it, against the clean speech cut at the
    splices; these are placed to a few ms by when each position was heard.

    `first` is where the speech begins at the mouth, `by_start` the delay in each stretch.
    """
    size = round(STRETCH_S * RATE)

    def later(at_s: float) -> int:
        """Returns the offset of the ear from the mouth for sound at `at_s`."""
        _, delay_ms = min(by_start, key=lambda pair: abs(pair[0] + STRETCH_S / 2 - at_s))
        return first + round(delay_ms * RATE / 1000)

    def score(said: np.ndarray, heard: np.ndarray) -> float:
        return round(float(stoi(said[: heard.size], heard[: said.size], RATE)), 4)

    since = round((STALL_AT_S - MAX_S) * RATE) - size
    calm = score(speech[since : since + size], recorder.ear[since + later((since + size / 2) / RATE) :][:size])
    begin = round((STALL_AT_S + stall_s) * RATE)
    end = begin + round(STALL_OVER_S * RATE)
    position, moment = figures["heard"]
    there = recorder.sample_at(moment)
    zero = there - later((there - first) / RATE) - round(position * RATE / OUTPUT_RATE)  # of the stream
    kept = np.ones(speech.size, bool)
    for at, samples in figures["splices"]:
        cut = zero + round(at * RATE / OUTPUT_RATE)
        kept[max(0, cut) : cut + round(samples * RATE / OUTPUT_RATE)] = False
    said = speech[begin:end][kept[begin:end]]
    heard_end = end + later(end / RATE)
    return calm, score(said, recorder.ear[heard_end - said.size : heard_end])


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
                f"stall of {stall['stall_s']:g} s, noise: mouth to ear before, and {STALL_OVER_S:g} s after, ms",
                f"{stall['before_ms']:.0f}, {stall['after_ms']:.0f}",
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
        stalls = [measure_stall(room, url, given.profile, speech, stall_s) for stall_s in STALLS_S]
    report(way, clear, stalls)
    write_report(given.out, {"profile": given.profile, "way": way, "clear": clear, "stalls": stalls})


if __name__ == "__main__":
    main()
