"""CIFAR-10 from TensorFlow Datasets (TFDS), read without TensorFlow.

TFDS downloads a data set and prepares it on disk once; that needs TensorFlow. A data set prepared
in the ArrayRecord format is then read with neither TensorFlow nor a network.
"""

import dataclasses
import io
import os
from typing import Any

import numpy as np
from PIL import Image

from jist.data.dataset import Dataset
from jist.data.errors import DataError, UnreadableImageError
from jist.data.images import decode_image

_READ_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cifar10(Dataset):
    """One split; keys are `cifar10/` and the id that TFDS gives, such as `train_16399`.

    Attributes:
        source: the data source of TFDS, which leaves images encoded.
    """

    source: Any

    def open(self, index: int) -> Image.Image:
        """Decodes the image."""
        try:
            encoded = self.source[index]["image"]
        except Exception as error:  # whatever a damaged file provokes in its reader
            raise UnreadableImageError(f"cannot read {self.locate(index)}: {error}") from error
        return decode_image(io.BytesIO(encoded), self.locate(index))


def load_cifar10(split: str, *, data_dir: str | os.PathLike | None) -> Cifar10:
    """CIFAR-10 as TFDS has prepared it.

    Args:
        split: "train" (50,000 images) or "test" (10,000).
        data_dir: where TFDS keeps prepared data sets; by default its own default, `TFDS_DATA_DIR`
            or `~/tensorflow_datasets`.

    Raises:
        DataError: TFDS is not installed, or holds no CIFAR-10 prepared as ArrayRecord there.
    """
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(
            f"cifar10 is read through tensorflow-datasets: {error}; "
            "install it with: pip install 'jist[tfds]'"
        ) from error
    # tfds.data_source without its download, so that the directory can be named in errors.
    directory = None if data_dir is None else os.path.expanduser(data_dir)
    builder: Any = tfds.builder("cifar10", data_dir=directory)
    try:
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        keys, labels = _scan(source)
    except Exception as error:  # TFDS tells neither of these apart by type
        raise DataError(_how_to_prepare(builder, error)) from error
    return Cifar10(
        name="cifar10",
        split=split,
        class_names=tuple(builder.info.features["label"].names),
        keys=keys,
        labels=labels,
        source=source,
    )


def _scan(source: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Keys and labels of all examples, in one pass that decodes no image."""
    keys, labels = [], []
    for start in range(0, len(source), _READ_AT_ONCE):
        rows = list(range(start, min(start + _READ_AT_ONCE, len(source))))
        for example in source.__getitems__(rows):
            keys.append(f"cifar10/{example['id'].decode()}")
            labels.append(example["label"])
    return tuple(keys), np.asarray(labels, np.int32)


def _how_to_prepare(builder: Any, error: Exception) -> str:
    root = os.fspath(builder.data_dir_root)
    if builder.is_prepared() and str(builder.info.file_format.value) == "array_record":
        return f"cannot read cifar10 in {builder.data_dir}: {error}"
    found = (
        f"cifar10 in {root} is prepared as {builder.info.file_format.value}, not as array_record; "
        "prepare it in another directory"
        if builder.is_prepared()
        else f"cifar10 is not prepared in {root}; prepare it"
    )
    return (
        f"{found}, once, with: pip install 'jist[tfds]' && python -c \"import tensorflow_datasets "
        f"as tfds; tfds.builder('cifar10', data_dir={root!r}, file_format='array_record')"
        '.download_and_prepare()" (this downloads 170 MB and uses TensorFlow; reading needs '
        "neither TensorFlow nor a network)"
    )
