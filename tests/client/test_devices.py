"""Microphone and speaker, on devices that the test drives by hand."""

import asyncio
import sys

import numpy as np
import pytest

from client import devices
from client.devices import MICROPHONE_QUEUE_SECONDS, Microphone, Speaker, list_devices
from client.errors import SoundDeviceError
from streaming.audio import resample
from tests.client import fake_sounddevice
from tests.client.fake_sounddevice import Stream


@pytest.fixture(autouse=True)
def sounddevice(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)


def stereo(audio: np.ndarray) -> np.ndarray:
    return np.stack([audio, audio], axis=1)


async def test_the_microphone_gives_what_was_recorded_at_the_streams_rate():
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 9_600).astype(np.float32)
    with Microphone(16_000) as microphone:
        for start in range(0, audio.size, 960):
            Stream.last.record(stereo(audio[start : start + 960]))
        heard, wanted = [], resample(audio, 48_000, 16_000)
        async for packet in microphone:
            heard.append(packet)
            if sum(map(len, heard)) > 2_000:
                break
    joined = np.concatenate(heard)
    assert np.allclose(joined, wanted[: joined.size], atol=1e-6)
    assert Stream.last.state == "closed"


async def test_a_block_that_comes_while_one_waits_wakes_the_reader():
    with Microphone(48_000) as microphone:
        packets = aiter(microphone)
        waiting = asyncio.ensure_future(anext(packets))
        await asyncio.sleep(0)
        await asyncio.to_thread(Stream.last.record, np.full((960, 2), 0.25, np.float32))
        assert (await waiting).tolist() == [0.25] * 960
        await packets.aclose()


async def test_what_nobody_takes_is_counted_and_takes_no_memory():
    with Microphone(16_000) as microphone:
        for _ in range(round(MICROPHONE_QUEUE_SECONDS * 50) + 10):
            Stream.last.record(np.zeros((960, 2), np.float32))
        assert microphone.overflow_samples == 10 * 960


async def test_a_microphone_that_falls_silent_is_reported(monkeypatch):
    monkeypatch.setattr(devices, "SILENT_DEVICE_S", 0.01)
    gone = pytest.raises(SoundDeviceError, match=r"'Fake Mic' gave nothing .* unplugged")
    with Microphone(16_000) as microphone, gone:
        await anext(aiter(microphone))


async def test_the_speaker_plays_what_was_pushed_once_and_in_order():
    audio = np.linspace(0.1, 0.5, 4_800, dtype=np.float32)
    with Speaker(48_000, prefill_ms=50) as speaker:
        assert not Stream.last.play().any()
        speaker.push(audio[:2_000])
        assert not Stream.last.play().any()
        speaker.push(audio[2_000:])
        heard = [Stream.last.play() for _ in range(3)]
        speaker.finish()
        heard += [Stream.last.play() for _ in range(3)]
        await speaker.drained()
    joined = np.concatenate(heard)
    assert np.array_equal(joined[300:4_500], audio[300:4_500])
    assert not joined[4_800:].any()
    assert (speaker.underruns, speaker.played_seconds, speaker.queued_seconds) == (0, 0.1, 0)


async def test_clear_silences_the_speaker_within_one_block():
    with Speaker(48_000, prefill_ms=10) as speaker:
        speaker.push(np.full(48_000, 0.5, np.float32))
        Stream.last.play()
        speaker.clear()
        assert not Stream.last.play()[480:].any()
        assert not Stream.last.play().any()
        await speaker.drained()


async def test_the_end_is_played_and_a_failure_is_cut_off():
    with Speaker(48_000):
        pass
    assert Stream.last.state == "played to its end, closed"
    with pytest.raises(RuntimeError), Speaker(48_000):
        raise RuntimeError
    assert Stream.last.state == "closed"


async def test_waiting_for_the_speaker_ends_when_it_has_played_so_much():
    with Speaker(48_000, prefill_ms=10) as speaker:
        speaker.push(np.full(9_600, 0.5, np.float32))
        waiting = asyncio.ensure_future(speaker.reached(0.1))
        for _ in range(5):
            assert not waiting.done()
            await asyncio.to_thread(Stream.last.play)
            await asyncio.sleep(0)
        await asyncio.wait_for(waiting, 1)


async def test_a_speaker_that_takes_nothing_is_reported(monkeypatch):
    monkeypatch.setattr(devices, "SILENT_DEVICE_S", 0.01)
    with Speaker(48_000) as speaker:
        speaker.push(np.zeros(100, np.float32))
        with pytest.raises(SoundDeviceError, match=r"'Fake Speaker' took nothing .* unplugged"):
            await speaker.drained()


@pytest.mark.parametrize("device", ["fake", "0", 0, None])
async def test_a_device_is_chosen_by_number_or_part_of_its_name(device):
    with Microphone(16_000, device) as microphone:
        assert microphone.name == "Fake Mic"


async def test_a_device_that_is_not_there_is_named():
    with pytest.raises(SoundDeviceError, match=r"'Studio' failed: .*neucodec devices"), Microphone(16_000, "Studio"):
        pass
    with pytest.raises(SoundDeviceError, match="speaker 0 failed"), Speaker(16_000, 0):
        pass


def test_devices_are_listed_with_their_channels_rate_and_default():
    first, second = list_devices()
    assert first == {"index": 0, "name": "Fake Mic", "inputs": 2, "outputs": 0, "rate": 48_000, "default": True}
    assert second["outputs"] == 2


def test_a_missing_portaudio_library_is_named_with_the_remedy(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(SoundDeviceError, match="apt-get install libportaudio2"):
        list_devices()
