import numpy as np
import pytest
from PIL import Image

from jist.data import DataError, load_dataset


def save(path, colour=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path)


def test_every_image_below_a_directory_is_there_and_none_is_held_out(tmp_path):
    for name in ("b.png", "a/deep/er/c.JPG", "a/1.tif", ".hidden.png", ".git/2.png"):
        save(tmp_path / name)
    save(tmp_path / "b.mask.png", (255, 255, 255))
    (tmp_path / "notes.txt").write_text("")
    dataset = load_dataset(f"images:{tmp_path}", "train")
    assert dataset.keys == ("a/1.tif", "a/deep/er/c.JPG", "b.png")
    assert dataset.class_names == ("unlabelled",)
    np.testing.assert_array_equal(dataset.labels, [0, 0, 0])
    assert dataset.open(0).getpixel((0, 0)) == (10, 20, 30)
    assert [dataset.open_with_missing(i)[1].all() for i in range(3)] == [False, False, True]


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match="images:PATH needs .* '' is none"):
        load_dataset("images:", "train")
    with pytest.raises(DataError, match="holds no image; looked for files ending in .bmp"):
        load_dataset(f"images:{tmp_path}", "train")
    save(tmp_path / "1.png")
    with pytest.raises(ValueError, match="has no test images and no labels"):
        load_dataset(f"images:{tmp_path}", "test")
    (tmp_path / "up").symlink_to(tmp_path)
    with pytest.raises(DataError, match="up is a symbolic link that leads back up"):
        load_dataset(f"images:{tmp_path}", "train")
    (tmp_path / "up").unlink()
    save(tmp_path / "sub" / "1.png")
    (tmp_path / "again").symlink_to("sub")
    with pytest.raises(DataError, match="again and .*sub are one directory, by a symbolic link"):
        load_dataset(f"images:{tmp_path}", "train")
