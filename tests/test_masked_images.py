"""A data set of masked images gives the CLS vectors of the full images under the same masks."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from jist import costs, features
from jist.data import (
    DataError,
    Dataset,
    EmptyImageError,
    NaturalMasks,
    UnreadableImageError,
    load_dataset,
)
from jist.features.random_masks import EpochEncoder
from jist.masked_images import CHUNK, write_masked
from jist.masking import FixedMask
from jist.models import MAEEncoder, ViTConfig
from jist.store import StoreError

CONFIG = ViTConfig(image_size=8, patch_size=2, dim=8, depth=2, heads=2, mlp_dim=16)
MASKS = {
    "fixed": FixedMask(16, 0.75, 3),
    "clouds": NaturalMasks(clouds=0.3, seed=3),
    "much missing": NaturalMasks(clouds=0.5, max_missing=0.5),
}


@pytest.fixture(scope="module")
def encoder():
    return MAEEncoder(CONFIG, rngs=nnx.Rngs(0))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Noise(Dataset):
    """Random images of 12 × 10 pixels."""

    broken: frozenset = frozenset()
    opened: list = dataclasses.field(default_factory=list)

    def open(self, index):
        self.opened.append(int(index))
        if index in self.broken:
            raise UnreadableImageError(f"cannot decode {self.locate(index)}")
        pixels = np.random.default_rng(int(index)).integers(0, 256, (12, 10, 3), np.uint8)
        return Image.fromarray(pixels)


def noise(count=40, split="train", **options):
    return Noise(
        name="noise",
        split=split,
        class_names=("a", "b"),
        keys=tuple(f"{split}/{i}" for i in range(count)),
        labels=np.arange(count, dtype=np.int32) % 2,
        **options,
    )


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS.keys())
def test_features_from_patches_alone_are_those_of_the_full_images(encoder, tmp_path, masks):
    full = noise()
    write_masked(full, tmp_path / "m" / "train", masks=masks, encoder=encoder)
    masked = load_dataset(f"masked:{tmp_path / 'm'}", "train")
    assert masked.class_names == full.class_names
    np.testing.assert_array_equal(masked.example_ids, full.example_ids)
    expected = features.extract(encoder, full, tmp_path / "f", keep_for=masks, batch_size=16)
    found = features.extract(
        encoder, masked, tmp_path / "g", keep_for=NaturalMasks(), batch_size=16
    )
    np.testing.assert_array_equal(found.cls, expected.cls)
    np.testing.assert_array_equal(found.label, expected.label)
    assert found.attributes["masks"]["name"] == masks.name


def test_a_border_of_the_preprocessing_is_kept_apart_from_the_image(encoder, tmp_path):
    preprocessing = dataclasses.replace(encoder.preprocessing, border=1)
    bordered = MAEEncoder(CONFIG, preprocessing=preprocessing, rngs=nnx.Rngs(0))
    masks = MASKS["clouds"]
    write_masked(noise(), tmp_path / "m" / "train", masks=masks, encoder=bordered)
    masked = load_dataset(f"masked:{tmp_path / 'm'}", "train")
    arguments = {"keep_for": masks, "batch_size": 16}
    expected = features.extract(bordered, noise(), tmp_path / "f", **arguments)
    arguments["keep_for"] = NaturalMasks()
    found = features.extract(bordered, masked, tmp_path / "g", **arguments)
    np.testing.assert_array_equal(found.cls, expected.cls)
    with pytest.raises(ValueError, match="a border of 1 pixels; the encoder's border is 0"):
        features.extract(encoder, masked, tmp_path / "h", **arguments)


def test_bytes_are_those_that_the_exact_count_says(encoder, tmp_path):
    group = write_masked(noise(), tmp_path, masks=MASKS["fixed"], encoder=encoder)
    assert group["bytes"]["raw"] == costs.masked_bytes(8, 16, 0.75, 40)
    files = [path for path in tmp_path.glob("*/**/*") if path.is_file()]
    assert group["bytes"]["files"] == sum(path.stat().st_size for path in files)
    arrays = [json.loads(path.read_text()) for path in tmp_path.rglob("*/zarr.json")]
    assert {array["data_type"] for array in arrays} == {"uint8", "int32", "uint32"}
    assert all(array["codecs"][1]["name"] == "zstd" for array in arrays)


def test_a_killed_run_goes_on_and_opens_no_image_twice(encoder, tmp_path):
    count = 2 * CHUNK + 9
    arguments = {"masks": MASKS["clouds"], "encoder": encoder}
    whole = write_masked(noise(count), tmp_path / "whole" / "train", **arguments)
    broken = frozenset({CHUNK + 7})
    with pytest.raises(UnreadableImageError, match=f"train/{CHUNK + 7}"):
        write_masked(noise(count, broken=broken), tmp_path / "killed" / "train", **arguments)
    with pytest.raises(DataError, match="is not finished"):
        load_dataset(f"masked:{tmp_path / 'killed'}", "train")
    again = noise(count)
    resumed = write_masked(again, tmp_path / "killed" / "train", **arguments)
    assert min(again.opened) == CHUNK
    assert resumed["patches_kept"] == whole["patches_kept"]
    for file in (tmp_path / "whole").rglob("c/**/*"):
        if file.is_file():
            other = tmp_path / "killed" / file.relative_to(tmp_path / "whole")
            assert other.read_bytes() == file.read_bytes()
    with pytest.raises(ValueError, match="holds other masked images; .*masks is"):
        write_masked(
            noise(count), tmp_path / "whole" / "train", masks=MASKS["fixed"], encoder=encoder
        )


def test_a_chunk_of_black_images_is_done_once(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(Noise, "open", lambda self, index: Image.new("RGB", (8, 8)))
    write_masked(noise(), tmp_path, masks=MASKS["fixed"], encoder=encoder)
    monkeypatch.undo()
    again = noise()
    write_masked(again, tmp_path, masks=MASKS["fixed"], encoder=encoder)
    assert again.opened == []


def test_images_that_were_left_out_are_left_out(encoder, tmp_path):
    masks = NaturalMasks(clouds=0.8)
    arguments = {"masks": masks, "encoder": encoder}
    with pytest.raises(EmptyImageError, match="nothing of image train/"):
        write_masked(noise(), tmp_path / "m" / "train", **arguments)
    full = noise(broken=frozenset({5}))
    skip = {"skip_empty": True, "skip_unreadable": True}
    group = write_masked(full, tmp_path / "m" / "train", **arguments, **skip)
    assert group["skipped"] == ["train/5"]
    assert 0 < len(group["empty"]) < 39
    with pytest.raises(UnreadableImageError, match="train/5 could not be decoded"):
        write_masked(full, tmp_path / "m" / "train", **arguments, skip_empty=True)
    masked = load_dataset(f"masked:{tmp_path / 'm'}", "train")
    assert len(masked) == 39 - len(group["empty"])
    store = features.extract(encoder, masked, tmp_path / "f", keep_for=NaturalMasks())
    expected = features.extract(encoder, full, tmp_path / "g", keep_for=masks, **skip)
    np.testing.assert_allclose(store.cls, expected.cls, atol=1e-5)
    np.testing.assert_array_equal(store.example_id, expected.example_id)


def test_what_is_not_there_cannot_be_had(encoder, tmp_path):
    write_masked(noise(), tmp_path / "m" / "train", masks=MASKS["fixed"], encoder=encoder)
    masked = load_dataset(f"masked:{tmp_path / 'm'}", "train")
    with pytest.raises(DataError, match="visible patches of images and nothing else"):
        features.extract(encoder, masked, tmp_path / "f", keep_for=FixedMask(16, 0.5))
    with pytest.raises(DataError, match="visible patches of images and nothing else"):
        EpochEncoder(encoder, masked, ratio=0.5, seed=0)(1)
    for more in (NaturalMasks(clouds=0.3), NaturalMasks(no_data=0)):
        with pytest.raises(ValueError, match="cannot be applied to .*, which is masked already"):
            features.extract(encoder, masked, tmp_path / "f", keep_for=more)
    other = MAEEncoder(dataclasses.replace(CONFIG, patch_size=4), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="patches of 2 pixels, of images of 8; the encoder takes"):
        features.extract(other, masked, tmp_path / "g", keep_for=NaturalMasks())
    with pytest.raises(
        ValueError, match="masked:PATH needs a directory written by experiments.mask_dataset"
    ):
        load_dataset(f"masked:{tmp_path / 'm'}", "test")


def test_a_damaged_chunk_is_named(encoder, tmp_path):
    write_masked(noise(), tmp_path / "m" / "train", masks=MASKS["fixed"], encoder=encoder)
    chunk = tmp_path / "m" / "train" / "patches" / "c" / "0" / "0" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    masked = load_dataset(f"masked:{tmp_path / 'm'}", "train")
    with pytest.raises(UnreadableImageError, match=r"cannot read train/3: "):
        masked.open_with_missing(3)
    chunk.write_bytes(whole[:100])
    with pytest.raises(StoreError, match="'patches' .*: rows 0 to 39 are not those that were writ"):
        load_dataset(f"masked:{tmp_path / 'm'}", "train")


@pytest.mark.parametrize("name", ["patches", "keep", "count", "label"])
def test_a_missing_chunk_is_never_read_as_zeros(encoder, tmp_path, name):
    write_masked(noise(), tmp_path / "m" / "train", masks=MASKS["fixed"], encoder=encoder)
    shutil.rmtree(tmp_path / "m" / "train" / name / "c")
    with pytest.raises(StoreError, match=rf"train is damaged, its array '{name}' .* rows 0 to"):
        load_dataset(f"masked:{tmp_path / 'm'}", "train")
