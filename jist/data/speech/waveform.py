"""The waveform of an audio file: one second, one channel, 16 kHz.

WAV files of integers are read by the standard library: it needs no package, and it shows where a
file is cut short, which libsndfile reads as a shorter clip. What it does not know, floating point
and the extensible header, `riff` reads. Only FLAC needs `soundfile` (`.[speech]`).
"""

import math
import os
import wave
from typing import Any

import numpy as np
from jaxtyping import Float

from jist.data.errors import DataError
from jist.data.speech import riff

RATE = 16_000  # samples per second
SAMPLES = 16_000  # of a clip
SUFFIXES = frozenset({".wav", ".flac"})


class UnreadableClipError(DataError):
    """An audio file cannot be decoded; the message names it."""


def read_clip(path: str | os.PathLike) -> Float[np.ndarray, "16000"]:
    """Reads a clip: the mean of its channels, at `RATE`, padded with zeros or cut to `SAMPLES`.

    Args:
        path: a WAV file of 8, 16, 24 or 32 bits (integers), or of 32 or 64 (floating point), with a
            plain or an extensible header; or a FLAC file.

    Returns:
        The samples [16000] float32, in [-1, 1] unless resampling overshoots.

    Raises:
        UnreadableClipError: it is missing, damaged, cut short, empty or of another encoding, holds
            a number that is not finite, or is FLAC without `soundfile`; the message names the file.
    """
    mono = read_recording(path)[:SAMPLES]
    return np.pad(mono, (0, SAMPLES - len(mono)))


def read_recording(path: str | os.PathLike) -> Float[np.ndarray, " samples"]:
    """Reads a recording of any length: the mean of its channels, at `RATE`, float32.

    Raises:
        UnreadableClipError: as `read_clip`.
    """
    flac = os.path.splitext(path)[1].lower() == ".flac"
    samples, rate = _read_flac(path) if flac else _read_wav(path)
    if not len(samples):
        raise _unreadable(path, "it holds no samples")
    mono = samples.mean(axis=1)
    if rate != RATE:
        from scipy.signal import resample_poly  # takes every script a second to import

        common = math.gcd(rate, RATE)
        mono = resample_poly(mono, RATE // common, rate // common)
    return mono.astype(np.float32)


def _read_wav(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Samples [N, channels] float64 in [-1, 1), and their rate."""
    try:
        with wave.open(os.fspath(path), "rb") as file:
            channels, width, rate, frames, *_ = file.getparams()
            data = file.readframes(frames)
    except (wave.Error, EOFError, OSError) as error:
        if isinstance(error, wave.Error) and str(error).startswith("unknown"):  # "... format: 3"
            return _read_other_wav(path)
        reason = getattr(error, "strerror", None) or str(error) or "the header is cut short"
        raise _unreadable(path, reason) from error
    _check(path, data, channels=channels, width=width, rate=rate, frames=frames)
    return _decode(data, width).reshape(frames, channels), rate


def _read_other_wav(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """As `_read_wav`, of floating point or with an extensible header; any finite numbers."""
    try:
        found = riff.read(path)
    except (ValueError, OSError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
    channels, width = found.channels, found.width
    shape: dict[str, Any] = {
        "channels": channels,
        "width": width,
        "rate": found.rate,
        "frames": found.frames,
    }
    if found.encoding == riff.INTEGERS:
        _check(path, found.data, **shape)
        samples = _decode(found.data, width)
    elif found.encoding == riff.FLOATS:
        _check(path, found.data, **shape, widths=(4, 8))
        samples = np.frombuffer(found.data, f"<f{width}").astype(np.float64)
        wrong = np.flatnonzero(~(np.abs(samples) <= np.finfo(np.float32).max))
        if len(wrong):
            at = int(wrong[0])
            raise _unreadable(path, f"sample {at // channels} is {samples[at]}")
    else:
        raise _unreadable(
            path,
            f"unknown format: {found.encoding}; integers (PCM) and floating point can be read "
            "(ffmpeg -i IN.wav -c:a pcm_s16le OUT.wav converts others)",
        )
    return samples.reshape(found.frames, channels), found.rate


def _check(
    path: str | os.PathLike,
    data: bytes,
    *,
    channels: int,
    width: int,
    rate: int,
    frames: int,
    widths: tuple[int, ...] = (1, 2, 3, 4),
) -> None:
    """Refuses what a header says that cannot be, or that is not there."""
    if rate < 1:
        raise _unreadable(path, f"its header says {rate} samples per second")
    if width not in widths:
        allowed = ", ".join(str(8 * each) for each in widths[:-1]) + f" and {8 * widths[-1]}"
        raise _unreadable(path, f"samples of {8 * width} bits; {allowed} can be read")
    if len(data) != frames * channels * width:
        found = len(data) // (channels * width)
        raise _unreadable(path, f"cut short: {found} of {frames} samples are there")


def _decode(data: bytes, width: int) -> np.ndarray:
    """Little-endian integers of `width` bytes as numbers in [-1, 1); 8 bits are unsigned."""
    if width == 1:
        return (np.frombuffer(data, np.uint8) - 128.0) / 128
    # The bytes of a sample become the upper ones of 32 bits.
    wide = np.zeros((len(data) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return wide.view("<i4")[:, 0] / 2.0**31


def _read_flac(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    try:
        import soundfile
    except ImportError as error:
        raise _unreadable(
            path, "FLAC needs the package soundfile: pip install -e '.[speech]'"
        ) from error
    try:
        return soundfile.read(path, dtype="float64", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(path, " ".join(str(error).split())) from error


def _unreadable(path: str | os.PathLike, reason: str) -> UnreadableClipError:
    return UnreadableClipError(f"cannot read clip {os.fspath(path)}: {reason}")
