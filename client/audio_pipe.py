"""Audio from a pipe as packets: raw samples and WAV while they arrive, other formats once they are complete.

WAV in a pipe has an unknown or invented length, since its writer cannot go back to fill it in, and needs no seeking, so
it is parsed here. libsndfile, which reads all other formats, needs a file and gets a temporary one.
"""

import struct
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neucodec_streaming.audio import pcm_from_bytes
from neucodec_streaming.client.errors import FileError
from neucodec_streaming.client.files import AudioReader
from neucodec_streaming.client.packets import Packetizer
from neucodec_streaming.client.pipes import is_device, name_of, read_pipe
from neucodec_streaming.client.sound_headers import UNKNOWN_BYTES, is_chunk_id

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_MAX_HEADER_BYTES = 1 << 20
_MAX_CHANNELS = 1024
_MAGICS = {b"RIFF": "WAV", b"RF64": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"FORM": "AIFF", b"caff": "CAF"}
_MAGICS |= {b"ID3": "MP3"}
"""First bytes of files that state their own rate -> format."""


class AudioPipe:
    """Audio from the pipe, FIFO or device `path` as an asynchronous iterable of float32 mono packets at `rate`.

    With `raw_rate` it contains raw samples of that rate: mono, 16 bits, little-endian. `notes` lists remarks for the
    user, complete at the end. Raises FileError, AudioError.
    """

    seconds = None

    def __init__(self, path: str | Path, rate: int, packet_seconds: float = 0.02, raw_rate: int | None = None) -> None:
        self.name = name_of(path, 0)
        self.notes: list[str] = []
        self._path, self._rate, self._packet_seconds = path, rate, packet_seconds
        self._raw = None if raw_rate is None else WavFormat(_PCM, 1, raw_rate, 16)

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        blocks = read_pipe(self._path)
        head, found = b"", self._raw
        start, length = 0, None
        async for block in blocks:
            head += block
            if self._raw is not None:
                if len(head) < 4:
                    continue
                self._refuse_header(head)
            elif found is None:
                try:
                    header = parse_wav_header(head)
                except FileError:
                    break
                if header is None:
                    continue
                found, start, length = header
            break
        if not head:
            raise FileError(f"{self.name} was empty: it contained no audio")
        if found is not None:
            async for packet in self._samples(found, head[start:], blocks, length):
                yield packet
            return
        if is_device(self._path, 0):
            raise FileError(f"{self.name} is a device without WAV audio: for raw samples pass --rate")
        with tempfile.TemporaryFile(prefix="neucodec-") as file:
            file.write(head)
            async for block in blocks:
                file.write(block)
            reader = AudioReader(file, self._rate, self._packet_seconds, self.name)  # type: ignore[arg-type]
            if reader.seconds == 0:
                raise FileError(f"{self.name} contains no audio")
            for packet in reader:
                yield packet
            self.notes += reader.notes

    def _refuse_header(self, head: bytes) -> None:
        kind = next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)
        if kind is not None:
            raise FileError(f"{self.name} is {kind}, whose header declares the rate: omit --rate")

    async def _samples(
        self, wav: "WavFormat", waiting: bytes, blocks: AsyncIterator[bytes], length: int | None
    ) -> AsyncIterator[np.ndarray]:
        packets = Packetizer(self.name, wav.rate, self._rate, max(1, round(self._rate * self._packet_seconds)))
        decode, frame = wav.decoder(), wav.frame_bytes
        left = length
        while True:
            whole = len(waiting) // frame * frame
            if left is not None:
                whole = min(whole, left // frame * frame)
                left -= whole
            for packet in packets.feed(decode(waiting[:whole]).reshape(-1, wav.channels)):
                yield packet
            waiting = waiting[whole:]
            if left is not None and left < frame and len(waiting) >= 8 + left % 2:
                if is_chunk_id(waiting[left + left % 2 :][:4]):
                    break
                left = None  # the length is outdated: audio continues
                continue
            block = await anext(blocks, b"")
            if not block:
                break
            waiting += block
        async for _ in blocks:  # chunks after the audio: read them, so that the writing program does not fail
            pass
        if not packets.samples:
            raise FileError(f"{self.name} contains no audio")
        for packet in packets.flush():
            yield packet
        if left is not None and left >= frame:
            self.notes.append(f"{self.name} was cut off: {left} bytes of audio are missing")
        self.notes += packets.notes


@dataclass(frozen=True)
class WavFormat:
    """Sample format of a WAV stream."""

    code: int
    channels: int
    rate: int
    bits: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * self.bits // 8

    def decoder(self) -> Callable[[bytes], np.ndarray]:
        """Converts whole samples to float32 (n,)."""
        return _DECODERS[self.code, self.bits]


def parse_wav_header(head: bytes) -> tuple[WavFormat, int, int | None] | None:
    """Format, offset of the samples and their bytes (None: to the end) of a WAV stream; None if more input is needed.

    Raises FileError for anything but a WAV of plain samples.
    """
    if len(head) < 12 and (b"RIFF"[: len(head)] == head[:4] or b"RF64"[: len(head)] == head[:4]):
        return None
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        raise FileError("no WAV")
    position, found = 12, None
    while len(head) >= position + 8:
        name, length = struct.unpack_from("<4sI", head, position)
        position += 8
        if name == b"data" and found is not None:
            return found, position, length if 0 < length < UNKNOWN_BYTES else None
        if position + length > _MAX_HEADER_BYTES:
            break
        if name == b"fmt " and len(head) >= position + length:
            found = _format(head[position : position + length])
        position += length + length % 2
    if position > _MAX_HEADER_BYTES:
        raise FileError("no audio data near its start")
    return None


def _format(chunk: bytes) -> WavFormat:
    if len(chunk) < 16:
        raise FileError("a damaged header")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and len(chunk) >= 26:
        (code,) = struct.unpack_from("<H", chunk, 24)
    if (code, bits) not in _DECODERS or not 1 <= channels <= _MAX_CHANNELS:
        raise FileError(f"WAV of encoding {code} with {bits} bits")
    return WavFormat(code, channels, rate, bits)


def _from_integers(dtype: str, bits: int) -> Callable[[bytes], np.ndarray]:
    return lambda payload: np.frombuffer(payload, dtype).astype(np.float32) / np.float32(1 << bits - 1)


def _from_24_bits(payload: bytes) -> np.ndarray:
    wide = np.zeros((len(payload) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(payload, np.uint8).reshape(-1, 3)
    return wide.view("<i4").reshape(-1).astype(np.float32) / np.float32(1 << 31)


def _from_floats(dtype: str) -> Callable[[bytes], np.ndarray]:
    def decode(payload: bytes) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.frombuffer(payload, dtype).astype(np.float32)

    return decode


_DECODERS: dict[tuple[int, int], Callable[[bytes], np.ndarray]] = {
    (_PCM, 8): lambda payload: (np.frombuffer(payload, np.uint8).astype(np.float32) - 128) / 128,
    (_PCM, 16): _from_integers("<i2", 16),
    (_PCM, 24): _from_24_bits,
    (_PCM, 32): _from_integers("<i4", 32),
    (_FLOAT, 32): _from_floats("<f4"),
    (_FLOAT, 64): _from_floats("<f8"),
    (_ALAW, 8): lambda payload: pcm_from_bytes(payload, "alaw"),
    (_MULAW, 8): lambda payload: pcm_from_bytes(payload, "mulaw"),
}
"""Format code and bits of a sample -> conversion to float32."""
