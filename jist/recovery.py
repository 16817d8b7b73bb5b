"""What a kill or a damaged disk left of a run's checkpoints, set right before they are opened.

A checkpoint is a directory named by its epoch. A kill may fall between writing a new one and
removing the old, and a disk may damage one: what is kept then must still follow from what was
reached alone.
"""

import json
import logging
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import tensorstore as ts

from jist.digests import check_digests, has_digests
from jist.reasons import reason_of

logger = logging.getLogger(__name__)


def set_right(
    directory: pathlib.Path,
    *,
    keep: int,
    merit: Callable[[Mapping[str, Any]], float] | None,
) -> int | None:
    """Sets damaged last checkpoints aside, and removes what should have been removed.

    Damaged ones that are newer than the newest whole one become `damaged-EPOCH`, so that their
    epochs can be saved again; that is logged as a warning. If none is whole, nothing is touched.

    Args:
        directory: holds the checkpoints; need not exist.
        keep: how many of the last are kept.
        merit: how good metrics are, the higher the better; the best checkpoint is kept as well,
            the first of equals. None if none is.

    Returns:
        The newest whole epoch; None if there is none.
    """
    found = epochs_in(directory)
    damaged: dict[int, str] = {}
    for epoch in reversed(found):
        try:
            check_whole(directory / str(epoch))
            read_metrics(directory / str(epoch))
            break
        except Exception as error:  # of a damaged file any reader raises anything
            damaged[epoch] = reason_of(error)
    if len(damaged) == len(found):
        return None
    whole = found[: len(found) - len(damaged)]
    for epoch, reason in damaged.items():
        aside = directory / f"damaged-{epoch}"
        shutil.rmtree(aside, ignore_errors=True)
        (directory / str(epoch)).rename(aside)
        logger.warning(
            "the checkpoint of epoch %d is damaged and now called %s: %s; going on from that of "
            "epoch %d, and training again what came after it",
            *(epoch, aside, reason, whole[-1]),
        )
    for epoch in superfluous(directory, whole, keep, merit):
        shutil.rmtree(directory / str(epoch))
    return whole[-1]


def epochs_in(directory: pathlib.Path) -> list[int]:
    """The epochs that have a checkpoint, ascending; unfinished ones have other names."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def superfluous(
    directory: pathlib.Path,
    epochs: list[int],
    keep: int,
    merit: Callable[[Mapping[str, Any]], float] | None,
) -> list[int]:
    """The epochs that are neither among the last nor the best.

    Where metrics cannot be read, nobody can say which is the best, and none is superfluous.
    """
    old = epochs[:-keep]
    if merit is None or not old:
        return old
    try:
        merits = {epoch: merit(read_metrics(directory / str(epoch))) for epoch in epochs}
    except (OSError, ValueError, TypeError):
        return []
    best = max(epochs, key=lambda epoch: (merits[epoch], -epoch))
    return [epoch for epoch in old if epoch != best]


def read_metrics(checkpoint: pathlib.Path) -> dict[str, float]:
    """The numbers that were saved with a checkpoint; none if it was half removed.

    Raises:
        ValueError: they are damaged; the file is named.
    """
    file = checkpoint / "metrics" / "metrics"
    if not file.exists():
        return {}
    try:
        return {name: float(of) for name, of in dict(json.loads(file.read_text())).items()}
    except (ValueError, TypeError):
        raise ValueError(f"{file} is no JSON object of numbers") from None


def check_whole(directory: pathlib.Path) -> None:
    """Raises if a file of a checkpoint is missing or damaged.

    Raises:
        Exception: one is; of a damaged file any reader raises anything.
    """
    if has_digests(directory):
        check_digests(directory)
    else:
        _check_files(directory / "state")


def _check_files(directory: pathlib.Path) -> None:
    """Raises if any file that holds an array is missing or cut short, and reads next to nothing.

    Orbax reads all arrays at once, gives up at the first failure and closes its event loop; each
    array that fails later then prints the traceback of a closed loop, whenever that is.
    """
    base = {"driver": "file", "path": f"{directory}/"}
    store = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    keys = store.list().result()
    if not keys:
        raise FileNotFoundError(f"there are no arrays in {directory}")
    for key in keys:
        if not store.read(key, byte_range=slice(-1, None)).result().value:
            raise FileNotFoundError(f"the file that holds {key.decode()} is missing")
