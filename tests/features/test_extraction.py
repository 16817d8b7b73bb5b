import dataclasses
import functools
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from flax import nnx
from PIL import Image
from rich.progress import Progress

from jist import features
from jist.data import Dataset, UnreadableImageError
from jist.masking import FixedMask, fixed_keep
from jist.models import MAEEncoder, ViTConfig
from jist.store import StoreError

CONFIG = ViTConfig(image_size=8, patch_size=2, dim=8, depth=2, heads=2, mlp_dim=16)


@pytest.fixture(scope="module")
def encoder():
    return MAEEncoder(CONFIG, rngs=nnx.Rngs(0))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Noise(Dataset):
    """Random images; `broken` ones cannot be decoded, `opened` records which were decoded."""

    broken: frozenset = frozenset()
    opened: list = dataclasses.field(default_factory=list)

    def open(self, index):
        self.opened.append(int(index))
        if index in self.broken:
            raise UnreadableImageError(f"cannot decode {self.locate(index)}")
        pixels = np.random.default_rng(int(index)).integers(0, 256, (8, 8, 3), np.uint8)
        return Image.fromarray(pixels)


def noise(count, **options):
    return Noise(
        name="noise",
        split="train",
        class_names=("a", "b"),
        keys=tuple(f"noise/{i}" for i in range(count)),
        labels=np.arange(count, dtype=np.int32) % 2,
        **options,
    )


def masks(ratio=0.75, seed=0):
    return FixedMask(CONFIG.patches, ratio, seed)


def test_features_are_those_of_each_image_alone(encoder, tmp_path):
    dataset = noise(37)
    store = features.extract(encoder, dataset, tmp_path / "f", keep_for=masks(), batch_size=8)
    np.testing.assert_array_equal(store.label, dataset.labels)
    np.testing.assert_array_equal(store.example_id, dataset.example_ids)
    encode = nnx.jit(lambda encoder, images, keep: encoder(images, keep)[0, 0])
    for index in (0, 20, 36):
        pixels = jnp.asarray(np.asarray(dataset.open(index)))[None]
        keep = fixed_keep(0, dataset.example_ids[index : index + 1], CONFIG.patches, 0.75)
        alone = encode(encoder, encoder.preprocessing.normalize(pixels), keep)
        np.testing.assert_allclose(store.cls[index], alone, atol=1e-5)


def test_the_store_is_a_zarr_group_that_names_its_origin(encoder, tmp_path):
    features.extract(encoder, noise(5), tmp_path / "f", keep_for=masks(), batch_size=4)
    group = json.loads((tmp_path / "f" / "zarr.json").read_text())
    assert (group["zarr_format"], group["node_type"]) == (3, "group")
    assert group["attributes"]["masks"] == {"patches": 16, "ratio": 0.75, "seed": 0}
    assert group["attributes"]["dataset"] == "noise"
    assert len(group["attributes"]["encoder_sha256"]) == 64
    kvstore = {"driver": "file", "path": str(tmp_path / "f" / "keep")}
    keep = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result().read().result()
    expected = fixed_keep(0, noise(5).example_ids, CONFIG.patches, 0.75)
    np.testing.assert_array_equal(keep, expected)


def test_a_killed_extraction_goes_on_without_computing_a_chunk_twice(encoder, tmp_path):
    count = 2 * features.CHUNK + 100
    once = noise(count)
    whole = features.extract(encoder, once, tmp_path / "whole", keep_for=masks())
    assert sorted(once.opened) == list(range(count))
    broken = frozenset({features.CHUNK + 5})  # in the batch after the last of a chunk
    with pytest.raises(UnreadableImageError, match="noise/1029"):
        features.extract(
            encoder, noise(count, broken=broken), tmp_path / "killed", keep_for=masks()
        )
    with pytest.raises(FileNotFoundError, match="not finished"):
        features.load(tmp_path / "killed")
    again = noise(count)
    resumed = features.extract(encoder, again, tmp_path / "killed", keep_for=masks())
    assert min(again.opened) == features.CHUNK
    np.testing.assert_array_equal(resumed.cls, whole.cls)
    np.testing.assert_array_equal(resumed.label, whole.label)
    nothing = noise(count)
    features.extract(encoder, nothing, tmp_path / "killed", keep_for=masks())
    assert nothing.opened == []
    # Two whole chunks change places: each can be decoded, and neither is where it belongs.
    first, second = (tmp_path / "killed" / "cls" / "c" / number / "0" for number in "01")
    first.rename(tmp_path / "first")
    second.rename(first)
    (tmp_path / "first").rename(second)
    with pytest.raises(StoreError, match="'cls' .*: rows 0 to 1023 are not those that were writ"):
        _ = features.load(tmp_path / "killed").cls
    mended = features.extract(encoder, noise(count), tmp_path / "killed", keep_for=masks())
    np.testing.assert_array_equal(mended.cls, whole.cls)


def test_unreadable_images_are_left_out_and_listed(encoder, tmp_path):
    dataset = noise(20, broken=frozenset({3, 11}))
    store = features.extract(
        encoder, dataset, tmp_path / "f", keep_for=masks(), batch_size=8, skip_unreadable=True
    )
    assert store.attributes["skipped"] == ["noise/3", "noise/11"]
    assert len(store.cls) == 18
    np.testing.assert_array_equal(store.label, np.delete(dataset.labels, [3, 11]))
    assert np.isfinite(store.cls).all()
    # They are not dropped silently if leaving them out was not allowed.
    with pytest.raises(UnreadableImageError, match="noise/3 could not be decoded .*--skip-unread"):
        features.extract(encoder, dataset, tmp_path / "f", keep_for=masks(), batch_size=8)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"keep_for": masks(ratio=0.5)}, "masks is"),
        ({"keep_for": masks(seed=1)}, "masks is"),
        ({"dataset": noise(9)}, "examples is 8 there and 9 here"),
        ({"encoder": MAEEncoder(CONFIG, rngs=nnx.Rngs(1))}, "encoder_sha256 is"),
        ({"keep_for": lambda ids: fixed_keep(1, ids, CONFIG.patches, 0.75)}, "masks_sha256 is"),
    ],
)
def test_a_store_of_something_else_is_refused(encoder, tmp_path, other, field):
    arguments = {"encoder": encoder, "dataset": noise(8), "keep_for": masks(), "batch_size": 8}
    features.extract(**arguments, out=tmp_path / "f")
    with pytest.raises(ValueError, match=f"holds other features; .*{field}"):
        features.extract(**{**arguments, **other}, out=tmp_path / "f")


def test_cls_vectors_are_not_read_before_they_are_used(encoder, tmp_path):
    """Otherwise extraction of a large data set would end with all of them in memory."""
    store = features.extract(encoder, noise(20), tmp_path, keep_for=masks())
    written = store.cls
    assert store.cls is written
    opened = features.load(tmp_path)
    shutil.rmtree(tmp_path / "cls")
    assert len(opened.label) == 20
    with pytest.raises(StoreError, match="NOT_FOUND"):
        _ = opened.cls


def test_no_store_at_all_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no zarr\.json"):
        features.load(tmp_path)


@pytest.mark.parametrize("name", ["label", "example_id", "cls"])
def test_a_missing_chunk_is_never_read_as_zeros(encoder, tmp_path, name):
    """Training on an incomplete copy would otherwise use zeros without an error."""
    features.extract(encoder, noise(5), tmp_path / "f", keep_for=masks(), batch_size=8)
    shutil.rmtree(tmp_path / "f" / name / "c")
    with pytest.raises(StoreError, match=rf"f is damaged, its array '{name}' .* rows 0 to 4 are"):
        assert features.load(tmp_path / "f").cls is None
    shutil.rmtree(tmp_path / "f" / name)
    with pytest.raises(StoreError, match=rf"f is damaged, its array '{name}' cannot be read"):
        assert features.load(tmp_path / "f").cls is None


@pytest.mark.parametrize("name", ["label", "cls"])
def test_an_altered_chunk_is_named_and_extracted_again(encoder, tmp_path, name, capsys):
    extract = functools.partial(features.extract, encoder, noise(5), keep_for=masks(), batch_size=8)
    before = extract(out=tmp_path / "f").cls
    (chunk,) = (path for path in (tmp_path / "f" / name / "c").rglob("*") if path.is_file())
    altered = bytearray(chunk.read_bytes())
    altered[3] ^= 1
    chunk.write_bytes(altered)
    (tmp_path / "f" / "keep" / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=rf"f/{name}/c/0.*: Digest mismatch"):
        _ = features.load(tmp_path / "f").cls
    found = extract(out=tmp_path / "f", progress=Progress(disable=True))
    assert capsys.readouterr().out == (
        f"{chunk} is missing or altered: 5 examples are computed again\n"
    )
    np.testing.assert_array_equal(found.cls, before)
    np.testing.assert_array_equal(found.label, noise(5).labels)


def test_features_that_cannot_be_written_are_told_in_one_line(encoder, tmp_path):
    (tmp_path / "f" / "label").mkdir(parents=True)
    (tmp_path / "f" / "label" / "c").write_text("a file where the chunks go")
    with pytest.raises(StoreError, match=r"cannot write to .*/label/: ") as told:
        features.extract(encoder, noise(5), tmp_path / "f", keep_for=masks(), batch_size=8)
    assert "\n" not in str(told.value)
