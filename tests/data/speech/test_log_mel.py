import os

import numpy as np
import pytest

from jist.data.speech import BANDS, FRAMES, RATE, SAMPLES, log_mel
from jist.data.speech.spectrogram import mel_filters

# What librosa compiles while it is imported takes longer than all that is asked of it here.
os.environ.setdefault("NUMBA_OPT", "0")
librosa = pytest.importorskip("librosa")


def sounds():
    rng = np.random.default_rng(0)
    time = np.arange(SAMPLES) / RATE
    tone = np.sin(2 * np.pi * 440 * time)
    click = np.zeros(SAMPLES)
    click[0] = 1
    yield "noise", rng.standard_normal(SAMPLES) * 0.1
    yield "a tone, with bands at the floor", tone
    yield "fading noise", rng.standard_normal(SAMPLES) * np.exp(-20 * time)
    yield "a click at the very start", click
    yield "very quiet", tone * 1e-6
    yield "silence", np.zeros(SAMPLES)


@pytest.mark.parametrize("clip", [pytest.param(clip, id=name) for name, clip in sounds()])
def test_features_are_those_of_librosa(clip):
    clip = clip.astype(np.float32)
    mel = librosa.feature.melspectrogram(y=clip, sr=RATE)
    found = log_mel(clip)
    assert (found.shape, found.dtype) == ((BANDS, FRAMES), np.float32)
    np.testing.assert_allclose(found, librosa.power_to_db(mel, ref=np.max), rtol=0, atol=1e-3)


def test_the_filters_are_those_of_librosa():
    np.testing.assert_allclose(mel_filters(), librosa.filters.mel(sr=RATE, n_fft=2048), atol=1e-7)


def test_each_clip_of_a_batch_is_relative_to_its_own_maximum():
    clips = np.stack([clip for _, clip in sounds()])
    found = log_mel(clips)
    np.testing.assert_allclose(found, np.stack([log_mel(clip) for clip in clips]), atol=1e-4)
    np.testing.assert_array_equal(found.max(axis=(1, 2)), 0)
    assert found.min() == -80


def test_other_lengths_and_values_are_refused():
    with pytest.raises(ValueError, match="16000 samples, got 15999"):
        log_mel(np.zeros(SAMPLES - 1))
    with pytest.raises(ValueError, match="finite"):
        log_mel(np.full(SAMPLES, np.nan))
