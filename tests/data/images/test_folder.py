import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from jist.data import (
    DataError,
    UnreadableImageError,
    batches,
    example_id,
    load_dataset,
    resize,
    splits_of,
)

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"


def make(root, *paths):
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / path)


def load(root, split="train", **options):
    return load_dataset(f"folder:{root}", split, **options)


def test_train_and_test_on_top(tmp_path):
    make(
        tmp_path,
        "train/dog/1.png",
        "train/cat/2.jpg",
        "train/cat/deep/er/1.TIFF",
        "train/cat/10.JpEg",
        "test/cat/1.bmp",
        "test/dog/9.tif",
    )
    train, test = load(tmp_path), load(tmp_path, "test")
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.keys == (
        "train/cat/10.JpEg",
        "train/cat/2.jpg",
        "train/cat/deep/er/1.TIFF",
        "train/dog/1.png",
    )
    np.testing.assert_array_equal(train.labels, [0, 0, 0, 1])
    assert test.keys == ("test/cat/1.bmp", "test/dog/9.tif")
    assert test.locate(1) == str(tmp_path / "test/dog/9.tif")
    assert test.open(1).getpixel((0, 0)) == (5, 0, 0)
    assert train.example_ids.tolist() == [example_id(key) for key in train.keys]


def test_without_them_a_seeded_split(tmp_path):
    make(tmp_path, *(f"{name}/{n}.png" for name in "abc" for n in range(10)))
    train, test = load(tmp_path, seed=4), load(tmp_path, "test", seed=4)
    assert not set(train.keys) & set(test.keys)
    assert len(train) == 24
    np.testing.assert_array_equal(np.bincount(test.labels), [2, 2, 2])
    for dataset in (train, test):
        assert [key[0] for key in dataset.keys] == ["abc"[label] for label in dataset.labels]
    assert load(tmp_path, "test", seed=5).keys != test.keys
    assert len(load(tmp_path, "test", test_share=0.5)) == 15


def test_ids_stay_when_files_are_added(tmp_path):
    make(tmp_path, *(f"a/{n}.png" for n in range(5)), "b/0.png", "b/1.png")
    before = load(tmp_path)
    make(tmp_path, "a/00.png", "0/0.png", "0/1.png")
    after = load(tmp_path)
    ids = dict(zip(after.keys, after.example_ids, strict=True))
    both = [(key, n) for key, n in zip(before.keys, before.example_ids, strict=True) if key in ids]
    assert len(both) >= 3
    assert all(ids[key] == n for key, n in both)


def test_hidden_and_other_files_are_passed_over(tmp_path):
    make(tmp_path, "a/1.png", "a/2.webp", "a/.3.png", ".git/4.png", "a/.cache/5.png")
    make(tmp_path, "b/1.GIF", "b/2.jp2", "__MACOSX/a/1.png", "a/@eaDir/1.jpg", "0.png")
    for name in ("labels.csv", "1.HEIC", "2.heic", "._1.png", "1.mask.png"):
        (tmp_path / "a" / name).write_text("")
    (tmp_path / "README.md").write_text("")
    train = load(tmp_path)
    found = {"a/1.png", "a/2.webp", "b/1.GIF", "b/2.jp2"}
    assert set(train.keys + load(tmp_path, "test").keys) == found
    assert train.remarks == (
        f"{tmp_path}: 1 images beside the class directories passed over",
        f"{tmp_path}: 3 files of other suffixes passed over (.heic: 2, .csv: 1)",
    )


@pytest.mark.parametrize("link", ["a/up", "a/deep/up", "up"])
@pytest.mark.parametrize("target", [".", "..", "a"])
def test_a_link_that_leads_back_up_is_named(tmp_path, link, target):
    make(tmp_path / "root", "a/deep/1.png", "a/2.png", "b/1.png", "b/2.png")
    (tmp_path / "root" / link).symlink_to(tmp_path / "root" / target)
    if (link, target) == ("up", "a"):  # a class once more, but not a cycle
        with pytest.raises(DataError, match="root/a and .*root/up are one directory, by a symb"):
            load(tmp_path / "root")
        return
    with pytest.raises(DataError, match=f"{tmp_path}/root/.* is a symbolic link that leads back"):
        load(tmp_path / "root")


def test_classes_from_elsewhere_are_taken_and_none_twice(tmp_path):
    """Links to other directories, and below a class to one of another class."""
    make(tmp_path, *(f"far/{name}/{n}.png" for name in "ab" for n in range(3)))
    for name in "ab":
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / name).symlink_to(tmp_path / "far" / name)
    assert len(load(tmp_path / "root")) + len(load(tmp_path / "root", "test")) == 6
    (tmp_path / "far" / "a" / "more").symlink_to(tmp_path / "far" / "b")
    with pytest.raises(DataError, match="root/a/more and .*root/b are one directory"):
        load(tmp_path / "root")


def test_splits_of_the_same_images_are_pointed_out(tmp_path):
    make(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png")
    (tmp_path / "val" / "b").symlink_to(tmp_path / "train" / "b")
    (tmp_path / "test").symlink_to(tmp_path / "train")
    expected = [
        f"{tmp_path}: {both} hold the same images of {count} classes ({names}), by symbolic links"
        for both, count, names in (
            ("train/ and test/", 2, "a, b"),
            ("train/ and val/", 1, "b"),
            ("test/ and val/", 1, "b"),
        )
    ]
    for split in ("train", "test", "validation"):
        assert load(tmp_path, split).remarks == tuple(expected)


def test_a_link_to_itself_is_named(tmp_path):
    make(tmp_path, "a/1.png", "a/2.png", "b/1.png")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    with pytest.raises(DataError, match="a/self cannot be followed: Too many levels"):
        load(tmp_path)
    # Where it is called like an image, it is one that cannot be read, and can be left out.
    (tmp_path / "a" / "self").unlink()
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    dataset = load_dataset(f"images:{tmp_path}", "train")
    (row,) = (n for n, key in enumerate(dataset.keys) if key.endswith("self.png"))
    with pytest.raises(UnreadableImageError, match="Too many levels of symbolic links"):
        dataset.open(row)


def test_train_may_be_a_class(tmp_path):
    make(tmp_path, "plane/1.png", "plane/2.png", "train/1.png", "train/2.png")
    assert load(tmp_path).class_names == ("plane", "train")


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "TESTING")])
def test_splits_spelt_otherwise_are_splits(tmp_path, train, test):
    make(tmp_path, f"{train}/a/1.png", f"{train}/b/1.png", f"{test}/a/1.png", f"{test}/b/2.png")
    make(tmp_path, "raw/1.png")
    found = load(tmp_path, "test")
    assert found.class_names == ("a", "b")
    assert found.keys == (f"{test}/a/1.png", f"{test}/b/2.png")
    assert found.remarks == (f"{tmp_path}: beside {train} and {test}, raw passed over",)
    assert splits_of(f"folder:{tmp_path}") == ("train", "test")
    with pytest.raises(ValueError, match="has no validation split"):
        load(tmp_path, "validation")


@pytest.mark.parametrize("name", ["val", "Validation", "valid", "DEV"])
def test_a_validation_split_beside_the_others_or_in_place_of_the_test_split(tmp_path, name):
    make(tmp_path, *(f"{split}/{of}/1.png" for split in ("train", name) for of in "ab"))
    assert splits_of(f"folder:{tmp_path}") == ("train", "test")
    found = load(tmp_path, "test")  # as ImageNet is laid out
    assert found.keys == (f"{name}/a/1.png", f"{name}/b/1.png")
    assert found.remarks == (f"{tmp_path}: without test/, {name}/ is the test split",)
    assert load(tmp_path).remarks == found.remarks

    make(tmp_path, "test/a/2.png", "test/b/2.png")
    assert splits_of("folder:.", data_dir=tmp_path) == ("train", "validation", "test")
    assert load(tmp_path, "validation").keys == found.keys
    assert load(tmp_path, "test").keys == ("test/a/2.png", "test/b/2.png")
    assert load(tmp_path).remarks == ()

    make(tmp_path, f"{name}/c/1.png")
    with pytest.raises(DataError, match=rf"train/ and {name}/ must hold the same .* \['c'\]"):
        load(tmp_path)


def test_groups_that_may_be_the_classes_are_pointed_out(tmp_path):
    make(tmp_path, *(f"{site}/{name}/{n}.png" for site in "xy" for name in "ab" for n in range(2)))
    assert load(tmp_path).class_names == ("x", "y")
    assert "the classes are x, y, and each holds a, b: if these" in load(tmp_path).remarks[0]


def test_a_relative_path_begins_where_it_is_said_to(tmp_path, monkeypatch):
    make(tmp_path, *(f"data/{name}/{n}.png" for name in "ab" for n in range(2)))
    monkeypatch.chdir(tmp_path)
    here = load_dataset("folder:data", "train")
    monkeypatch.chdir("/")
    there = load_dataset("folder:data", "train", data_dir=tmp_path)
    assert there.describe() == here.describe()
    assert there.open(0).size == (4, 4)


def test_no_directory(tmp_path):
    with pytest.raises(ValueError, match=r"path of a directory, '.*/gone' is none"):
        load(tmp_path / "gone")
    with pytest.raises(ValueError, match="path of a directory, '' is none"):
        load_dataset("folder:", "train")


@pytest.mark.parametrize(
    ("paths", "empty", "message"),
    [
        (["1.png"], [], "holds no class directory"),
        ([], [], "holds no class directory"),
        (["a/1.png", "a/2.png"], ["b"], "class directory .*/b holds no image"),
        (["a/1.png"], [], r"only one class \(a\); a classifier needs two"),
        (["a/1.png", "2.png"], [], r"only one class \(a\), and 1 images beside it"),
        (["x/y/a/1.png", "x/y/b/1.png"], [], r"class \(x\); .* give folder:.*/x/y$"),
        (["x/train/a/1.png", "x/test/a/1.png"], [], r"class \(x\); .* give folder:.*/x$"),
        (["a/train/1.png", "a/test/1.png", "b/train/1.png", "b/test/1.png"], [], "above the clas"),
        (["train/a/1.png", "Train/a/1.png"], [], "Train and train: which of them is the train set"),
        (["train/a/1.png", "test/a/1.png"], ["train/b", "test/b"], ".*/train/b holds no image"),
        (["train/a/1.png"], [], "train holds class directories but .*/test does not"),
        (["test/a/1.png"], ["train"], "test holds class directories but .*/train does not"),
        (["train/a/1.png", "train/c/1.png", "test/b/1.png", "test/c/1.png"], [], r"\['a', 'b'\]"),
        (["a/1.png", "a/2.png", "b/1.png"], [], "class 'b' has 1 image"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, paths, empty, message):
    make(tmp_path, *paths)
    for name in empty:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_real_scenes(tmp_path):
    archive = SHARED / "resisc45_airplane_airport_60_each.tar"
    if not archive.exists():
        pytest.skip(f"needs real images, {archive.name}, beside the repository in shared/data")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    test = load(tmp_path, "test")
    assert test.class_names == ("airplane", "airport")
    np.testing.assert_array_equal(np.bincount(test.labels), [12, 12])
    images = np.concatenate([b.images for b in batches(test, image_size=64, batch_size=10)])
    for index in range(len(test)):
        with Image.open(test.locate(index)) as image:
            assert image.size == (256, 256)
            wanted = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(images[index], wanted)
        np.testing.assert_array_equal(resize(test.open(index), 64), wanted)
