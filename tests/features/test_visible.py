"""Natural masks end to end: from missing pixels to CLS vectors that do not depend on the batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jist import features
from jist.data import Dataset, EmptyImageError, NaturalMasks
from jist.features.by_length import LENGTHS, ByLength
from jist.features.visible import NO_PATCH
from jist.masking import visible_patches
from jist.models import MAEEncoder, ViTConfig

CONFIG = ViTConfig(image_size=8, patch_size=2, dim=8, depth=2, heads=2, mlp_dim=16)
COUNT = 45


run = nnx.jit(lambda encoder, *arguments: encoder(*arguments))


@pytest.fixture(scope="module")
def encoder():
    return MAEEncoder(CONFIG, rngs=nnx.Rngs(0))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Torn(Dataset):
    """Random images of which image i shows i mod 17 patches; what is missing is noise by `salt`."""

    salt: int = 0
    opened: list = dataclasses.field(default_factory=list)

    def open(self, index):
        raise AssertionError("opened without its missing regions")

    def shown(self, index):
        return np.sort(np.random.default_rng(index).permutation(16)[: index % 17])

    def open_with_missing(self, index, no_data=None):
        index = int(index)
        self.opened.append(index)
        missing = np.ones((4, 4), bool)
        missing.flat[self.shown(index)] = False
        missing = missing.repeat(2, axis=0).repeat(2, axis=1)
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        noise = np.random.default_rng([index, self.salt]).integers(0, 256, (8, 8, 3), np.uint8)
        return Image.fromarray(np.where(missing[:, :, None], noise, pixels)), missing


def torn(indices=None, **options):
    return Torn(
        name="torn",
        split="train",
        class_names=("a", "b"),
        keys=tuple(f"torn/{i}" for i in range(COUNT)),
        labels=np.arange(COUNT, dtype=np.int32) % 2,
        **options,
    )


def extract(encoder, out, dataset=None, **options):
    arguments = {"keep_for": NaturalMasks(), "batch_size": 8, "skip_empty": True} | options
    return features.extract(encoder, dataset or torn(), out, **arguments)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.data())
def test_visible_patches_are_those_with_little_missing(rows, columns, patch_size, batch, data):
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = (batch, rows * patch_size, columns * patch_size)
    missing = generator.random(shape) < generator.random((batch, 1, 1))
    most = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.99]))
    keep, valid = visible_patches(missing, patch_size, most)
    assert (keep.dtype, valid.dtype, keep.shape) == (np.int32, bool, valid.shape)
    counts = []
    for image, kept, real in zip(missing, keep, valid, strict=True):
        expected = [
            row * columns + column
            for row in range(rows)
            for column in range(columns)
            if image[
                row * patch_size : (row + 1) * patch_size,
                column * patch_size : (column + 1) * patch_size,
            ].mean()
            <= most
        ]
        assert kept[real].tolist() == expected
        assert not kept[~real].any()
        assert (np.diff(real.astype(int)) <= 0).all()
        counts.append(len(expected))
    assert keep.shape[1] == max(counts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 0.0), "patch_size must divide the sides of the images, got 3 for 8 × 8"),
        ((2, 1.0), r"max_missing must lie in \[0, 1\), got 1.0"),
    ],
)
def test_what_makes_no_patches_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        visible_patches(np.zeros((1, 8, 8), bool), *arguments)


@pytest.mark.parametrize("kept", [0, 1, 9])
def test_padding_changes_no_token(encoder, kept):
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
    keep = jax.random.permutation(jax.random.key(1), jnp.arange(16))[:kept]
    keep = jnp.tile(keep.astype(jnp.int32), (3, 1))
    alone = run(encoder, images, keep)
    padding = jax.random.randint(jax.random.key(2), (3, 5), 0, 16, jnp.int32)
    valid = jnp.arange(kept + 5) < jnp.full((3, 1), kept)
    padded = run(encoder, images, jnp.concatenate([keep, padding], axis=1), valid)
    np.testing.assert_allclose(padded[:, : 1 + kept], alone, atol=1e-6)


def test_a_mask_of_nothing_is_no_mask(encoder):
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
    keep = jnp.tile(jnp.arange(7, dtype=jnp.int32), (3, 1))
    everything = run(encoder, images, keep, jnp.ones((3, 7), bool))
    np.testing.assert_allclose(everything, run(encoder, images, keep), atol=1e-6)


def test_without_padding_no_mask_is_computed(encoder):
    images = jnp.zeros((3, 8, 8, 3))
    keep = jnp.zeros((3, 7), jnp.int32)
    plain = str(jax.make_jaxpr(lambda i, k: encoder(i, k))(images, keep))
    masked = str(jax.make_jaxpr(lambda i, k: encoder(i, k, k == 0))(images, keep))
    assert "bool[3,1,1,8]" in masked
    assert "bool[3,1,1,8]" not in plain


def test_an_image_alone_has_the_cls_that_it_has_in_any_batch(encoder, tmp_path):
    dataset = torn()
    stores = [extract(encoder, tmp_path / f"{b}", batch_size=b) for b in (8, 45, 1)]
    there = np.arange(COUNT)[np.arange(COUNT) % 17 > 0]
    np.testing.assert_array_equal(stores[0].label, dataset.labels[there])
    for store in stores[1:]:
        np.testing.assert_allclose(store.cls, stores[0].cls, atol=1e-5)
    for place, index in list(enumerate(there))[::11]:
        image, _ = dataset.open_with_missing(index)
        pixels = encoder.preprocessing.normalize(jnp.asarray(np.asarray(image))[None])
        keep = jnp.asarray(dataset.shown(index), jnp.int32)[None]
        alone = run(encoder, pixels, keep)[0, 0]
        np.testing.assert_allclose(stores[0].cls[place], alone, atol=1e-5)


def test_what_is_missing_plays_no_part(encoder, tmp_path):
    one = extract(encoder, tmp_path / "one")
    other = extract(encoder, tmp_path / "other", torn(salt=1))
    np.testing.assert_array_equal(one.cls, other.cls)


def test_masks_are_kept_readable(encoder, tmp_path):
    store = extract(encoder, tmp_path / "f")
    kvstore = {"driver": "file", "path": str(tmp_path / "f" / "keep")}
    keep = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result().read().result()
    for index, row in enumerate(keep):
        assert row[row != NO_PATCH].tolist() == torn().shown(index).tolist()
    assert store.attributes["masks"]["name"] == "natural"
    counts = np.arange(COUNT) % 17
    expected = 1 - counts[counts > 0].mean() / 16
    assert store.attributes["missing_share"] == pytest.approx(expected)


def test_an_image_with_nothing_visible_is_named_or_left_out(encoder, tmp_path):
    with pytest.raises(EmptyImageError, match="nothing of image torn/0 is visible.*--skip-empty"):
        extract(encoder, tmp_path / "f", skip_empty=False)
    store = extract(encoder, tmp_path / "f")
    assert store.attributes["empty"] == ["torn/0", "torn/17", "torn/34"]
    assert store.attributes["skipped"] == []
    assert len(store.cls) == COUNT - 3
    # Images that were left out are not dropped silently.
    with pytest.raises(EmptyImageError, match="torn/0"):
        extract(encoder, tmp_path / "f", skip_empty=False)


def test_a_finished_extraction_opens_no_image_and_another_mask_is_refused(encoder, tmp_path):
    first = extract(encoder, tmp_path / "f")
    again = torn()
    second = extract(encoder, tmp_path / "f", again)
    assert again.opened == []
    np.testing.assert_array_equal(first.cls, second.cls)
    for other in (NaturalMasks(max_missing=0.5), NaturalMasks(no_data=0), NaturalMasks(clouds=0.2)):
        with pytest.raises(ValueError, match="holds other features; .*masks is"):
            extract(encoder, tmp_path / "f", keep_for=other)


def test_few_programs_are_compiled(encoder):
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 17, 200)
    keep = np.full((200, 16), NO_PATCH, np.int32)
    for row, count in zip(keep, counts, strict=True):
        row[:count] = np.arange(count)
    by_length = ByLength(encoder, 8)
    compiled = set()
    encode = by_length._encode
    by_length._encode = lambda *batch: (compiled.add(batch[1].shape), encode(*batch))[1]
    by_length(np.zeros((200, 8, 8, 3), np.uint8), keep)
    assert 2 <= len(compiled) <= LENGTHS
