import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jist import costs
from jist.data import Dataset, UnreadableImageError
from jist.features import cls_vectors
from jist.features.random_masks import EpochEncoder, epoch_keep
from jist.masking import fixed_keep
from jist.models import MAEEncoder, ViTConfig
from jist.placement import available_memory_bytes

CONFIG = ViTConfig(image_size=8, patch_size=2, dim=8, depth=2, heads=2, mlp_dim=16)


def test_memory_is_that_of_the_control_group(tmp_path):
    whole = available_memory_bytes(tmp_path)
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("1:name=systemd:/x\n0::/job/step\n")
    step = tmp_path / "sys/fs/cgroup/job/step"
    step.mkdir(parents=True)
    (step / "memory.max").write_text("max\n")
    assert available_memory_bytes(tmp_path) == whole
    (step.parent / "memory.max").write_text("1000000\n")
    assert available_memory_bytes(tmp_path) == 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Noise(Dataset):
    """Random images; `broken` ones cannot be decoded, `opened` records which were decoded."""

    broken: frozenset = frozenset()
    opened: list = dataclasses.field(default_factory=list)

    def open(self, index):
        self.opened.append(index)
        if index in self.broken:
            raise UnreadableImageError(f"cannot read image {index}")
        return Image.fromarray(self.pixels(index))

    def pixels(self, index):
        return np.random.default_rng(index).integers(0, 256, (8, 8, 3)).astype(np.uint8)


def noise(count, **options):
    return Noise(
        name="noise",
        split="train",
        class_names=("a",),
        keys=tuple(f"image {i}" for i in range(count)),
        labels=np.zeros(count, np.int32),
        **options,
    )


@pytest.fixture(scope="module")
def encoder():
    return MAEEncoder(CONFIG, rngs=nnx.Rngs(0))


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(1, 1000),
    ids=st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3),
)
def test_a_mask_depends_on_seed_epoch_and_id_alone(seed, epoch, ids):
    ids = np.array(ids, np.uint32)
    keep = np.asarray(epoch_keep(seed, epoch, ids, 64, 0.75))
    assert keep.shape == (3, 16)
    assert (np.diff(keep) > 0).all()
    alone = [np.asarray(epoch_keep(seed, epoch, ids[i : i + 1], 64, 0.75)) for i in range(3)]
    np.testing.assert_array_equal(keep, np.concatenate(alone))


def test_epochs_have_masks_of_their_own_that_cover_every_patch():
    ids = np.arange(4, dtype=np.uint32)
    masks = np.stack([np.asarray(epoch_keep(0, epoch, ids, 16, 0.75)) for epoch in range(1, 61)])
    assert len({mask.tobytes() for mask in masks}) == 60
    assert not any((mask == np.asarray(fixed_keep(0, ids, 16, 0.75))).all() for mask in masks)
    # Each patch is visible in a quarter of the epochs: 60 draws of 1/4 are within 4 deviations.
    shown = np.stack([(masks == patch).any(-1).mean(0) for patch in range(16)])
    assert abs(shown - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 60)


@pytest.mark.parametrize("in_memory", [True, False])
def test_each_vector_is_that_of_its_image_alone(encoder, in_memory):
    dataset = noise(7)
    epochs = EpochEncoder(encoder, dataset, ratio=0.5, seed=3, batch_size=4, in_memory=in_memory)
    # Twice, and out of order: only the images are cached.
    for epoch in (2, 1, 2):
        cls = epochs(epoch)
        for i in range(7):
            keep = epoch_keep(3, epoch, dataset.example_ids[i : i + 1], 16, 0.5)
            image = encoder.preprocessing.normalize(jnp.asarray(dataset.pixels(i))[None])
            np.testing.assert_allclose(cls[i], encoder(image, keep)[0, 0], atol=1e-5)
    assert len(dataset.opened) == (7 if in_memory else 21)


def test_an_unreadable_image_stops_or_is_left_out(encoder):
    dataset = noise(6, broken=frozenset({2}))
    with pytest.raises(UnreadableImageError, match="cannot read image 2"):
        EpochEncoder(encoder, dataset, ratio=0.5, seed=0)(1)
    some = EpochEncoder(encoder, dataset, ratio=0.5, seed=0, batch_size=4, skip_unreadable=True)
    whole = EpochEncoder(encoder, noise(6), ratio=0.5, seed=0, batch_size=4)
    np.testing.assert_array_equal(some(1), np.delete(whole(1), 2, axis=0))


def test_a_wrong_ratio_or_batch_is_refused(encoder):
    with pytest.raises(ValueError, match="ratio 0.99 keeps none of the 16 patches"):
        EpochEncoder(encoder, noise(2), ratio=0.99, seed=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        EpochEncoder(encoder, noise(2), ratio=0.5, seed=0, batch_size=0)


def test_vit_base_does_a_quarter_of_the_work_on_a_quarter_of_the_patches():
    base = ViTConfig.base()
    encoder = nnx.eval_shape(lambda: MAEEncoder(base, rngs=nnx.Rngs(0)))
    graphdef, weights = nnx.split(encoder)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.uint8)
    whole, quarter = (
        costs.matmul_flops(
            lambda w, x, keep: cls_vectors(nnx.merge(graphdef, w), x, keep),
            weights,
            image,
            jax.ShapeDtypeStruct((1, kept), jnp.int32),
        )
        for kept in (196, 49)
    )
    assert whole / quarter > 4
