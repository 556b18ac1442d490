"""Other codecs on the same recordings: Opus at its lowest rate and Codec2, by Debian's commands.

Opus (package `opus-tools`) runs at 6 kbit/s, tuned for speech; at that rate it chooses narrow band. Codec2 (package
`codec2`) is narrow band too: 8 kHz in and out, resampled here. Neither has content above 4 kHz, which hardly affects
STOI, but affects the other measures. The stated rate is that of the packets without the container; Codec2 700C packs
its 28 bits per frame into four bytes, which makes 0.8 kbit/s.

A codec's delay is removed before any comparison. It is a property of the codec, but cannot be found by correlating
waveforms, since Codec2 synthesises phases; so it is the median, over some recordings, of the best fit of the envelopes
of input and output.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import soundfile
import soxr

from neucodec_streaming.config import INPUT_RATE

CODEC2_RATE = 8000
CODEC2_MODES = ("700C", "1200", "1300", "1600", "2400", "3200")
OPUS_KBITS = 6
REACH_SAMPLES = INPUT_RATE // 10
"""Search range for delays: 100 ms, either way."""
ENVELOPE_SAMPLES = INPUT_RATE // 50
OGG_HEADER = 27
OPUS_HEAD_PAGES = 2


@dataclass(frozen=True)
class OtherCodec:
    """`mode` is empty for Opus, else a mode of c2enc; the delay is removed from outputs."""

    mode: str = ""
    delay_samples: int = 0

    @property
    def name(self) -> str:
        return f"Codec2 {self.mode}" if self.mode else f"Opus {OPUS_KBITS} kbit/s"

    @property
    def commands(self) -> tuple[str, str]:
        return ("c2enc", "c2dec") if self.mode else ("opusenc", "opusdec")

    @property
    def delay_ms(self) -> float:
        return self.delay_samples * 1000 / INPUT_RATE

    def code(self, pcm: np.ndarray) -> tuple[np.ndarray, float]:
        """(T,) at 16 kHz -> the output, (T,) at 16 kHz without the codec's delay, and the kbit/s of the packets."""
        with tempfile.TemporaryDirectory() as folder:
            audio, kbits = (self._by_codec2 if self.mode else self._by_opus)(pcm, Path(folder))
        return shifted(audio, self.delay_samples, len(pcm)), kbits

    def calibrated(self, pcms: Sequence[np.ndarray]) -> "OtherCodec":
        """Returns a copy with the median delay over these recordings."""
        undelayed = replace(self, delay_samples=0)
        return replace(self, delay_samples=round(median(delay_of(pcm, undelayed.code(pcm)[0]) for pcm in pcms)))

    def _by_codec2(self, pcm: np.ndarray, folder: Path) -> tuple[np.ndarray, float]:
        # Followed by silence: the delay and the frame that c2enc drops would cut the end of the recording.
        narrow = soxr.resample(np.pad(pcm, (0, REACH_SAMPLES)), INPUT_RATE, CODEC2_RATE)
        to_int16(narrow).tofile(folder / "in.raw")
        _run("c2enc", self.mode, folder / "in.raw", folder / "coded")
        _run("c2dec", self.mode, folder / "coded", folder / "out.raw")
        heard = np.fromfile(folder / "out.raw", "<i2").astype(np.float32) / 32768
        kbits = (folder / "coded").stat().st_size * 8 / (len(heard) / CODEC2_RATE) / 1000
        return soxr.resample(heard, CODEC2_RATE, INPUT_RATE), kbits

    def _by_opus(self, pcm: np.ndarray, folder: Path) -> tuple[np.ndarray, float]:
        soundfile.write(folder / "in.wav", to_int16(pcm), INPUT_RATE, subtype="PCM_16")
        _run("opusenc", "--quiet", "--speech", "--bitrate", OPUS_KBITS, folder / "in.wav", folder / "coded.opus")
        _run("opusdec", "--quiet", "--rate", INPUT_RATE, folder / "coded.opus", folder / "out.wav")
        heard, _ = soundfile.read(folder / "out.wav", dtype="float32")
        packets = sum(ogg_page_bytes((folder / "coded.opus").read_bytes())[OPUS_HEAD_PAGES:])
        return heard, packets * 8 / (len(pcm) / INPUT_RATE) / 1000


def available_codecs() -> tuple[list[OtherCodec], list[str]]:
    """Returns the installed codecs, and for the others the reason for leaving them out."""
    codecs, reasons = [], []
    for package, group in (("opus-tools", [OtherCodec()]), ("codec2", [OtherCodec(mode) for mode in CODEC2_MODES])):
        missing = [command for command in group[0].commands if shutil.which(command) is None]
        if missing:
            names = ", ".join(codec.name for codec in group)
            reasons.append(f"{names}: no command {' or '.join(missing)}; apt-get install {package}")
        else:
            codecs += group
    return codecs, reasons


def delay_of(original: np.ndarray, heard: np.ndarray) -> int:
    """Returns the delay of `heard` in samples, within 100 ms: the lag at which the envelopes correlate best."""
    size = 1 << (len(original) + len(heard)).bit_length()
    spectra = [np.fft.rfft(envelope(audio), size) for audio in (original, heard)]
    correlation = np.fft.irfft(spectra[1] * spectra[0].conj(), size)
    lags = np.arange(-REACH_SAMPLES, REACH_SAMPLES + 1)
    return int(lags[correlation[lags].argmax()])


def envelope(audio: np.ndarray) -> np.ndarray:
    """Root mean square around each sample, minus its mean: (T,)."""
    window = np.hanning(ENVELOPE_SAMPLES + 3)[1:-1]
    smooth = np.convolve(np.square(audio, dtype=np.float64), window / window.sum(), "same")
    loudness = np.sqrt(np.maximum(smooth, 0))
    return loudness - loudness.mean()


def shifted(audio: np.ndarray, delay_samples: int, count: int) -> np.ndarray:
    """Moves audio earlier by its delay; returns exactly `count` samples, zero-padded."""
    moved = audio[delay_samples:] if delay_samples >= 0 else np.pad(audio, (-delay_samples, 0))
    return np.pad(moved[:count], (0, max(0, count - len(moved))))


def to_int16(audio: np.ndarray) -> np.ndarray:
    """float32 (T,) -> little-endian int16 (T,), clipped."""
    return np.clip(np.round(audio * 32767), -32768, 32767).astype("<i2")


def ogg_page_bytes(stream: bytes) -> list[int]:
    """Returns the payload bytes of each page of an Ogg stream (RFC 3533). Raises ValueError if a page is malformed."""
    found, at = [], 0
    while at < len(stream):
        if stream[at : at + 4] != b"OggS":
            raise ValueError(f"byte {at} of {len(stream)} begins no Ogg page")
        lacing = stream[at + OGG_HEADER : at + OGG_HEADER + stream[at + OGG_HEADER - 1]]
        found.append(sum(lacing))
        at += OGG_HEADER + len(lacing) + sum(lacing)
    return found


def _run(*command: object) -> None:
    """Raises subprocess.CalledProcessError with the command's output."""
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
