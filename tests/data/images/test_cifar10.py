import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from jist.data import DataError, UnreadableImageError, batches, load_dataset

NAMES = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]
COUNTS = {"train": 23, "test": 7}
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)


WITHOUT_TFDS = "the extra `tfds` is not installed"
CONNECTORS = "tensorflow_datasets.core.features"
FEATURES = {
    "id": {"pythonClassName": f"{CONNECTORS}.text_feature.Text", "text": {}},
    "image": {
        "pythonClassName": f"{CONNECTORS}.image_feature.Image",
        "image": {"dtype": "uint8", "shape": {"dimensions": ["32", "32", "3"]}},
    },
    "label": {
        "pythonClassName": f"{CONNECTORS}.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": "10"},
    },
}


def prepare(directory, png=None):
    """A few made-up images as TFDS would have prepared them, written without TensorFlow."""
    path = directory / "cifar10" / "3.0.2"
    path.mkdir(parents=True)
    splits = [
        {
            "name": split,
            "shardLengths": [str(count)],
            "numBytes": "1",
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
        for split, count in COUNTS.items()
    ]
    info = {"name": "cifar10", "version": "3.0.2", "fileFormat": "array_record", "splits": splits}
    features = {
        "pythonClassName": f"{CONNECTORS}.features_dict.FeaturesDict",
        "featuresDict": {"features": FEATURES},
    }
    (path / "dataset_info.json").write_text(json.dumps(info))
    (path / "features.json").write_text(json.dumps(features))
    (path / "label.labels.txt").write_text("\n".join(NAMES) + "\n")
    for split, count in COUNTS.items():
        examples = [
            {
                "image": Image.fromarray(PIXELS[row]) if png is None else png,
                "label": row % 10,
                "id": f"{split}_{row:05d}",
            }
            for row in range(count)
        ]
        write_shard(path / f"cifar10-{split}.array_record-00000-of-00001", examples)


def write_shard(path, examples):
    protos = pytest.importorskip("tensorflow_datasets.proto", reason=WITHOUT_TFDS)
    records = pytest.importorskip("array_record.python.array_record_module", reason=WITHOUT_TFDS)
    writer = records.ArrayRecordWriter(str(path), "group_size:1")
    for example in examples:
        proto = protos.tf_example_pb2.Example()
        for name, value in example.items():
            feature = proto.features.feature[name]
            if isinstance(value, int):
                feature.int64_list.value.append(value)
            else:
                feature.bytes_list.value.append(encoded(value))
        writer.write(proto.SerializeToString())
    writer.close()


def encoded(value):
    if not isinstance(value, Image.Image):
        return value if isinstance(value, bytes) else value.encode()
    stream = io.BytesIO()
    value.save(stream, "PNG")
    return stream.getvalue()


# Where TensorFlow is not installed, this also shows that it is not needed.
def test_a_prepared_data_set_is_read(tmp_path):
    prepare(tmp_path)
    for split, count in COUNTS.items():
        dataset = load_dataset("cifar10", split, data_dir=tmp_path)
        assert dataset.class_names == tuple(NAMES)
        assert dataset.keys == tuple(f"cifar10/{split}_{row:05d}" for row in range(count))
        np.testing.assert_array_equal(dataset.labels, np.arange(count) % 10)
        found = list(batches(dataset, image_size=32, batch_size=count))
        np.testing.assert_array_equal(found[0].images, PIXELS[:count])


def test_an_unreadable_image_is_named(tmp_path):
    prepare(tmp_path, png=b"\x89PNG\r\n\x1a\nnothing more")
    dataset = load_dataset("cifar10", "test", data_dir=tmp_path)
    with pytest.raises(UnreadableImageError, match="cannot read image cifar10/test_00002"):
        dataset.open(2)


def test_a_damaged_file_is_named(tmp_path):
    prepare(tmp_path)
    shard = tmp_path / "cifar10/3.0.2/cifar10-test.array_record-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-70_000])
    with pytest.raises(DataError, match=r"cannot read cifar10 in .*3\.0\.2"):
        load_dataset("cifar10", "test", data_dir=tmp_path)


def test_nothing_prepared_says_what_to_do(tmp_path):
    pytest.importorskip("tensorflow_datasets", reason=WITHOUT_TFDS)
    with pytest.raises(DataError, match=r"not prepared in .*download_and_prepare.*TensorFlow"):
        load_dataset("cifar10", "train", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_format_says_so(tmp_path):
    prepare(tmp_path)
    info = tmp_path / "cifar10/3.0.2/dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="prepared as tfrecord, not as array_record"):
        load_dataset("cifar10", "train", data_dir=tmp_path)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r"pip install -e '.\[tfds\]'"):
        load_dataset("cifar10", "train")
