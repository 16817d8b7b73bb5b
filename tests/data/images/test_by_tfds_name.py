"""Any data set of TFDS by its name, prepared on disk by its own format, read without TensorFlow."""

import json

import numpy as np
import pytest
from PIL import Image
from test_cifar10 import CONNECTORS, WITHOUT_TFDS, write_shard

from jist.data import DataError, load_dataset, splits_of

pytest.importorskip("tensorflow_datasets", reason=WITHOUT_TFDS)

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
IMAGE = {
    "pythonClassName": f"{CONNECTORS}.image_feature.Image",
    "image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}},
}
LABEL = {
    "pythonClassName": f"{CONNECTORS}.class_label_feature.ClassLabel",
    "classLabel": {"numClasses": "2"},
}
NUMBER = {
    "pythonClassName": f"{CONNECTORS}.scalar.Scalar",
    "tensor": {"shape": {}, "dtype": "int64", "encoding": "none"},
}


def prepare(root, splits, features=None, label=lambda row: row % 2):
    """A data set `mine/small` of nobody, as TFDS prepares one; a picture and a kind by default."""
    path = root / "mine" / "small" / "1.0.0"
    path.mkdir(parents=True)
    described = [
        {
            "name": split,
            "shardLengths": [str(count)],
            "numBytes": "1",
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
        for split, count in splits.items()
    ]
    info = {"name": "mine", "configName": "small", "version": "1.0.0", "splits": described}
    (path / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "array_record"}))
    given = {"picture": IMAGE, "kind": LABEL} if features is None else features
    kinds = {
        "pythonClassName": f"{CONNECTORS}.features_dict.FeaturesDict",
        "featuresDict": {"features": given},
    }
    (path / "features.json").write_text(json.dumps(kinds))
    for name in given:
        (path / f"{name}.labels.txt").write_text("cat\ndog\n")
    for split, count in splits.items():
        rows = [
            {"picture": Image.fromarray(PIXELS[row]), "kind": label(row)} for row in range(count)
        ]
        write_shard(path / f"mine-{split}.array_record-00000-of-00001", rows)


def load(root, split, **options):
    return load_dataset("tfds:mine/small", split, data_dir=root, **options)


def test_image_and_class_are_found_by_their_kind(tmp_path):
    prepare(tmp_path, {"train": 12, "validation": 4, "test": 6})
    assert splits_of("tfds:mine/small", data_dir=tmp_path) == ("train", "validation", "test")
    for split, count in (("train", 12), ("validation", 4), ("test", 6)):
        found = load(tmp_path, split)
        assert (found.name, found.class_names) == ("tfds:mine/small", ("cat", "dog"))
        assert found.keys == tuple(f"mine/small/{split}/{row}" for row in range(count))
        np.testing.assert_array_equal(found.labels, np.arange(count) % 2)
        np.testing.assert_array_equal(np.asarray(found.open(3)), PIXELS[3])


def test_without_a_test_split_validation_is_it_or_a_share(tmp_path):
    prepare(tmp_path / "two", {"train": 12, "validation": 4})
    assert splits_of("tfds:mine/small", data_dir=tmp_path / "two") == ("train", "test")
    found = load(tmp_path / "two", "test")
    assert found.keys[0] == "mine/small/validation/0"
    assert "without a split test, validation is the test split" in found.remarks[0]

    prepare(tmp_path / "one", {"train": 20})
    train, test = (load(tmp_path / "one", split, test_share=0.3) for split in ("train", "test"))
    assert (len(train), np.bincount(test.labels).tolist()) == (14, [3, 3])
    assert not {*train.keys} & {*test.keys}
    row = int(test.keys[2].rsplit("/", 1)[1])
    np.testing.assert_array_equal(np.asarray(test.open(2)), PIXELS[row])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": {"kind": LABEL, "size": NUMBER}}, "one image, they have none; .* Scalar"),
        ({"features": {"picture": IMAGE, "size": NUMBER}}, "one class label, they have none"),
        (
            {"features": {"picture": IMAGE, "kind": LABEL, "colour": LABEL}},
            r"one class label, they have 2 \(\w+, \w+\)",
        ),
        ({"splits": {"test": 3}}, "has no split train; it has test"),
        ({"label": lambda row: -1}, "images of the split train have no label"),
    ],
)
def test_what_cannot_be_classified_is_told(tmp_path, given, message):
    prepare(tmp_path, **{"splits": {"train": 4, "test": 2}} | given)
    with pytest.raises(DataError, match=message):
        load(tmp_path, "train")


def test_an_unknown_name_and_a_known_one_that_is_not_prepared(tmp_path):
    with pytest.raises(DataError, match="has no data set cifar1O: .* did you mean cifar10"):
        load_dataset("tfds:cifar1O", "train", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"mnist is not prepared in .*download_and_prepare\(\)"):
        load_dataset("tfds:mnist", "train", data_dir=tmp_path)
