"""Image files of a command line: decoded a batch ahead, in their order."""

import pathlib
import threading

import pytest

from experiments.runs.given_images import readable
from jist.data import UnreadableImageError

PATHS = [pathlib.Path(str(number)) for number in range(7)]
BATCHES = [PATHS[:3], PATHS[3:6], PATHS[6:]]


def read(path):
    if path.name in ("1", "6"):
        raise UnreadableImageError(f"cannot read image {path}")
    return int(path.name)


def test_a_batch_is_decoded_while_the_one_before_is_encoded():
    begun = threading.Event()

    def noted(path):
        if path.name == "3":
            begun.set()
        return path.name

    found = readable(iter(BATCHES), noted, skip=False)
    assert [name for _, name in next(found)] == ["0", "1", "2"]
    assert begun.wait(10)
    assert [[path for path, _ in some] for some in found] == BATCHES[1:]


def test_what_cannot_be_decoded_is_left_out_or_ends_it(capsys):
    found = readable(BATCHES, read, skip=True)
    assert [[image for _, image in some] for some in found] == [[0, 2], [3, 4, 5]]
    said = "skipped: cannot read image 1\nskipped: cannot read image 6\n"
    assert capsys.readouterr().err == said
    with pytest.raises(UnreadableImageError, match="cannot read image 1"):
        next(readable(BATCHES, read, skip=False))
