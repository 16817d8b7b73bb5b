import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import probe
from jist import placement
from jist.features import cls_vectors, extraction, feature_dim, place_weights
from jist.masking import FixedMask, random_keep
from jist.models import MAEEncoder, ViTConfig
from jist.placement import split_batch

CONFIG = ViTConfig(image_size=8, patch_size=2, dim=8, depth=2, heads=2, mlp_dim=16)


@nnx.jit
def alone(encoder, image, keep):
    return encoder(encoder.preprocessing.normalize(image[None]), keep[None])[0, 0]


# 32 images lie on all 8 devices, 36 on 6 and 7 on 7; two of a device, of 9 tokens each, are just
# enough for its two cores.
@pytest.mark.parametrize(("batch", "parts"), [(32, 2), (36, 3), (7, 1)])
def test_parts_of_a_batch_keep_their_images_and_devices(monkeypatch, batch, parts):
    monkeypatch.setattr(placement, "CPU_TOKENS_PER_CORE", 9)
    monkeypatch.setattr(placement, "available_cores", lambda: 16)
    encoder = MAEEncoder(CONFIG, rngs=nnx.Rngs(0))
    graphdef, weights = nnx.split(encoder)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, 8, 8, 3), np.uint8)
    keep = np.asarray(random_keep(jax.random.key(0), batch, 16, 0.5))
    counts = generator.choice((3, 8), batch)

    @jax.jit
    def encode(weights, images, keep, valid):
        return cls_vectors(nnx.merge(graphdef, weights), images, keep, valid)

    rows = (images, keep, np.arange(8) < counts[:, None])
    rows = jax.device_put(rows, split_batch(batch))
    cut = f"u8[{parts},{batch // parts},8,8,3]"
    assert (cut in str(jax.make_jaxpr(encode)(weights, *rows))) == (parts > 1)
    cls = encode(weights, *rows)
    assert cls.sharding.is_equivalent_to(split_batch(batch), 2)
    program = encode.lower(weights, *rows).compile().as_text()
    assert not any(f" {sent}" in program for sent in ("all-", "collective-"))
    for i, count in enumerate(counts):
        kept = jnp.asarray(keep[i, :count])
        np.testing.assert_allclose(cls[i], alone(encoder, jnp.asarray(images[i]), kept), atol=1e-5)


def test_patch_tokens_are_pooled_without_padding():
    encoder = MAEEncoder(CONFIG, rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))
    keep = random_keep(jax.random.key(0), 2, 16, 0.5)
    valid = jnp.arange(8) < jnp.array([[8], [5]])
    encode = nnx.jit(lambda encoder, images: encoder(images, keep, valid))
    tokens = np.asarray(encode(encoder, encoder.preprocessing.normalize(images)))
    cls = tokens[:, 0]
    mean = np.stack([tokens[0, 1:].mean(axis=0), tokens[1, 1:6].mean(axis=0)])
    for pool, wanted in (("mean", mean), ("both", np.concatenate([cls, mean], axis=1))):
        found = cls_vectors(encoder, images, keep, valid, pool)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert feature_dim(encoder, pool) == wanted.shape[1]
    with pytest.raises(ValueError, match=r"pool must be one of .*, got 'max'"):
        feature_dim(encoder, "max")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_placed_weights_are_those_that_would_be_multiplied(dtype):
    encoder = MAEEncoder(CONFIG, dtype=dtype, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    keep = random_keep(jax.random.key(0), 3, 16, 0.5)
    graphdef, weights = place_weights(encoder, 3)
    assert {x.dtype for x in jax.tree.leaves(weights) if x.ndim > 1} == {jnp.dtype(dtype)}
    encode = nnx.jit(cls_vectors)
    placed = encode(nnx.merge(graphdef, weights), images, keep)
    np.testing.assert_array_equal(placed, encode(encoder, images, keep))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_float32_is_multiplied_as_such_on_every_backend(dtype):
    encoder = MAEEncoder(CONFIG, dtype=dtype, rngs=nnx.Rngs(0))
    graphdef, weights = place_weights(encoder, 2)
    images, mask = jnp.zeros((2, 8, 8, 3), jnp.uint8), FixedMask(CONFIG.patches, 0.5)
    ids = jnp.arange(2, dtype=jnp.uint32)
    for encode, how in ((extraction._encode, (mask, "cls")), (probe._encode, (mask,))):
        program = encode.lower(graphdef, *how, weights, images, ids).as_text()
        products = [line for line in program.splitlines() if "dot_general" in line]
        assert len(products) > 2 * 4  # four linear maps a block, and attention
        exact = ["precision = [HIGHEST, HIGHEST]" in line for line in products]
        assert all(exact) if dtype == jnp.float32 else not any(exact)
