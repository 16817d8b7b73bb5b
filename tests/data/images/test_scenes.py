"""RESISC45 and AID: recognised in any spelling, and split as in the paper's Table 1."""

import json

import numpy as np
import pytest
from PIL import Image
from test_cifar10 import NAMES as CIFAR10
from test_cifar10 import WITHOUT_TFDS, write_shard

from jist.data import DataError, load_dataset
from jist.data.holdout import held_out_in_all
from jist.data.images import scenes
from jist.data.images.published import AID, EUROSAT, RESISC45, UCMERCED

# The number of images of each class that Xia et al. print, in the order of the names.
AID_SIZES = (
    *(360, 310, 220, 400, 360, 260, 240, 350, 410, 300),
    *(370, 250, 390, 280, 290, 340, 350, 390, 370, 420),
    *(380, 260, 290, 410, 300, 300, 330, 290, 360, 420),
)


def make(root, sizes):
    for name, size in sizes.items():
        (root / name).mkdir(parents=True)
        for n in range(size):
            # Only opened images are decoded.
            (root / name / f"{n + 1:03}.jpg").touch()


def both(name, data_dir, **options):
    return [load_dataset(name, s, data_dir=data_dir, **options) for s in ("train", "test")]


@pytest.mark.parametrize(
    ("published", "sizes", "train_count"),
    [(RESISC45, [700] * 45, 27_000), (AID, list(AID_SIZES), 8_500)],
    ids=["resisc45", "aid"],
)
def test_counts_of_table_1(published, sizes, train_count):
    assert len(sizes) == len(published.class_names)
    assert sum(sizes) == published.images == train_count + published.test
    labels = np.repeat(np.arange(len(sizes)), sizes)
    keys = [str(n) for n in range(len(labels))]
    names = published.class_names
    held = held_out_in_all(keys, labels, names, count=published.test, seed=0)
    assert held.sum() == published.test
    exact = np.array(sizes) * published.test / published.images
    assert np.abs(np.bincount(labels[held]) - exact).max() < 1


def test_fewer_images_are_split_in_the_same_proportion(tmp_path):
    make(tmp_path / "AID", dict.fromkeys(AID.class_names, 7))
    train, test = both("aid", tmp_path)
    assert (len(train), len(test)) == (210 - 32, 32)  # 31.5
    assert set(np.bincount(test.labels)) == {1, 2}
    assert not set(train.keys) & set(test.keys)
    again, other = both("aid", tmp_path)[1], both("aid", tmp_path, seed=1)[1]
    assert again.keys == test.keys
    assert other.keys != test.keys


def test_a_directory_of_somebody_else_on_the_way_is_passed_over(tmp_path, monkeypatch):
    make(tmp_path / "AID", dict.fromkeys(AID.class_names, 7))
    (tmp_path / "lost+found").mkdir()
    directories = scenes.directories

    def refused(path):
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return directories(path)

    monkeypatch.setattr(scenes, "directories", refused)
    assert len(load_dataset("aid", "train", data_dir=tmp_path)) == 178


@pytest.mark.parametrize("spell", [str, str.lower, str.upper])
@pytest.mark.parametrize("separator", ["_", "", " ", "-"])
@pytest.mark.parametrize("depth", ["", "NWPU-RESISC45", "downloads/manual/NWPU-RESISC45"])
def test_spelling_and_nesting_make_no_difference(tmp_path, spell, separator, depth):
    names = ("airplane", "dense_residential", "sea_ice")
    for name in names:
        directory = tmp_path / depth / spell(name.replace("_", separator))
        directory.mkdir(parents=True)
        for n in range(9):
            Image.new("RGB", (2, 2), (n, 0, 0)).save(directory / f"{name}_{n:03}.png")
    train, test = both("resisc45", tmp_path)
    assert train.class_names == test.class_names == names
    expected = {f"resisc45/{name}/{name}_{n:03}.png" for name in names for n in range(9)}
    assert set(train.keys + test.keys) == expected
    for row, key in enumerate(test.keys):
        assert test.open(row).getpixel((0, 0)) == (int(key[-7:-4]), 0, 0)
        assert test.class_names[test.labels[row]] == key.split("/")[1]


def test_each_is_told_from_the_others_beside_it(tmp_path):
    # 14 names are classes of both; CIFAR-10 shares two with RESISC45.
    make(tmp_path / "AID", dict.fromkeys(AID.class_names, 2))
    make(tmp_path / "NWPU-RESISC45", dict.fromkeys(("airplane", "airport"), 2))
    make(tmp_path / "cifar10" / "train", dict.fromkeys(CIFAR10, 2))
    (tmp_path / "__MACOSX" / "AID").mkdir(parents=True)
    assert load_dataset("resisc45", "test", data_dir=tmp_path).class_names == (
        "airplane",
        "airport",
    )
    assert load_dataset("aid", "test", data_dir=tmp_path).class_names == AID.class_names


def test_those_of_orbit_are_told_by_their_files_and_scenes_by_their_classes(tmp_path):
    colours, bands = "EuroSAT_RGB", "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    for folder, suffix in ((colours, "jpg"), (bands, "tif")):
        for name in EUROSAT.class_names:
            (tmp_path / folder / name).mkdir(parents=True)
            for n in range(1, 6):
                (tmp_path / folder / name / f"{name}_{n}.{suffix}").touch()
    for name, suffix in (("eurosat", "jpg"), ("eurosat-ms", "tif")):
        train, test = both(name, tmp_path)
        assert (len(train), len(test)) == (40, 10)
        assert train.class_names == EUROSAT.class_names
        assert train.keys[0].startswith(f"{name}/AnnualCrop/AnnualCrop_")
        assert train.keys[0].endswith(suffix)
    make(tmp_path / "UCMerced_LandUse" / "Images", dict.fromkeys(UCMERCED.class_names, 5))
    assert list(map(len, both("ucmerced", tmp_path))) == [84, 21]
    with pytest.raises(DataError, match="resisc45 is not in"):  # 18 of its classes are
        load_dataset("resisc45", "test", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["resisc45", "aid", "eurosat", "eurosat-ms", "ucmerced"])
def test_what_is_not_there_is_told_with_where_to_get_it_and_where_to_put_it(tmp_path, name):
    for directory in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DataError, match=f"{name} is not in {directory}: .*get it from http.*"):
            load_dataset(name, "train", data_dir=directory)


@pytest.mark.parametrize(
    ("directories", "message"),
    [
        (["train/Airport", "test/Airport"], r"more than once: .*/test, .*/train; give one"),
        (["Airport", "Beach", "Bridge", "Pond", "Splits"], r"Splits is no class of aid"),
        (["BareLand", "bare_land"], r"bare_land is class 'BareLand' once more of aid"),
    ],
)
def test_what_is_not_clear_is_told(tmp_path, directories, message):
    make(tmp_path, dict.fromkeys(directories, 3))
    with pytest.raises(DataError, match=message):
        load_dataset("aid", "train", data_dir=tmp_path)


def test_an_empty_class_is_told(tmp_path):
    make(tmp_path, {"Airport": 3, "Beach": 0})
    with pytest.raises(DataError, match="Beach holds no image"):
        load_dataset("aid", "train", data_dir=tmp_path)


def test_what_tfds_has_prepared_is_split_like_the_folder(tmp_path):
    names = RESISC45.class_names
    prepare(tmp_path / "tfds")
    for row in range(90):
        directory = tmp_path / "folder" / names[row % 45]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{row}.jpg").touch()
    for ours, theirs in zip(
        both("resisc45", tmp_path / "tfds"), both("resisc45", tmp_path / "folder"), strict=True
    ):
        assert ours.class_names == theirs.class_names
        assert sorted(ours.keys) == sorted(theirs.keys)
        for row in range(3):
            made = int(ours.keys[row].rsplit("/", 1)[1].removesuffix(".jpg"))
            assert ours.open(row).getpixel((0, 0)) == (made, 0, 0)


def prepare(directory):
    """Two flat images of each class as TFDS would have prepared them, without TensorFlow."""
    pytest.importorskip("tensorflow_datasets", reason=WITHOUT_TFDS)
    connectors = "tensorflow_datasets.core.features"
    path = directory / "resisc45" / "3.0.0"
    path.mkdir(parents=True)
    split = {
        "name": "train",
        "shardLengths": ["90"],
        "numBytes": "1",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": "resisc45", "version": "3.0.0", "fileFormat": "array_record"}
    (path / "dataset_info.json").write_text(json.dumps(info | {"splits": [split]}))
    features = {
        "filename": {"pythonClassName": f"{connectors}.text_feature.Text", "text": {}},
        "image": {
            "pythonClassName": f"{connectors}.image_feature.Image",
            "image": {"dtype": "uint8", "shape": {"dimensions": ["256", "256", "3"]}},
        },
        "label": {
            "pythonClassName": f"{connectors}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": "45"},
        },
    }
    whole = {"pythonClassName": f"{connectors}.features_dict.FeaturesDict"}
    (path / "features.json").write_text(
        json.dumps(whole | {"featuresDict": {"features": features}})
    )
    (path / "label.labels.txt").write_text("\n".join(RESISC45.class_names) + "\n")
    write_shard(
        path / "resisc45-train.array_record-00000-of-00001",
        [
            {
                "filename": f"{row}.jpg",
                "label": row % 45,
                "image": Image.new("RGB", (4, 4), (row, 0, 0)),
            }
            for row in range(90)
        ],
    )
