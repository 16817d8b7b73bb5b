"""Log-mel features, as librosa's defaults give them (VLDB §3.1: 4096 features of a clip)."""

import functools

import numpy as np
from jaxtyping import Float

from jist.data.speech.waveform import RATE, SAMPLES

BANDS = 128
FRAMES = 32  # 1 + SAMPLES // HOP: one frame around every HOP-th sample
FFT = 2048  # samples of a frame
HOP = 512  # samples from frame to frame
FLOOR = 80.0  # dB below the maximum of a clip
_LEAST = 1e-10  # power; less counts as this much


def log_mel(clips: Float[np.ndarray, "*batch samples"]) -> Float[np.ndarray, "*batch 128 32"]:
    """The power of every mel band in every frame, in dB relative to the maximum of the clip.

    As `librosa.power_to_db(librosa.feature.melspectrogram(y=clip, sr=16000), ref=np.max)`: a
    periodic Hann window, zeros beyond both ends of the clip, Slaney's mel scale, bands of equal
    area. A clip of zeros is 0 dB throughout, as there.

    Args:
        clips: waveforms [..., 16000] at 16 kHz.

    Returns:
        The features [..., 128, 32] float32, in [-80, 0].

    Raises:
        ValueError: a clip has another number of samples, or a value that is not finite.
    """
    if clips.shape[-1] != SAMPLES:
        raise ValueError(f"clips must have {SAMPLES} samples, got {clips.shape[-1]}")
    if not np.isfinite(clips).all():
        raise ValueError("clips must be finite, got NaN or infinity")
    ends = [(0, 0)] * (clips.ndim - 1) + [(FFT // 2, FFT // 2)]
    # In double precision: in single, bands far below the maximum are off by 1e-4 dB.
    padded = np.pad(clips.astype(np.float64), ends)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT, axis=-1)[..., ::HOP, :]
    hann = np.hanning(FFT + 1)[:-1]
    spectrum = np.fft.rfft(frames * hann)
    power = spectrum.real**2 + spectrum.imag**2  # [..., frames, FFT // 2 + 1]
    # A frequency lies in two bands at most. A dense product would be slower, and its threads would
    # fight those that read clips.
    mel = _sparse_filters() @ power.reshape(-1, power.shape[-1]).T  # [bands, clips · frames]
    mel = np.moveaxis(mel.reshape(BANDS, *power.shape[:-1]), 0, -2)
    decibel = 10 * np.log10(np.maximum(mel, _LEAST))
    decibel -= decibel.max(axis=(-1, -2), keepdims=True)
    return np.maximum(decibel, -FLOOR).astype(np.float32)


@functools.cache
def mel_filters() -> Float[np.ndarray, "bands frequencies"]:
    """The weight of every frequency of the FFT in every mel band [128, 1025].

    Triangles whose corners are evenly spaced in mel between 0 Hz and half the rate, each of area 1
    in Hz, on both sides of its peak.
    """
    corners = _hertz(np.linspace(0, _mel(RATE / 2), BANDS + 2))
    low, peak, high = (corners[at : at + BANDS, None] for at in range(3))
    frequency = np.fft.rfftfreq(FFT, 1 / RATE)
    rising, falling = (frequency - low) / (peak - low), (high - frequency) / (high - peak)
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    filters.setflags(write=False)  # everybody gets the same array
    return filters


@functools.cache
def _sparse_filters():
    from scipy.sparse import csr_array  # takes every script half a second to import

    return csr_array(mel_filters())


# Slaney's scale: linear below 1000 Hz, which is mel 15, logarithmic above: 27 mel for a factor 6.4.
_LINEAR = 200 / 3  # Hz per mel
_CORNER = 1000.0
_STEP = np.log(6.4) / 27


def _mel(hertz: float) -> float:
    if hertz < _CORNER:
        return hertz / _LINEAR
    return _CORNER / _LINEAR + np.log(hertz / _CORNER) / _STEP


def _hertz(mel: np.ndarray) -> np.ndarray:
    above = _CORNER * np.exp(_STEP * (mel - _CORNER / _LINEAR))
    return np.where(mel < _CORNER / _LINEAR, _LINEAR * mel, above)
