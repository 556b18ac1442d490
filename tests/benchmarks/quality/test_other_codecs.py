"""Delays are measured and removed, bit rates are those of the packets, and missing codecs are skipped with a reason."""

import shutil

import numpy as np
import pytest

from benchmarks.quality import other_codecs
from benchmarks.quality.other_codecs import OtherCodec, available_codecs, delay_of, ogg_page_bytes, shifted, to_int16
from tests.benchmarks.speechlike import speechlike


def syllables(seconds: float = 2.0) -> np.ndarray:
    """Speech whose syllables do not repeat, so that only one delay fits."""
    pcm = speechlike(seconds)
    loudness = np.random.default_rng(0).random(round(seconds * 10) + 1)
    return (pcm * np.interp(np.arange(len(pcm)) / 1600, np.arange(len(loudness)), loudness)).astype(np.float32)


@pytest.mark.parametrize("delay", [0, 1, 320, 1500])
def test_a_known_delay_is_measured_and_removed(delay: int) -> None:
    pcm = np.pad(syllables(), 2000)
    late = shifted(pcm, -delay, len(pcm) + 2000)
    assert delay_of(pcm, late) == delay
    inside = slice(2000, -2000)
    assert (shifted(late, delay, len(pcm))[inside] == pcm[inside]).all()


def test_a_delay_is_found_for_any_phase_and_level() -> None:
    pcm = syllables()
    spectrum = np.fft.rfft(np.pad(pcm, (400, 0)))
    phases = np.exp(1j * np.pi * np.tanh(np.arange(len(spectrum)) / 400))  # another voice at the same loudness
    assert delay_of(pcm, 0.3 * np.fft.irfft(spectrum * phases)) == pytest.approx(400, abs=40)


def test_a_shift_has_the_requested_length() -> None:
    audio = np.arange(1, 5, dtype=np.float32)
    assert shifted(audio, 1, 5).tolist() == [2, 3, 4, 0, 0]
    assert shifted(audio, -2, 5).tolist() == [0, 0, 1, 2, 3]
    assert shifted(audio, 0, 2).tolist() == [1, 2]


def test_loud_samples_are_clipped_and_do_not_wrap() -> None:
    assert to_int16(np.array([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [-32768, -32767, 0, 32767, 32767]


def test_the_payload_of_ogg_pages_is_counted_without_their_headers() -> None:
    def page(segments: list[int]) -> bytes:
        return b"OggS" + bytes(22) + bytes([len(segments), *segments]) + bytes(sum(segments))

    assert ogg_page_bytes(page([19]) + page([255, 255, 3]) + page([])) == [19, 513, 0]
    with pytest.raises(ValueError, match="byte 47 of 50"):
        ogg_page_bytes(page([19]) + b"abc")


def test_a_codec_with_missing_commands_is_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_codecs.shutil, "which", lambda command: None if "opus" in command else command)
    codecs, reasons = available_codecs()
    assert [codec.name for codec in codecs] == [f"Codec2 {mode}" for mode in other_codecs.CODEC2_MODES]
    assert len(reasons) == 1 and "Opus" in reasons[0] and "opus-tools" in reasons[0]


@pytest.mark.skipif(shutil.which("c2enc") is None, reason="Codec2 is not installed: apt-get install codec2")
@pytest.mark.parametrize(("mode", "kbits"), [("700C", 0.7), ("1200", 1.2), ("3200", 3.2)])
def test_codec2_output_is_aligned_and_has_its_rate(mode: str, kbits: float) -> None:
    pcm = syllables(4.0)
    codec = OtherCodec(mode).calibrated([pcm])
    heard, measured_kbits = codec.code(pcm)
    assert 5 < codec.delay_ms < 60
    assert len(heard) == len(pcm) and abs(delay_of(pcm, heard)) < 16
    assert measured_kbits == pytest.approx(kbits, rel=0.15)  # 700C sends whole bytes


@pytest.mark.skipif(shutil.which("opusenc") is None, reason="Opus is not installed: apt-get install opus-tools")
def test_opus_output_is_aligned_and_has_about_its_rate() -> None:
    pcm = syllables(4.0)
    codec = OtherCodec().calibrated([pcm])
    heard, kbits = codec.code(pcm)
    assert abs(codec.delay_ms) < 5 and len(heard) == len(pcm)
    assert 3 < kbits < 9
