"""The clips of a directory in the Speech Commands layout, and which of them are for testing.

A clip is `<word>/<speaker>_nohash_<k>.wav` (or `.flac`): version 0.02 with its 35 words, or the 12
classes of the benchmark, whose `_unknown_` clips are called `<word>_<speaker>_nohash_<k>` and whose
`_silence_` clips have no speaker.
"""

import dataclasses
import hashlib
import os
import pathlib
import re

import numpy as np
from jaxtyping import Float

from jist.data.dataset import Examples
from jist.data.errors import DataError
from jist.data.speech.waveform import SAMPLES, SUFFIXES, read_clip, read_recording
from jist.data.walked import Walked

SILENCE = "_silence_"
NOISE = "_background_noise_"  # recordings to mix in, no class
SPLITS = ("train", "validation", "test")
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
# Names may end in `.wav.wav`, as the benchmark's `_unknown_` ones do.
_NAME = re.compile(r"(?:.+_)?(?P<speaker>[^_]+)_nohash_\d+(?:\.\w+)+")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Clips(Examples):
    """The clips of one split; keys are their paths relative to `root`, with slashes.

    Attributes:
        root: the directory above the words.
    """

    root: pathlib.Path

    def read(self, index: int) -> Float[np.ndarray, "16000"]:
        """Reads a clip, as `read_clip`; safe to call from several threads.

        Raises:
            UnreadableClipError: it cannot be decoded; the message says which.
        """
        return read_clip(self.locate(index))

    def locate(self, index: int) -> str:
        """The path of the file."""
        return os.path.join(self.root, self.keys[index])


def load_speech(
    path: str | os.PathLike,
    split: str,
    *,
    test_share: float = 0.2,
    base: str | os.PathLike = "",
) -> Clips:
    """Finds the clips of a split. No speaker is in two splits.

    Classes are the directories that hold the words, in the order of their names. With
    `testing_list.txt` the split is the published one, and `validation_list.txt`, if it is there, is
    the split "validation". Without, the SHA-1 of the speaker decides, or for `_silence_` clips that
    of the file name: adding clips moves no other.

    Args:
        path: the directory of the words.
        split: "train", "test", or "validation" where there is a list of it.
        test_share: share of the speakers held out for testing where there is no list.
        base: where a relative path begins, in place of the working directory.

    Raises:
        ValueError: `path` is no directory, no such split, or a share outside (0, 1).
        DataError: there is no word, a word without clip, a clip whose name shows no speaker, a list
            that does not fit the clips (its line is named), a speaker in two splits, an empty
            split, or a word that is a symbolic link to another.
    """
    root = base / pathlib.Path(path).expanduser()
    if not os.fspath(path) or not root.is_dir():
        raise ValueError(f"speech:PATH needs the path of a directory, {os.fspath(path)!r} is none")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must lie in (0, 1), got {test_share}")
    words = sorted(
        entry.name
        for entry in root.iterdir()
        if entry.is_dir() and entry.name != NOISE and not entry.name.startswith(".")
    )
    if not words:
        raise DataError(f"{root} holds no directory; expected one directory of clips per word")
    walked = Walked()
    for word in words:
        walked.add(root / word)
    found = [_clips(root, word) for word in words]
    keys = [key for some in found for key in some]
    labels = np.repeat(np.arange(len(words), dtype=np.int32), [len(some) for some in found])
    speakers = [_speaker(root, key) for key in keys]
    splits = _published(root, keys, words)
    if splits is None:
        if split == "validation":
            raise ValueError(f"split='validation' needs {root / LISTS['validation']}")
        splits = ["test" if _place(speaker) < test_share else "train" for speaker in speakers]
    else:
        _check_speakers(root, keys, speakers, splits)
    rows = [row for row, its in enumerate(splits) if its == split]
    if not rows:
        raise DataError(f"{root}: no clip is in the split {split!r}, of {len(keys)} in all")
    return Clips(
        name=f"speech:{os.fspath(path)}",
        split=split,
        class_names=tuple(words),
        keys=tuple(keys[row] for row in rows),
        labels=labels[rows],
        root=root,
    )


def speech_splits(path: str | os.PathLike, base: str | os.PathLike = "") -> tuple[str, ...]:
    """The splits of a directory of clips: "validation" is among them where both lists are."""
    root = base / pathlib.Path(path).expanduser()
    listed = all((root / name).is_file() for name in LISTS.values())
    return tuple(split for split in SPLITS if listed or split != "validation")


def noise_recordings(clips: Clips) -> list[Float[np.ndarray, " samples"]]:
    """The recordings of background noise beside some clips, each at least as long as a clip.

    Raises:
        UnreadableClipError: one cannot be decoded.
    """
    directory = clips.root / NOISE
    if not directory.is_dir():
        return []
    names = sorted(p for p in directory.iterdir() if p.suffix.lower() in SUFFIXES)
    found = [read_recording(path) for path in names]
    return [noise for noise in found if len(noise) >= SAMPLES and noise.any()]


def _clips(root: pathlib.Path, word: str) -> list[str]:
    names = sorted(
        name
        for name in os.listdir(root / word)
        if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
    )
    if not names:
        raise DataError(
            f"directory {root / word} holds no clip; looked for files ending in "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return [f"{word}/{name}" for name in names]


def _speaker(root: pathlib.Path, key: str) -> str:
    """Who speaks in a clip; of silence, the key, which differs from every speaker by its slash."""
    word, name = key.split("/")
    if word == SILENCE:
        return key
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"the name of clip {root / key} shows no speaker; expected SPEAKER_nohash_NUMBER"
        )
    return match["speaker"]


def _place(speaker: str) -> float:
    """A place in [0, 1) by the SHA-1 of the speaker.

    From its first bytes: the published split looks at the last 27 bits, so a published test set can
    be split again.
    """
    digest = hashlib.sha1(speaker.encode("utf-8", "surrogateescape"), usedforsecurity=False)
    return int.from_bytes(digest.digest()[:4], "big") / 2**32


def _published(root: pathlib.Path, keys: list[str], words: list[str]) -> list[str] | None:
    """The split of every clip by the lists; None where there is no list.

    Entries of words that are not there are passed over: the lists fit a part of the words, too.
    """
    if not (root / LISTS["test"]).is_file():
        if (root / LISTS["validation"]).is_file():
            raise DataError(f"{root} holds {LISTS['validation']} but not {LISTS['test']}")
        return None
    splits = dict.fromkeys(keys, "train")
    for split, name in LISTS.items():
        if not (root / name).is_file():
            continue
        text = (root / name).read_text("utf-8", "surrogateescape")
        for number, line in enumerate(text.splitlines(), start=1):
            entry = line.strip()
            if not entry or (entry.split("/")[0] not in words and "/" in entry):
                continue
            where = f"{root / name}, line {number}: {entry!r}"
            if entry not in splits:
                raise DataError(f"{where} is no clip of {root}")
            if splits[entry] not in ("train", split):
                raise DataError(f"{where} is in {LISTS[splits[entry]]}, too")
            splits[entry] = split
    return [splits[key] for key in keys]


def _check_speakers(
    root: pathlib.Path, keys: list[str], speakers: list[str], splits: list[str]
) -> None:
    first: dict[str, int] = {}
    for row, speaker in enumerate(speakers):
        other = first.setdefault(speaker, row)
        if splits[other] != splits[row]:
            raise DataError(
                f"{root}: speaker {speaker} is in two splits by the lists: {keys[other]} in "
                f"{splits[other]!r}, {keys[row]} in {splits[row]!r}"
            )
