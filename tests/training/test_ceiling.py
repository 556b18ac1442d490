"""Replacing properties of a model's output by those of the recording."""

import numpy as np

from training.ceiling import audio, spectrum, with_band, with_envelope

RECORDED, SAID = np.random.default_rng(0).standard_normal((2, 16_000)).astype(np.float32)
SAID *= np.linspace(0.1, 2.0, 16_000, dtype=np.float32)


def test_audio_of_a_spectrum_is_the_audio_that_it_was_computed_from():
    assert np.allclose(audio(spectrum(SAID), 16_000), SAID, atol=1e-5)


def test_a_replaced_envelope_leaves_the_phase_and_takes_the_energy():
    recorded, said = spectrum(RECORDED), spectrum(SAID)
    changed = with_envelope(recorded, said, frames=1)
    assert np.allclose(np.angle(changed), np.angle(said))
    assert np.allclose((np.abs(changed) ** 2).sum(axis=0), (np.abs(recorded) ** 2).sum(axis=0), rtol=1e-3)


def test_a_replaced_band_leaves_the_others():
    recorded, said = spectrum(RECORDED), spectrum(SAID)
    changed = with_band(recorded, said, 1000.0, 2000.0)
    inside = slice(32, 64)  # bins of 31.25 Hz
    assert np.array_equal(changed[inside], recorded[inside])
    assert np.array_equal(np.delete(changed, np.s_[inside], axis=0), np.delete(said, np.s_[inside], axis=0))
