"""Log-mel features of clips that are shifted and mixed with noise anew in every epoch."""

import concurrent.futures
import functools

import numpy as np
from jaxtyping import Float

from jist.data.speech import BANDS, FRAMES, RATE, SAMPLES, Clips, log_mel, noise_recordings
from jist.placement import available_memory_bytes

SHIFT = RATE // 10  # samples: a clip is moved by at most 100 ms
NOISY = 0.8  # share of the clips that noise is added to
DECIBELS = (0.0, 40.0)  # power of a clip over that of its noise


class AugmentedClips:
    """The features of all clips of a split, once for every epoch, each time augmented differently.

    Every clip is moved by up to 100 ms, and noise is added to four of five: a part of a recording
    of `_background_noise_`, or white noise, 0 to 40 dB below the clip. The features are relative to
    a clip's maximum, so that a gain alone would change nothing: what counts is the noise's level.

    Waveforms stay in memory where they take at most a quarter of it, else they are read again in
    every epoch. What is drawn is a function of (seed, epoch, example id).

    Args:
        clips: the clips.
        seed: decides what is drawn.
    """

    def __init__(self, clips: Clips, *, seed: int):
        self.clips, self.seed = clips, seed
        self.noises = noise_recordings(clips)
        if len(clips) * SAMPLES * 4 <= available_memory_bytes() / 4:
            self._read = functools.lru_cache(maxsize=None)(clips.read)
        else:
            self._read = clips.read

    def __call__(self, epoch: int) -> Float[np.ndarray, "examples 4096"]:
        """The features [N, 4096] of an epoch, in the order of the clips."""
        features = np.empty((len(self.clips), BANDS * FRAMES), np.float32)

        def fill(row: int) -> None:
            draw = np.random.default_rng([self.seed, epoch, int(self.clips.example_ids[row])])
            features[row] = log_mel(augment(self._read(row), self.noises, draw)).ravel()

        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(len(self.clips))))
        return features


def augment(
    clip: Float[np.ndarray, "16000"],
    noises: list[Float[np.ndarray, "..."]],
    draw: np.random.Generator,
) -> Float[np.ndarray, "16000"]:
    """A clip, moved and with noise.

    Args:
        clip: its samples.
        noises: recordings of at least as many samples; white noise is one more.
        draw: what is drawn.
    """
    shift = int(draw.integers(-SHIFT, SHIFT + 1))
    moved = np.zeros_like(clip)
    moved[max(0, shift) : SAMPLES + min(0, shift)] = clip[max(0, -shift) : SAMPLES - max(0, shift)]
    if draw.random() >= NOISY:
        return moved
    which = int(draw.integers(len(noises) + 1))
    if which == len(noises):
        noise = draw.standard_normal(SAMPLES)
    else:
        start = int(draw.integers(len(noises[which]) - SAMPLES + 1))
        noise = noises[which][start : start + SAMPLES]
    power = np.mean(np.square(noise, dtype=np.float64))
    wanted = np.mean(np.square(clip, dtype=np.float64)) / 10 ** (draw.uniform(*DECIBELS) / 10)
    if not power or not wanted:  # silence
        return moved
    return moved + (np.sqrt(wanted / power) * noise).astype(np.float32)
