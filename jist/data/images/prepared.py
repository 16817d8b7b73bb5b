"""Data sets of TensorFlow Datasets (TFDS), read without TensorFlow.

TFDS downloads a data set and prepares it on disk once; that needs TensorFlow. A data set prepared
in the ArrayRecord format is then read with neither TensorFlow nor a network.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from jist.data.dataset import Dataset
from jist.data.errors import DataError, UnreadableImageError
from jist.data.images.decoding import decode_image, to_rgb
from jist.data.images.pixels import load_upright

_READ_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prepared(Dataset):
    """Some examples of a prepared data set.

    Attributes:
        source: the data source of TFDS, which leaves images encoded.
        rows: where in the source each example is [N].
    """

    source: Any
    rows: Int[np.ndarray, " examples"]

    def open(self, index: int) -> Image.Image:
        """Decodes the image."""
        try:
            encoded = self.source[int(self.rows[index])]["image"]
        except Exception as error:  # its reader raises many kinds for damaged files
            raise UnreadableImageError(f"cannot read {self.locate(index)}: {error}") from error
        name = self.locate(index)
        return decode_image(io.BytesIO(encoded), name, lambda image: to_rgb(load_upright(image)))


def load_prepared(
    name: str,
    tfds_split: str,
    *,
    split: str,
    data_dir: str | os.PathLike | None,
    key: Callable[[Mapping[str, Any], str], str],
    costs: str,
) -> Prepared:
    """All examples of a split of TFDS.

    Args:
        name: name of the data set in TFDS and `load_dataset`.
        tfds_split: name of the split in TFDS.
        split: name of the split in the result.
        data_dir: where TFDS keeps prepared data sets; by default its own default, `TFDS_DATA_DIR`
            or `~/tensorflow_datasets`.
        key: makes the key of an example from its TFDS features and the name of its class.
        costs: what preparing costs, for the message that tells the user to do it.

    Raises:
        DataError: TFDS is not installed, or does not hold the data set as ArrayRecord there.
    """
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(
            f"{name} is read through tensorflow-datasets: {error}; "
            "install it with: pip install 'jist[tfds]'"
        ) from error
    # tfds.data_source without its download, so that the directory can be named in errors.
    directory = None if data_dir is None else os.path.expanduser(data_dir)
    builder: Any = tfds.builder(name, data_dir=directory)
    try:
        source = builder.as_data_source(tfds_split, decoders={"image": tfds.decode.SkipDecoding()})
        class_names = tuple(builder.info.features["label"].names)
        keys, labels = _scan(source, lambda example: key(example, class_names[example["label"]]))
    except Exception as error:  # TFDS does not distinguish these by type
        raise DataError(_how_to_prepare(builder, name, costs, error)) from error
    return Prepared(
        name=name,
        split=split,
        class_names=class_names,
        keys=keys,
        labels=labels,
        source=source,
        rows=np.arange(len(keys)),
    )


def _scan(source: Any, key: Callable[[Any], str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Keys and labels of all examples, in one pass that decodes no image."""
    keys, labels = [], []
    for start in range(0, len(source), _READ_AT_ONCE):
        rows = list(range(start, min(start + _READ_AT_ONCE, len(source))))
        for example in source.__getitems__(rows):
            keys.append(key(example))
            labels.append(example["label"])
    return tuple(keys), np.asarray(labels, np.int32)


def _how_to_prepare(builder: Any, name: str, costs: str, error: Exception) -> str:
    root = os.fspath(builder.data_dir_root)
    if builder.is_prepared() and str(builder.info.file_format.value) == "array_record":
        return f"cannot read {name} in {builder.data_dir}: {error}"
    found = (
        f"{name} in {root} is prepared as {builder.info.file_format.value}, not as array_record; "
        "prepare it in another directory"
        if builder.is_prepared()
        else f"{name} is not prepared in {root}; prepare it"
    )
    return (
        f"{found}, once, with: pip install 'jist[tfds]' && python -c \"import tensorflow_datasets "
        f"as tfds; tfds.builder({name!r}, data_dir={root!r}, file_format='array_record')"
        f'.download_and_prepare()" ({costs}; reading needs neither TensorFlow nor a network)'
    )
