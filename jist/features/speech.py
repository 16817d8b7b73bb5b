"""Log-mel features of clips, written to disk in the format of CLS features."""

import concurrent.futures
import os
import pathlib

import numpy as np
from jaxtyping import Float
from rich.progress import Progress

from jist import store
from jist.data.speech import BANDS, FRAMES, Clips, log_mel
from jist.features.stored import CHUNK, Features, create, load, said_above


def extract_speech(
    clips: Clips, out: str | os.PathLike, *, progress: Progress | None = None
) -> Features:
    """Computes the log-mel features of every clip, or resumes doing so; clips are read in threads.

    Args:
        clips: the clips of a split.
        out: directory of the store; made if missing.
        progress: shows a bar, if given.

    Returns:
        The features, as `load` does; `cls` is [N, 4096], 32 frames of the first mel band first.

    Raises:
        ValueError: `out` holds features of other data (the fields that differ are named).
        UnreadableClipError: a clip cannot be decoded.
    """
    out = pathlib.Path(out)
    attributes = clips.describe() | {
        "features": {"kind": "log-mel", "bands": BANDS, "frames": FRAMES},
        "versions": store.versions("jist", "numpy", "scipy"),
    }
    arrays = create(out, len(clips), BANDS * FRAMES, attributes)
    todo = store.chunks_to_write(out, arrays, CHUNK, said_above(progress))
    bar = progress and progress.add_task(
        f"{clips.split} clips",
        total=len(clips),
        completed=len(clips) - sum(len(chunk) for chunk in todo),
    )

    def features(row: int) -> Float[np.ndarray, "4096"]:
        found = log_mel(clips.read(row)).ravel()
        if progress is not None and bar is not None:
            progress.update(bar, advance=1)
        return found

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for chunk in todo:
            rows = slice(chunk.start, chunk.stop)
            cls = np.stack(list(pool.map(features, chunk)))
            store.write(arrays["label"][rows], clips.labels[rows])
            store.write(arrays["example_id"][rows], clips.example_ids[rows])
            store.write(arrays["cls"][rows], cls)
    attributes = store.read_attributes(out) | {"skipped": [], "empty": []}
    store.finish_group(out, attributes, arrays, CHUNK)
    return load(out)
