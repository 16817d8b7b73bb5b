"""The masked autoencoder against Hugging Face's, and its loss against the formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled
from flax import nnx

from jist.models import MAE, DecoderConfig, ViTConfig
from jist.models.decoder import Decoder
from jist.models.vit import patchify, unpatchify

CONFIG = ViTConfig(16, 4, dim=32, depth=1, heads=4, mlp_dim=64, layer_norm_eps=1e-12)
DECODER = DecoderConfig(16, 1, 2, 32)
KEEP = jnp.asarray([[0, 5, 9, 12], [1, 2, 3, 15]], jnp.int32)


# Both in one program: compiling is what takes the time here.
run = nnx.jit(lambda model, images: (model(images, KEEP), model.loss(images, KEEP)))


@functools.cache
def build(normalize_pixels):
    return filled(lambda: MAE(CONFIG, DECODER, normalize_pixels=normalize_pixels, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def images():
    return 2 + jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


@pytest.mark.parametrize("normalize_pixels", [True, False])
def test_loss_is_the_mean_error_on_missing_patches(normalize_pixels, images):
    model = build(normalize_pixels)
    target = np.asarray(images).reshape(2, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(2, 16, 48)
    if normalize_pixels:
        mean, variance = target.mean(-1, keepdims=True), target.var(-1, keepdims=True, ddof=1)
        target = (target - mean) / np.sqrt(variance + 1e-6)
    np.testing.assert_allclose(model.target(images), target, atol=1e-4)
    predicted, loss = map(np.asarray, run(model, images))
    missing = [sorted(set(range(16)) - set(row)) for row in np.asarray(KEEP).tolist()]
    errors = [(predicted[i, m] - target[i, m]) ** 2 for i, m in enumerate(missing)]
    assert float(loss) == pytest.approx(np.mean(errors), rel=1e-5)


def test_visible_patches_stay_and_missing_ones_are_predicted(images, monkeypatch):
    model = build(False)
    predicted = np.random.default_rng(0).normal(size=(2, 16, 48)).astype(np.float32)
    monkeypatch.setattr(MAE, "__call__", lambda self, images, keep, valid: jnp.asarray(predicted))
    pictures = model.reconstruct(images, KEEP)
    rows = jnp.arange(2)[:, None]
    before, after = patchify(images, 4), patchify(pictures, 4)
    np.testing.assert_array_equal(after[rows, KEEP], before[rows, KEEP])
    missing = np.ones((2, 16), bool)
    missing[np.arange(2)[:, None], np.asarray(KEEP)] = False
    np.testing.assert_allclose(after[missing], predicted[missing], atol=1e-5)


def test_perfect_prediction_of_normalised_pixels_is_the_image(images, monkeypatch):
    model = build(True)
    monkeypatch.setattr(MAE, "__call__", lambda self, images, keep, valid: self.target(images))
    np.testing.assert_allclose(model.reconstruct(images, KEEP), images, atol=1e-4)


def test_perfect_prediction_of_the_missing_patches_has_no_loss(images, monkeypatch):
    model = build(True)
    rows = jnp.arange(2)[:, None]
    monkeypatch.setattr(
        Decoder,
        "missing",
        lambda self, tokens, keep, missing, valid: model.target(images)[rows, missing],
    )
    assert float(model.loss(images, KEEP)) == 0


def test_loss_does_not_mind_the_order_in_which_kept_patches_are_named(images):
    # The decoder that predicts missing patches alone has to put each token at its own place.
    model = build(True)
    loss = float(run(model, images)[1])
    turned = nnx.jit(lambda model, images: model.loss(images, KEEP[:, ::-1]))(model, images)
    assert float(turned) == pytest.approx(loss, rel=1e-5)


def test_of_images_with_holes_only_what_is_there_is_seen_and_predicted(images):
    """The batch must agree with each image alone, without padding or missing patches."""
    model = build(True)
    visible = np.ones((2, 16), bool)
    visible[1, [0, 4, 7, 8]] = False
    kept = [[0, 5, 9, 12], [1, 15]]
    keep = jnp.asarray([kept[0], [1, 15, 0, 0]], jnp.int32)
    valid = jnp.asarray([[True] * 4, [True, True, False, False]])
    loss = nnx.jit(lambda model, images: model.loss(images, keep, valid, jnp.asarray(visible)))

    @nnx.jit
    def squared(model, image, own, hidden):
        predicted = model.decoder.missing(model.encoder(image, own), own, hidden)
        return (predicted - model.target(image)[:, hidden[0]])[0] ** 2

    errors = []
    for row, shown in enumerate(kept):
        image, own = images[row : row + 1], jnp.asarray([shown], jnp.int32)
        hidden = jnp.asarray([sorted(set(np.flatnonzero(visible[row])) - set(shown))], jnp.int32)
        errors.append(squared(model, image, own, hidden))
    expected = float(np.mean(np.concatenate(errors)))
    assert float(loss(model, images)) == pytest.approx(expected, rel=1e-5)
    patches = patchify(images, 4).at[1, jnp.asarray([0, 4, 7, 8])].set(99.0)
    assert float(loss(model, unpatchify(patches, 4))) == pytest.approx(expected, rel=1e-5)


def test_padding_leaves_no_missing_patch_out(images):
    model = build(True)
    keep, valid = jnp.asarray([[0, 1, 0, 0]] * 2), jnp.asarray([[True, True, False, False]] * 2)
    loss = nnx.jit(lambda model, images: model.loss(images, keep, valid))(model, images)
    expected = nnx.jit(lambda model, images: model.loss(images, keep[:, :2]))(model, images)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_images_of_which_nothing_is_there_have_no_loss_and_no_gradient(images):
    nothing = jnp.zeros((2, 16), bool)
    lose = lambda model: model.loss(images, KEEP, jnp.zeros((2, 4), bool), nothing)  # noqa: E731
    loss, gradients = nnx.jit(nnx.value_and_grad(lose))(build(True))
    assert float(loss) == 0
    assert all(not jnp.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_patch_of_one_colour_gives_a_finite_loss():
    images = jnp.full((2, 16, 16, 3), 0.5)
    assert jnp.isfinite(run(build(True), images)[1])


def test_nothing_missing_has_no_loss(images):
    everything = jnp.tile(jnp.arange(16, dtype=jnp.int32), (2, 1))
    with pytest.raises(ValueError, match="keep holds all 16 patches"):
        build(True).loss(images, everything)


def test_unpatchify_is_the_inverse_of_patchify(images):
    np.testing.assert_array_equal(unpatchify(patchify(images, 4), 4), images)


def test_decoder_that_does_not_divide():
    with pytest.raises(ValueError, match="dim=16, heads=3"):
        DecoderConfig(16, 1, 3, 32)
    with pytest.raises(ValueError, match="depth must be positive"):
        DecoderConfig(depth=0)


def test_every_parameter_is_trained(images):
    # Positions are not parameters; the gradient of all others is not zero somewhere.
    model = build(True)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    loss = lambda params, rest: nnx.merge(graphdef, params, rest).loss(images, KEEP)  # noqa: E731
    gradients = jax.jit(jax.grad(loss))(params, rest)
    flat, _ = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(gradients))
    still = {jax.tree_util.keystr(path) for path, leaf in flat if not jnp.any(leaf != 0)}
    assert still == set()


@pytest.mark.parametrize("normalize_pixels", [True, False])
def test_agrees_with_huggingface(normalize_pixels, images):
    torch = pytest.importorskip("torch", reason="runs ViTMAEForPreTraining")
    transformers = pytest.importorskip("transformers", reason="has ViTMAEForPreTraining")
    theirs = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            image_size=16,
            patch_size=4,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=64,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=32,
            norm_pix_loss=normalize_pixels,
        )
    ).eval()
    model = build(normalize_pixels)
    with torch.no_grad():
        for tensor in theirs.parameters():
            tensor.add_(0.2 * torch.randn(tensor.shape))
        # Kept patches get the lowest noise, in their order.
        noise = np.ones((2, 16), np.float32)
        np.put_along_axis(noise, np.asarray(KEEP), np.asarray([[0, 0.1, 0.2, 0.3]], np.float32), 1)
        pixels = torch.from_numpy(np.array(images).transpose(0, 3, 1, 2).copy())
        output = theirs(pixels, noise=torch.from_numpy(noise))
    copy_weights(theirs, model)
    ours, loss = run(model, images)
    expected = output.logits.numpy()
    error = np.linalg.norm(ours - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert error.max() < 1e-5
    assert float(loss) == pytest.approx(float(output.loss), rel=1e-5)


def copy_weights(theirs, model):
    """Written tensor by tensor: an oracle that shares no code with the conversion."""

    def array(tensor):
        return jnp.asarray(tensor.detach().numpy())

    def linear(ours, layer):
        ours.kernel[...], ours.bias[...] = array(layer.weight).T, array(layer.bias)

    def norm(ours, layer):
        ours.scale[...], ours.bias[...] = array(layer.weight), array(layer.bias)

    def block(ours, layer):
        norm(ours.norm1, layer.layernorm_before)
        norm(ours.norm2, layer.layernorm_after)
        parts = [getattr(layer.attention, f"{name}_proj") for name in "qkv"]
        ours.attention.qkv.kernel[...] = jnp.concatenate([array(p.weight).T for p in parts], axis=1)
        ours.attention.qkv.bias[...] = jnp.concatenate([array(p.bias) for p in parts])
        linear(ours.attention.out, layer.attention.o_proj)
        linear(ours.mlp_in, layer.mlp.fc1)
        linear(ours.mlp_out, layer.mlp.fc2)

    embeddings = theirs.vit.embeddings
    projection = embeddings.patch_embeddings.projection
    model.encoder.embed.kernel[...] = array(projection.weight).transpose(2, 3, 1, 0).reshape(48, 32)
    model.encoder.embed.bias[...] = array(projection.bias)
    model.encoder.cls[...] = array(embeddings.cls_token)[0, 0]
    model.encoder.positions[...] = array(embeddings.position_embeddings)[0]
    block(model.encoder.blocks[0], theirs.vit.layers[0])
    norm(model.encoder.norm, theirs.vit.layernorm)
    linear(model.decoder.embed, theirs.decoder.decoder_embed)
    model.decoder.mask_token[...] = array(theirs.decoder.mask_token)[0, 0]
    model.decoder.positions[...] = array(theirs.decoder.decoder_pos_embed)[0]
    block(model.decoder.blocks[0], theirs.decoder.decoder_layers[0])
    norm(model.decoder.norm, theirs.decoder.decoder_norm)
    linear(model.decoder.pixels, theirs.decoder.decoder_pred)
