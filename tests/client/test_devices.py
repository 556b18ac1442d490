"""Microphone and speaker, on devices that the test drives by hand."""

import asyncio
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from neucodec_streaming.client import devices
from neucodec_streaming.client.devices import MICROPHONE_QUEUE_SECONDS, Microphone, Speaker, find_device, list_devices
from neucodec_streaming.client.errors import SoundDeviceError
from neucodec_streaming.resampler import resample
from tests.client import fake_sounddevice
from tests.client.fake_sounddevice import LEAD_S, Stream, made_device


@pytest.fixture(autouse=True)
def sounddevice(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice)


def stereo(audio: np.ndarray) -> np.ndarray:
    return np.stack([audio, audio], axis=1)


async def test_the_microphone_yields_its_audio_at_the_streams_rate():
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 9_600).astype(np.float32)
    with Microphone(16_000) as microphone:
        for start in range(0, audio.size, 480):
            Stream.last.record(stereo(audio[start : start + 480]))
        heard, wanted = [], resample(audio, 48_000, 16_000)
        async for packet in microphone:
            heard.append(packet)
            if sum(map(len, heard)) > 2_000:
                break
    joined = np.concatenate(heard)
    assert np.allclose(joined, wanted[: joined.size], atol=1e-6)
    assert Stream.last.state == "closed"


async def test_a_new_block_wakes_a_waiting_reader():
    with Microphone(48_000) as microphone:
        packets = aiter(microphone)
        waiting = asyncio.ensure_future(anext(packets))
        await asyncio.sleep(0)
        await asyncio.to_thread(Stream.last.record, np.full((480, 2), 0.25, np.float32))
        assert (await waiting).tolist() == [0.25] * 480
        await packets.aclose()


async def test_overflow_is_counted_and_memory_is_bounded():
    with Microphone(16_000) as microphone:
        for _ in range(round(MICROPHONE_QUEUE_SECONDS * 100) + 10):
            Stream.last.record(np.zeros((480, 2), np.float32))
        assert microphone.overflow_samples == 10 * 480
        Stream.last.record(np.zeros((480, 2), np.float32), overflow=True)
        assert microphone.overflow_samples == 12 * 480


async def test_the_latency_is_never_negative():
    with Microphone(16_000) as microphone:
        times = SimpleNamespace(currentTime=1.0, inputBufferAdcTime=1.004)
        Stream.last.callback(np.zeros((480, 2), np.float32), 480, times, SimpleNamespace(input_overflow=False))
        assert microphone.latency_ms == 0


async def test_a_microphone_that_stops_delivering_is_reported(monkeypatch):
    monkeypatch.setattr(devices, "SILENT_DEVICE_S", 0.01)
    gone = pytest.raises(SoundDeviceError, match=r"'Fake Mic' delivered no samples .* plugged in")
    with Microphone(16_000) as microphone, gone:
        await anext(aiter(microphone))


async def test_a_microphone_counts_as_muted_after_three_seconds_of_zeros():
    with Microphone(16_000) as microphone:
        for _ in range(300):
            assert not microphone.is_muted
            Stream.last.record(np.zeros((480, 2), np.float32))
        assert microphone.is_muted
        Stream.last.record(np.full((480, 2), 1e-5, np.float32))
        assert not microphone.is_muted


async def test_audio_before_unplugging_is_delivered_before_the_error():
    with Microphone(48_000) as microphone:
        packets = aiter(microphone)
        Stream.last.record(np.full((480, 2), 0.25, np.float32))
        Stream.last.unplug()
        assert (await anext(packets)).size == 480
        with pytest.raises(SoundDeviceError, match=r"'Fake Mic' stopped: check that it is plugged in"):
            await anext(packets)


async def test_a_device_without_48_khz_is_opened_at_its_own_rate(monkeypatch):
    monkeypatch.setattr(fake_sounddevice, "DEVICES", [made_device(0, "Old Headset", 1, 6, 8_000.0)])
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (8_000, 1)).astype(np.float32)
    with Microphone(16_000) as microphone:
        assert (microphone.device_rate, Stream.last.channels) == (8_000, 1)
        for start in range(0, 8_000, 80):
            Stream.last.record(audio[start : start + 80].copy())
        heard = 0
        async for packet in microphone:
            heard += packet.size
            if heard > 12_000:
                break
    with Speaker(24_000) as speaker:
        assert (speaker.device_rate, Stream.last.channels) == (8_000, 2)
        speaker.push(np.full(24_000, 0.25, np.float32))
        speaker.finish()
        played = np.concatenate([Stream.last.play() for _ in range(110)])
    assert np.count_nonzero(np.abs(played - 0.25) < 1e-2) > 0.97 * 8_000


async def test_the_speaker_plays_pushed_audio_once_and_in_order():
    audio = np.linspace(0.1, 0.5, 4_800, dtype=np.float32)
    with Speaker(48_000, chunk_ms=20) as speaker:
        assert not Stream.last.play().any()
        speaker.push(audio[:2_000])
        assert not Stream.last.play().any()
        speaker.push(audio[2_000:])
        heard = [Stream.last.play() for _ in range(6)]
        speaker.finish()
        heard += [Stream.last.play() for _ in range(10)]
        await speaker.drained()
    joined = np.concatenate(heard)
    assert np.array_equal(joined[300:4_500], audio[300:4_500])
    assert not joined[4_800:].any()
    assert (speaker.underruns, speaker.position, speaker.queued_seconds) == (0, 4_800, 0)


async def test_the_heard_position_lags_by_the_latency_of_the_device():
    with Speaker(48_000) as speaker:
        speaker.push(np.full(48_000, 0.5, np.float32))
        for _ in range(20):
            Stream.last.play()
        assert speaker.position == 20 * 480
        assert speaker.heard_position == 20 * 480 - round(LEAD_S * 48_000)
        speaker.clear()
        for _ in range(20):
            Stream.last.play()
        assert 20 * 480 < speaker.heard_position == speaker.position <= 20 * 480 + 240


async def test_the_heard_position_is_known_after_an_interruption():
    with pytest.raises(KeyboardInterrupt), Speaker(48_000) as speaker:
        speaker.push(np.full(48_000, 0.5, np.float32))
        for _ in range(20):
            Stream.last.play()
        raise KeyboardInterrupt
    assert speaker.heard_position == 20 * 480 - round(LEAD_S * 48_000)


async def test_positions_count_the_streams_samples_at_any_device_rate():
    with Speaker(24_000) as speaker:
        speaker.push(np.full(12_000, 0.5, np.float32))
        speaker.finish()
        while speaker.heard_position < 12_000:
            Stream.last.play()
        assert speaker.position == 12_000
        await speaker.drained()


async def test_clear_silences_the_speaker_within_20_ms():
    with Speaker(48_000) as speaker:
        speaker.push(np.full(48_000, 0.5, np.float32))
        Stream.last.play()
        speaker.clear()
        assert not Stream.last.play()[240:].any()
        assert not Stream.last.play().any()
        await asyncio.wait_for(heard_out(speaker), 1)


async def heard_out(speaker: Speaker) -> None:
    drained = asyncio.ensure_future(speaker.drained())
    while not drained.done():
        Stream.last.play()
        await asyncio.sleep(0)


async def test_the_end_is_played_and_a_failure_is_cut_off():
    with Speaker(48_000):
        pass
    assert Stream.last.state == "played to its end, closed"
    with pytest.raises(RuntimeError), Speaker(48_000):
        raise RuntimeError
    assert Stream.last.state == "closed"


async def test_waiting_for_the_speaker_ends_at_the_requested_position():
    with Speaker(48_000) as speaker:
        speaker.push(np.full(9_600, 0.5, np.float32))
        waiting = asyncio.ensure_future(speaker.reached(0.1))
        for _ in range(10):
            assert not waiting.done()
            await asyncio.to_thread(Stream.last.play)
            await asyncio.sleep(0)
        await asyncio.wait_for(waiting, 1)


async def test_a_speaker_that_never_pulls_audio_is_reported(monkeypatch):
    monkeypatch.setattr(devices, "SILENT_DEVICE_S", 0.01)
    with Speaker(48_000) as speaker:
        speaker.push(np.zeros(100, np.float32))
        with pytest.raises(SoundDeviceError, match=r"'Fake Speaker' accepted no samples .* plugged in"):
            await speaker.drained()


async def test_device_underruns_are_counted():
    with Speaker(48_000) as speaker:
        Stream.last.play()
        Stream.last.play(underflow=True)
        assert speaker.underflows == 1


async def test_a_speaker_that_stops_is_reported():
    with Speaker(48_000) as speaker:
        speaker.push(np.zeros(100, np.float32))
        Stream.last.unplug()
        with pytest.raises(SoundDeviceError, match=r"'Fake Speaker' stopped: check that it is plugged in"):
            await speaker.drained()


@pytest.mark.parametrize("device", ["fake", "fake mic", "0", 0, None])
async def test_a_device_is_chosen_by_number_or_part_of_its_name(device):
    with Microphone(16_000, device) as microphone:
        assert microphone.name == "Fake Mic"


async def test_a_missing_device_is_named_with_the_available_ones():
    missing = pytest.raises(
        SoundDeviceError, match=r"input device 'Studio' is not among: 0 'Fake Mic' \(ALSA\) .*neucodec devices"
    )
    with missing, Microphone(16_000, "Studio"):
        pass
    with pytest.raises(SoundDeviceError, match="output device 0 failed"), Speaker(16_000, 0):
        pass


async def test_a_name_that_fits_several_devices_is_an_error_that_lists_them(monkeypatch):
    names = ("USB Mic", "USB Mic Stereo", "HDMI", "Built-in Mic")
    devices = [made_device(index, name, name != "HDMI", name == "HDMI") for index, name in enumerate(names)]
    monkeypatch.setattr(fake_sounddevice, "DEVICES", devices)
    devices[1]["hostapi"] = 1
    several = r"ambiguous: 0 'USB Mic' \(ALSA\), 1 'USB Mic Stereo' \(JACK\), 3 'Built-in Mic' \(ALSA\); give more"
    with pytest.raises(SoundDeviceError, match=several), Microphone(16_000, "mic"):
        pass
    for wanted, index in (("usb mic", 0), ("stereo", 1), ("BUILT", 3), ("3", 3)):
        assert find_device(wanted, "input")["index"] == index


def test_devices_are_listed_with_their_channels_rate_and_default():
    first, second = list_devices()
    channels = {"inputs": 2, "outputs": 0, "rate": 48_000}
    assert first == {"index": 0, "name": "Fake Mic", "host_api": "ALSA", **channels, "default": True}
    assert second["outputs"] == 1


def test_a_missing_portaudio_library_is_named_with_the_remedy(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(SoundDeviceError, match="apt-get install libportaudio2"):
        list_devices()
