"""Spoken words: clips in the Speech Commands layout, their split by speaker, their features.

`waveform` reads a file (`riff` what the standard library does not), `spectrogram` turns a waveform
into features, `clips` finds the files of a split.
"""

from jist.data.speech.clips import LISTS, Clips, load_speech, noise_recordings, speech_splits
from jist.data.speech.spectrogram import BANDS, FRAMES, log_mel
from jist.data.speech.waveform import (
    RATE,
    SAMPLES,
    SUFFIXES,
    UnreadableClipError,
    read_clip,
    read_recording,
)

__all__ = [
    "BANDS",
    "FRAMES",
    "LISTS",
    "RATE",
    "SAMPLES",
    "SUFFIXES",
    "Clips",
    "UnreadableClipError",
    "load_speech",
    "log_mel",
    "noise_recordings",
    "read_clip",
    "read_recording",
    "speech_splits",
]
