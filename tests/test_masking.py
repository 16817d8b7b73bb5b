import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jist.masking import (
    FixedMask,
    fixed_keep,
    patches_kept,
    random_keep,
    random_keep_of_visible,
)


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 200), st.floats(0, 0.99), st.integers(1, 5), st.integers(0, 2**31 - 1))
def test_kept_patches_are_k_ascending_indices(patches, ratio, batch, seed):
    kept = int(patches * (1 - ratio))
    if kept == 0:
        with pytest.raises(ValueError, match="keeps none"):
            random_keep(jax.random.key(seed), batch, patches, ratio)
        return
    keep = np.asarray(random_keep(jax.random.key(seed), batch, patches, ratio))
    assert keep.shape == (batch, kept)
    assert keep.dtype == np.int32
    assert (np.diff(keep, axis=1) > 0).all()
    assert keep.min() >= 0
    assert keep.max() < patches


@settings(deadline=None, max_examples=12)
@given(st.sampled_from([0.0, 0.5, 0.75, 0.9]), st.integers(0, 2**31 - 1))
def test_of_images_with_holes_the_share_of_what_is_there_is_kept(ratio, seed):
    generator = np.random.default_rng(seed)
    visible = generator.random((6, 25)) < generator.random((6, 1))
    visible[0], visible[1] = True, False
    key = jax.random.key(seed)
    keep, valid = map(np.asarray, random_keep_of_visible(key, jnp.asarray(visible), ratio))
    for row, there in enumerate(visible):
        kept = keep[row, valid[row]]
        count = int(there.sum() * (1 - ratio))
        assert len(kept) == (max(count, 1) if there.any() else 0)
        assert there[kept].all()
        assert (np.diff(kept) > 0).all()
        assert valid[row, : len(kept)].all()  # padding comes last
    # Images with all patches are masked as if no image in the batch lacked any.
    np.testing.assert_array_equal(keep[0], random_keep(key, 6, 25, ratio)[0])


def test_truncation_is_that_of_mae():
    # 196 * 0.1 = 19.6 and 10 * (1 - 0.9) = 0.999…: both are truncated, as int() does.
    assert patches_kept(196, 0.9) == 19
    with pytest.raises(ValueError, match="ratio 0.9 keeps none of the 10 patches"):
        patches_kept(10, 0.9)


def test_the_greatest_ratio_that_is_named_keeps_one():
    for patches in range(1, 1000):
        with pytest.raises(ValueError, match="keeps none") as error:
            patches_kept(patches, 1 - 1e-9)
        greatest = float(re.search(r"at most ([\d.]+) keeps one", str(error.value))[1])
        assert patches_kept(patches, greatest) == 1


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5])
def test_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\), got"):
        patches_kept(64, ratio)


def test_a_fixed_mask_depends_on_seed_and_example_id_only():
    ids = jnp.asarray([7, 3, 2**31 - 1, 11], jnp.int32)
    together = np.asarray(fixed_keep(5, ids, 64, 0.75))
    for row, example_id in enumerate(ids):
        alone = fixed_keep(5, example_id[None], 64, 0.75)
        np.testing.assert_array_equal(alone[0], together[row])
    np.testing.assert_array_equal(fixed_keep(5, ids[::-1], 64, 0.75), together[::-1])
    assert not np.array_equal(fixed_keep(6, ids, 64, 0.75), together)


def test_fixed_masks_do_not_depend_on_how_ids_are_spread_over_devices():
    ids = jnp.arange(16, dtype=jnp.uint32)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(ids, jax.sharding.NamedSharding(mesh, jax.P("batch")))
    masks = FixedMask(patches=49, ratio=0.5, seed=1)
    np.testing.assert_array_equal(jax.jit(masks)(spread), jax.jit(masks)(ids))


def test_a_larger_ratio_keeps_a_subset():
    ids = jnp.arange(8)
    few, many = (np.asarray(fixed_keep(0, ids, 64, ratio)) for ratio in (0.9, 0.5))
    assert all(set(a) <= set(b) for a, b in zip(few, many, strict=True))


def test_every_patch_is_kept_equally_often():
    keep = np.asarray(fixed_keep(0, jnp.arange(4000), 16, 0.75))
    counts = np.bincount(keep.ravel(), minlength=16)
    # Binomial(4000, 1/4): five standard deviations.
    assert abs(counts - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)
