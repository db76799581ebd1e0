"""Log-mel spectra against a slow and plain computation: the definition, in float64, one frame at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.speech.mel import log_mel


def slaney(hertz):
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def triangles():
    """Each filter by its definition: a peak at one mel mark, nothing at its neighbours, of area one hertz."""
    marks = [index * slaney(8000) / 81 for index in range(82)]
    hertz = [m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27) for m in marks]
    made = np.zeros((80, 201))
    for band in range(80):
        low, peak, high = hertz[band : band + 3]
        for k in range(201):
            f = 40 * k
            height = (f - low) / (peak - low) if f <= peak else (high - f) / (high - peak)
            made[band, k] = max(0.0, height) * 2 / (high - low)
    return made


def slowly(samples, frames):
    """As OpenAI writes it: pad with silence, mirror the ends, transform every frame by the sum that defines it."""
    sound = np.zeros(frames * 160)
    sound[: min(len(samples), len(sound))] = samples[: len(sound)]
    sound = np.pad(sound, 200, mode="reflect")
    window = np.array([math.sin(math.pi * n / 400) ** 2 for n in range(400)])
    waves = np.exp(-2j * np.pi * np.outer(np.arange(201), np.arange(400)) / 400)
    power = np.stack([np.abs(waves @ (window * sound[160 * t : 160 * t + 400])) ** 2 for t in range(frames)], axis=1)
    levels = np.log10(np.maximum(triangles() @ power, 1e-10))
    return (np.maximum(levels, levels.max() - 8) + 4) / 4


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 4), (1, 4), (159, 4), (160, 4), (1000, 20), (3200, 20), (5000, 20)]
)
def test_a_spectrum_is_what_its_definition_says(samples, frames):
    sound = np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)
    made = log_mel(sound, frames)
    assert made.dtype == np.float32
    assert made.shape == (80, frames)
    np.testing.assert_allclose(made, slowly(sound, frames), atol=2e-5)


def test_a_quiet_sound_is_cut_eighty_decibels_below_its_loudest_moment():
    time = np.arange(8000) / 16000
    sound = np.where(time < 0.25, np.sin(2 * np.pi * 440 * time), 1e-9).astype(np.float32)
    made = log_mel(sound, 50)
    np.testing.assert_allclose(made, slowly(sound, 50), atol=2e-5)
    assert made.max() - made.min() == pytest.approx(2.0, abs=1e-5)


def test_the_window_of_training_is_the_same_as_a_short_one_where_there_is_sound():
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, 16000).astype(np.float32)
    full, short = log_mel(sound), log_mel(sound, 150)
    assert full.shape == (80, 3000)
    np.testing.assert_array_equal(full[:, :150], short)
    assert np.ptp(full[:, 150:]) == 0.0


def test_a_window_may_be_blank_behind_the_sound():
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, 3200).astype(np.float32)
    plain, blank = log_mel(sound, 40), log_mel(sound, 40, blank=True)
    np.testing.assert_array_equal(blank[:, :21], plain[:, :21])
    assert not blank[:, 21:].any()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 4000), st.integers(2, 30), st.floats(0, 1e4))
def test_any_sound_gives_finite_numbers(samples, frames, loudness):
    sound = (np.random.default_rng(1).standard_normal(samples) * loudness).astype(np.float32)
    assert np.isfinite(log_mel(sound, frames)).all()
