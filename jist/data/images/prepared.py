"""Data sets of TensorFlow Datasets (TFDS), read without TensorFlow.

TFDS downloads a data set and prepares it on disk once; that needs TensorFlow. A data set prepared
in the ArrayRecord format is then read with neither TensorFlow nor a network.
"""

import dataclasses
import difflib
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
        image: the name of its feature that is the image.
    """

    source: Any
    rows: Int[np.ndarray, " examples"]
    image: str = "image"

    def open(self, index: int) -> Image.Image:
        """Decodes the image."""
        try:
            encoded = self.source[int(self.rows[index])][self.image]
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
    key: Callable[[Mapping[str, Any], str], str] | None = None,
    costs: str = "this downloads it and uses TensorFlow",
) -> Prepared:
    """All examples of a split of TFDS.

    Args:
        name: name of the data set in TFDS, perhaps with `/CONFIG`.
        tfds_split: name of the split in TFDS.
        split: name of the split in the result.
        data_dir: where TFDS keeps prepared data sets; by default its own default, `TFDS_DATA_DIR`
            or `~/tensorflow_datasets`.
        key: makes the key of an example from its TFDS features and the name of its class; by
            default the name, the TFDS split and the number of the example in that.
        costs: what preparing costs, for the message that tells the user to do it.

    Raises:
        DataError: TFDS is not installed, or does not hold the data set as ArrayRecord there; it
            has no image and one class of each, or its classes are not given.
    """
    tfds, builder = open_builder(name, data_dir)
    try:
        image, label = image_and_label(tfds, name, dict(builder.info.features))
        source = builder.as_data_source(tfds_split, decoders={image: tfds.decode.SkipDecoding()})
        class_names = tuple(builder.info.features[label].names)
        labels, keys = _scan(source, label, class_names, key)
    except DataError:
        raise
    except Exception as error:  # TFDS does not distinguish these by type
        raise DataError(_how_to_prepare(builder, name, costs, error)) from error
    if len(labels) and labels.min() < 0:
        raise DataError(f"{name}: images of the split {tfds_split} have no label in TFDS")
    return Prepared(
        name=name,
        split=split,
        class_names=class_names,
        keys=keys or tuple(f"{name}/{tfds_split}/{row}" for row in range(len(labels))),
        labels=labels,
        source=source,
        rows=np.arange(len(labels)),
        image=image,
    )


def open_builder(name: str, data_dir: str | os.PathLike | None) -> tuple[Any, Any]:
    """The package TFDS, and its builder of a data set; nothing is downloaded.

    Raises:
        DataError: TFDS is not installed, or knows no such data set.
    """
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(
            f"{name} is read through tensorflow-datasets: {error}; "
            "install it with: pip install -e '.[tfds]'"
        ) from error
    # tfds.data_source without its download, so that the directory can be named in errors.
    directory = None if data_dir is None else os.path.expanduser(data_dir)
    try:
        return tfds, tfds.builder(name, data_dir=directory)
    except Exception as error:  # DatasetNotFoundError, ValueError of a config, ...
        known = difflib.get_close_matches(name.partition("/")[0], _known(tfds), 3)
        near = f"; did you mean {', '.join(known)}?" if known else ""
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"tensorflow-datasets has no data set {name}: {reason}{near}") from error


def image_and_label(tfds: Any, name: str, features: Mapping[str, Any]) -> tuple[str, str]:
    """Which features of a data set of TFDS are the image and its class.

    Args:
        tfds: the package.
        name: of the data set, for errors.
        features: its features by name.

    Raises:
        DataError: there is not one of each.
    """
    kinds = {"image": tfds.features.Image, "class label": tfds.features.ClassLabel}
    found = []
    for kind, of in kinds.items():
        names = [key for key, feature in features.items() if isinstance(feature, of)]
        if len(names) != 1:
            many = f"{len(names)} ({', '.join(names)})" if names else "none"
            there = ", ".join(f"{key}: {type(of).__name__}" for key, of in features.items())
            raise DataError(
                f"{name} cannot be classified: its examples must have one {kind}, they have "
                f"{many}; its features are {there}"
            )
        found += names
    return found[0], found[1]


def _known(tfds: Any) -> list[str]:
    try:
        return tfds.list_builders(with_community_datasets=False)
    except Exception:  # it is for a message alone
        return []


def _scan(
    source: Any,
    label: str,
    class_names: tuple[str, ...],
    key: Callable[[Mapping[str, Any], str], str] | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of all examples, and their keys if they are asked for; no image is decoded."""
    keys, labels = [], []
    for start in range(0, len(source), _READ_AT_ONCE):
        rows = list(range(start, min(start + _READ_AT_ONCE, len(source))))
        for example in source.__getitems__(rows):
            labels.append(example[label])
            if key is not None:
                keys.append(key(example, class_names[example[label]]))
    return np.asarray(labels, np.int32), tuple(keys)


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
        f"{found}, once, with: pip install -e '.[tfds]' && python -c \"import tensorflow_datasets "
        f"as tfds; tfds.builder({name!r}, data_dir={root!r}, file_format='array_record')"
        f'.download_and_prepare()" ({costs}; reading needs neither TensorFlow nor a network)'
    )
