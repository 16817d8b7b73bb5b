import pathlib

import numpy as np
import pytest

from jist.data.speech import SAMPLES, Clips, log_mel
from jist.features import AugmentedClips
from jist.features import augmented_speech as speech

SECONDS = np.arange(SAMPLES) / SAMPLES
TONE = (0.3 * np.sin(2 * np.pi * 440 * SECONDS)).astype(np.float32)


class Tones(Clips):
    """Tones whose loudness is their key."""

    def read(self, index):
        return TONE * int(self.keys[index])


def tones(*keys):
    return Tones(
        name="speech:x",
        split="train",
        class_names=("tone",),
        keys=keys,
        labels=np.zeros(len(keys), np.int32),
        root=pathlib.Path("x"),
    )


@pytest.fixture(autouse=True)
def no_recordings(monkeypatch):
    monkeypatch.setattr(speech, "noise_recordings", lambda clips: [])


def test_an_epoch_is_a_function_of_seed_epoch_and_id():
    first, again = AugmentedClips(tones("1", "2"), seed=1), AugmentedClips(tones("1", "2"), seed=1)
    np.testing.assert_array_equal(first(3), again(3))
    assert not np.array_equal(first(3), first(4))
    assert not np.array_equal(first(3), AugmentedClips(tones("1", "2"), seed=2)(3))
    swapped = AugmentedClips(tones("2", "1"), seed=1)
    np.testing.assert_array_equal(swapped(3), first(3)[::-1])


def test_a_clip_is_moved_and_noise_added_at_the_power_that_was_drawn(monkeypatch):
    monkeypatch.setattr(speech, "NOISY", 1.0)
    monkeypatch.setattr(speech, "DECIBELS", (20.0, 20.0))
    monkeypatch.setattr(speech, "SHIFT", 0)
    noise = np.random.default_rng(0).standard_normal(2 * SAMPLES).astype(np.float32)
    for seed in range(4):  # white noise, and parts of the recording
        found = speech.augment(TONE, [noise], np.random.default_rng(seed))
        ratio = np.mean(TONE**2) / np.mean((found - TONE) ** 2)
        assert 10 * np.log10(ratio) == pytest.approx(20, abs=1e-3)


def test_moving_fills_with_silence(monkeypatch):
    monkeypatch.setattr(speech, "NOISY", 0.0)
    ramp = np.arange(1, SAMPLES + 1, dtype=np.float32)
    shifts = set()
    for seed in range(8):
        moved = speech.augment(ramp, [], np.random.default_rng(seed))
        shift = int(np.argmax(moved > 0)) - int(moved[np.argmax(moved > 0)] - 1)
        kept = slice(max(0, shift), SAMPLES + min(0, shift))
        np.testing.assert_array_equal(moved[kept], ramp[kept] - shift)
        assert np.count_nonzero(moved) == SAMPLES - abs(shift)
        shifts.add(shift)
    assert min(shifts) < 0 < max(shifts)


def test_silence_stays_silent_and_a_gain_changes_nothing():
    silence = np.zeros(SAMPLES, np.float32)
    np.testing.assert_array_equal(speech.augment(silence, [], np.random.default_rng(0)), silence)
    np.testing.assert_allclose(log_mel(TONE), log_mel(4 * TONE), atol=1e-3)
