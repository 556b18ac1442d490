"""Every format that soundfile writes, whole, with wrong sizes or truncated, is read to its true end or refused."""

import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.files import AudioReader, read_audio
from neucodec_streaming.errors import AudioError

RATE = 16_000
SPEECH = (0.4 * np.sin(np.arange(24_000) ** 1.2 / 40) * np.linspace(0.1, 1, 24_000)).astype(np.float32)
LOSSLESS = {"PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"}
MIN_CORRELATION = 0.9
"""Of what the lossy encodings give back; DWVW's and the ADPCMs' is far better."""
MAX_HEADER_BYTES = 5000
KINDS = [
    (container, encoding)
    for container in sorted(soundfile.available_formats())
    for encoding in sorted(soundfile.available_subtypes(container))
    if container not in ("RAW", "SD2")  # without a header, in two files
]


class Written(dict):
    """(container, encoding) -> the bytes of a file with SPEECH; hypothesis prints it."""

    def __repr__(self) -> str:
        return f"{len(self)} files"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder, files = tmp_path_factory.mktemp("formats"), Written()
    for kind in KINDS:
        path = folder / "-".join(kind)
        try:
            soundfile.write(path, SPEECH, RATE, format=kind[0], subtype=kind[1])
        except soundfile.LibsndfileError:
            continue
        files[kind] = path.read_bytes()
    return files


def read(path, rate: int = RATE) -> tuple[np.ndarray, list[str]]:
    reader = AudioReader(path, rate)
    packets = list(reader)
    return (np.concatenate(packets) if packets else np.zeros(0, np.float32)), reader.notes


def is_start(audio: np.ndarray, encoding: str, padding: int = 0) -> bool:
    """Whether audio equals the start of SPEECH; a coder's last block may be padded."""
    size = min(audio.size, SPEECH.size)
    if audio.size > SPEECH.size + padding:
        return False
    if encoding in LOSSLESS or size < 500:
        return np.abs(audio[:size] - SPEECH[:size]).max(initial=0.0) < (1e-3 if encoding in LOSSLESS else 0.1)
    return np.corrcoef(audio[:size], SPEECH[:size])[0, 1] > MIN_CORRELATION


def rate_of(container: str) -> int:
    """The rate of a file in this container: some allow only one."""
    return {"WVE": 8_000, "XI": 44_100}.get(container, RATE)  # and VOC with 8 bits a rounded one


def test_every_format_is_read_whole_or_refused(written, tmp_path):
    refused = set()
    for kind, payload in written.items():
        (tmp_path / "x").write_bytes(payload)
        try:
            audio, notes = read(tmp_path / "x", rate_of(kind[0]))
        except FileError as error:
            assert "libsndfile" in str(error), kind
            refused.add(kind[0])
            continue
        assert notes == [], kind
        assert kind[0] == "VOC" or (audio.size >= SPEECH.size and is_start(audio, kind[1], padding=1024)), kind
    assert refused == {"PAF", "SDS", "VOC"}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_files_cut_off_anywhere_give_their_start_or_are_refused(written, tmp_path_factory, data):
    kind = data.draw(st.sampled_from(sorted(written)))
    payload = written[kind]
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(payload[: data.draw(st.integers(1, len(payload) - 1))])
    try:
        audio, _ = read(path, rate_of(kind[0]))
    except (FileError, AudioError):
        return
    last = 2048 if kind[1] not in LOSSLESS else 64  # the block that the cut goes through is damaged in some encodings
    assert is_start(audio[:-last], kind[1], padding=1024)
    assert audio.size or path.stat().st_size < MAX_HEADER_BYTES


SIZE_FIELDS = {
    "WAV": (b"data", 4, "<I"),
    "WAVEX": (b"data", 4, "<I"),
    "AIFF": (b"SSND", 4, ">I"),
    "CAF": (b"data", 4, ">q"),
    "AU": (b".snd", 8, ">I"),
    "SVX": (b"BODY", 4, ">I"),
    "W64": (b"data", 16, "<Q"),
    "RF64": (b"ds64", 16, "<Q"),
}


@pytest.mark.parametrize("container", SIZE_FIELDS)
@pytest.mark.parametrize("size", [0, 1000, -1, 0x7FFF_FFFF - 36, "double"])
def test_header_sizes_that_contradict_the_data_are_ignored(written, tmp_path, container, size):
    name, offset, field = SIZE_FIELDS[container]
    payload = bytearray(written[container, "PCM_16"])
    place = payload.index(name) + offset
    if size == "double":
        size = 2 * struct.unpack_from(field, payload, place)[0]
    is_signed = field == ">q"
    struct.pack_into(field, payload, place, size if is_signed else size % (1 << 8 * struct.calcsize(field)))
    (tmp_path / "x").write_bytes(payload)
    audio, _ = read(tmp_path / "x")
    assert abs(audio.size - SPEECH.size) <= 16 and is_start(audio, "PCM_16", padding=16)


def test_chunks_after_the_audio_are_not_read_as_audio(tmp_path):
    soundfile.write(tmp_path / "x.wav", SPEECH, RATE)
    whole = (tmp_path / "x.wav").read_bytes()
    for tail in (b"LIST\x04\0\0\0INFO", b"id3 \x03\0\0\0abc\0", bytes(600), b"abc"):
        (tmp_path / "x.wav").write_bytes(whole + tail)
        audio, notes = read(tmp_path / "x.wav")
        assert audio.size == SPEECH.size and notes == []


def test_a_recording_without_a_length_in_its_header_is_read_whole(tmp_path):
    soundfile.write(tmp_path / "x.flac", SPEECH, RATE)
    payload = bytearray((tmp_path / "x.flac").read_bytes())
    payload[21] &= 0xF0  # the low 36 bits of STREAMINFO's bytes 10 to 17 are the number of samples
    payload[22:26] = bytes(4)
    (tmp_path / "x.flac").write_bytes(payload)
    reader = AudioReader(tmp_path / "x.flac", RATE)
    assert reader.seconds is None
    assert np.concatenate(list(reader)).size == SPEECH.size
    assert read_audio(tmp_path / "x.flac", RATE).size == SPEECH.size


def test_a_correction_and_a_cut_are_reported(tmp_path):
    soundfile.write(tmp_path / "x.wav", SPEECH, RATE)
    payload = bytearray((tmp_path / "x.wav").read_bytes())
    (tmp_path / "x.wav").write_bytes(payload[:20_044])
    assert read(tmp_path / "x.wav")[1] == [
        f"{tmp_path / 'x.wav'}: its header says 48000 bytes of audio, and 20000 bytes are there: read to the end"
    ]
    soundfile.write(tmp_path / "x.mp3", SPEECH, RATE)
    (tmp_path / "x.mp3").write_bytes((tmp_path / "x.mp3").read_bytes()[:2000])
    assert "is truncated: its header declares 1.50 s" in read(tmp_path / "x.mp3")[1][0]


@pytest.mark.parametrize("scale", [32_768, 100, np.nan])
def test_samples_far_beyond_full_scale_are_refused_with_their_position(tmp_path, scale):
    audio = SPEECH.copy()
    audio[20_000:] = np.float32(scale) * 0.5
    soundfile.write(tmp_path / "x.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"x.wav: sample 20000 \(1.250 s\) is "):
        read(tmp_path / "x.wav")


def test_samples_beyond_full_scale_are_reported(tmp_path):
    soundfile.write(tmp_path / "x.wav", 5 * SPEECH, RATE, subtype="DOUBLE")
    audio, notes = read(tmp_path / "x.wav")
    assert audio.size == SPEECH.size
    assert len(notes) == 1 and "full scale is 1" in notes[0]


def test_rates_that_cannot_be_converted_are_named(tmp_path):
    soundfile.write(tmp_path / "x.wav", SPEECH, 1000)
    with pytest.raises(FileError, match=r"x.wav cannot be read as audio .*1000"):
        AudioReader(tmp_path / "x.wav", RATE)
