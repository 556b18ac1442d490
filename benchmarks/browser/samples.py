"""Renders the recordings of the web page: server/web/samples/.

Each sample is an original at 16 kHz with its tokens, the decoded tokens, and the same original through Opus at 6 kbit/s
and Codec2 700C, all aligned in time. Run it again after the weights of `nano` have changed:

    python -m benchmarks.browser.samples

The originals are kept, unless --speech names a folder of recordings to cut them from (with --mandarin for the one that
is not in it). Needs Debian's opus-tools and codec2.
"""

import argparse
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from benchmarks.quality.other_codecs import OtherCodec, to_int16
from neucodec_streaming import Codec, load_codec
from neucodec_streaming.client.files import read_audio
from neucodec_streaming.config import INPUT_HOP, INPUT_RATE, OUTPUT_RATE

FOLDER = Path(__file__).parents[2] / "server" / "web" / "samples"
INDEX = FOLDER / "samples.js"
MODEL = "nano"
OTHERS = {"opus": OtherCodec(), "codec2": OtherCodec("700C")}
PEAK = 0.7
PAUSE_S = 0.35
STREET_SNR_DB = 5.0
LIBRITTS = "LibriTTS, read for LibriVox, CC BY 4.0"


@dataclass(frozen=True)
class Sample:
    """`files` are relative to the folder of recordings; empty for --mandarin's."""

    name: str
    title: str
    words: str
    credit: str
    files: tuple[str, ...] = ()
    seconds: float | None = None
    street: bool = False
    language: str = "en"


SAMPLES = (
    Sample(
        "sentence",
        "A sentence",
        "Very well put, said Sir Ferdinando.",
        LIBRITTS,
        ("eval/en_libritts8455/vocos_mel-gt-8455_210777_000030_000000.flac",),
        seconds=2.4,
    ),
    Sample(
        "voices",
        "Two voices",
        "But you must not eat with your cap on your head, she said. / For a full hour he had paced up and down,"
        " waiting, but he could wait no longer.",
        LIBRITTS,
        (
            "eval/en_libritts7021/vocos_mel-gt-7021_85628_000023_000000.flac",
            "eval/en_libritts1089/vocos_mel-gt-1089_134691_000002_000002.flac",
        ),
    ),
    Sample(
        "street",
        "A noisy street",
        "In short, he becomes a prominent figure in London society, and if he is not careful, somebody will say so.",
        f"{LIBRITTS}; the traffic is synthetic",
        ("eval/en_libritts7176/vocos_mel-gt-7176_92135_000003_000004.flac",),
        street=True,
    ),
    Sample(
        "mandarin",
        "Mandarin",
        "广州市房地产中介协会分析",
        "AISHELL-1, Beijing Shell Shell Technology, Apache 2.0",
        language="zh",
    ),
)


def original_path(sample: Sample) -> Path:
    return FOLDER / f"{sample.name}.original.flac"


def cut(sample: Sample, speech: Path, mandarin: Path | None) -> None:
    """Writes the original: recordings in sequence at 16 kHz, at most `seconds`, in whole frames."""
    files = [speech / file for file in sample.files] or [mandarin]
    if files == [None]:
        print(f"{sample.name}: kept: --mandarin names no recording")
        return
    pause = np.zeros(round(PAUSE_S * INPUT_RATE), np.float32)
    parts = [part for file in files for part in (levelled(read_audio(file, INPUT_RATE)), pause)][:-1]
    pcm = np.concatenate(parts)
    if sample.seconds is not None:
        pcm = pcm[: round(sample.seconds * INPUT_RATE)]
    pcm = pcm[: len(pcm) // INPUT_HOP * INPUT_HOP]
    if sample.street:
        pcm = levelled(pcm + street(pcm))
    soundfile.write(original_path(sample), to_int16(pcm), INPUT_RATE, subtype="PCM_16")


def levelled(pcm: np.ndarray) -> np.ndarray:
    return (pcm * (PEAK / np.abs(pcm).max())).astype(np.float32)


def street(speech: np.ndarray) -> np.ndarray:
    """Returns traffic noise, STREET_SNR_DB below the speech: a distant rumble and four passing cars."""
    rng = np.random.default_rng(1)
    time_s = np.arange(len(speech)) / INPUT_RATE
    noise = shaped(rng, len(speech), lambda hz: 1 / np.maximum(hz, 60.0))
    noise /= noise.std()
    for middle_s in np.linspace(0.1, 0.9, 4) * time_s[-1] + rng.uniform(-0.3, 0.3, 4):
        tyres = shaped(rng, len(speech), lambda hz: np.exp(-(((hz - 900.0) / 900.0) ** 2)) + 30 / np.maximum(hz, 60.0))
        noise += rng.uniform(1.0, 2.0) * tyres / tyres.std() / (1 + ((time_s - middle_s) / 0.45) ** 2)
    wanted = speech.std() * 10 ** (-STREET_SNR_DB / 20)
    return (noise * (wanted / noise.std())).astype(np.float32)


def shaped(rng: np.random.Generator, count: int, gain) -> np.ndarray:
    """Returns noise (count,) shaped by `gain`, a function of the frequency in Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(count, 1 / INPUT_RATE)), count)


def render(codec: Codec, pcms: Sequence[np.ndarray]) -> None:
    others = {name: other.calibrated(pcms) for name, other in OTHERS.items()}
    print("median delays:", ", ".join(f"{name} {other.delay_ms:.1f} ms" for name, other in others.items()))
    entries = []
    for sample, pcm in zip(SAMPLES, pcms, strict=True):
        encoder, decoder = codec.encoder_stream(), codec.decoder_stream()
        tokens = np.concatenate([encoder.feed(pcm), encoder.flush()])
        audio = np.concatenate([decoder.feed(tokens), decoder.flush()])
        soundfile.write(FOLDER / f"{sample.name}.neucodec.flac", to_int16(audio), OUTPUT_RATE, subtype="PCM_16")
        kbits = {}
        for name, other in others.items():
            heard, kbits[name] = other.code(pcm)
            narrow = soxr.resample(heard, INPUT_RATE, 8000)  # both codecs end at 4 kHz
            soundfile.write(FOLDER / f"{sample.name}.{name}.flac", to_int16(narrow), 8000, subtype="PCM_16")
        entries.append(
            {
                "name": sample.name,
                "title": sample.title,
                "words": sample.words,
                "language": sample.language,
                "credit": sample.credit,
                "tokens": base64.b64encode(tokens.astype("<u2").tobytes()).decode(),
                "kbits": {name: round(value, 1) for name, value in kbits.items()},
            }
        )
        print(f"{sample.name}: {len(pcm) / INPUT_RATE:.2f} s, {tokens.size * 2} bytes of tokens, {kbits}")
    model = {"name": f"{MODEL}-{codec.model.config.weights_version}", "parameters": parameters(codec)}
    INDEX.write_text(
        "/** The recordings of the page. Written by `python -m benchmarks.browser.samples`: do not edit. */\n\n"
        f"export const MODEL = {json.dumps(model)};\n\n"
        f"export const SAMPLES = {json.dumps(entries, indent=2, ensure_ascii=False)};\n"
    )


def parameters(codec: Codec) -> int:
    return sum(each.numel() for each in codec.model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, help="folder of recordings, with eval/, to cut the originals from")
    parser.add_argument("--mandarin", type=Path, help="the recording BAC009S0724W0121 of AISHELL-1")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if arguments.speech is not None:
        for sample in SAMPLES:
            cut(sample, arguments.speech, arguments.mandarin)
    render(load_codec(MODEL), [read_audio(original_path(sample), INPUT_RATE) for sample in SAMPLES])


if __name__ == "__main__":
    main()
