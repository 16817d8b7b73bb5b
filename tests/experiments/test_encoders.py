"""Encoders of both kinds give features to the same head."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled, he
from flax import nnx
from PIL import Image
from rich.progress import Progress

from experiments import encoders
from experiments.command.options import ImageOptions
from experiments.encoders import EncodersOptions
from experiments.runs import images, inputs
from jist.models import ResNet50, ViTConfig, abstract, resnet, save_resnet

SIDE = 32
BATCH = 8  # shorter ones are padded
STAGES = ((8, 1), (8, 1), (8, 1), (16, 2))  # channels and blocks
FEATURES = 16 * resnet.EXPANSION


@pytest.fixture(scope="module", autouse=True)
def small_resnet():
    """A narrow network for small images: its own size is another test's."""
    small = functools.partial(resnet.WholeImage, image_size=SIDE, patch_size=SIDE, dim=FEATURES)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resnet, "WholeImage", small)
        patched.setattr(resnet, "STAGES", STAGES)
        # What is remembered of the network is of one size: other modules load the whole one.
        abstract._traced.cache_clear()
        yield
    abstract._traced.cache_clear()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoders") / "resnet50"
    save_resnet(filled(lambda: ResNet50(rngs=nnx.Rngs(0)), deviation=he), path)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        for i in range(6):
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_a_masked_autoencoder_and_a_resnet_are_compared(dataset, directory, tmp_path):
    options = EncodersOptions(
        dataset=f"folder:{dataset}",
        encoders=("random-nano", str(directory)),
        run_dir=tmp_path,
        hidden=(8,),
        batch_size=4,
        epochs=2,
        encode_batch=BATCH,
    )
    encoders.main(options)
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert {(r["directory"], r["feature_dim"], r["ratio"]) for r in results} == {
        ("random-nano", ViTConfig.nano().dim, 0.0),
        ("resnet50", FEATURES, 0.0),
    }
    with Image.open(tmp_path / "figure-3.png") as picture:
        picture.verify()

    # The training examples are the pooled features of the unmasked images.
    whole = images.build_encoder(ImageOptions(encoder=str(directory)))
    assert isinstance(whole, ResNet50)
    wanted = ImageOptions(dataset=f"folder:{dataset}", encoder=str(directory), encode_batch=BATCH)
    with Progress(disable=True) as progress:
        stores = inputs.open_inputs(wanted).splits(0.0, tmp_path / "features", progress)
    files = [*dataset.glob("*/*.png")]
    pixels = jnp.stack([jnp.asarray(Image.open(file)) for file in files])
    averages = jax.jit(lambda x: whole(whole.preprocessing.normalize(x)))(pixels)
    stored = np.concatenate([stores[split].features.cls for split in ("train", "test")])
    np.testing.assert_allclose(
        np.sort(stored.sum(axis=1)), np.sort(np.asarray(averages).sum(axis=1)), rtol=1e-4
    )


@pytest.mark.parametrize("encoder", ["random-nano", "resnet50"])
def test_an_encoder_may_compute_in_bfloat16(encoder, dataset, directory, tmp_path):
    name = str(directory) if encoder == "resnet50" else encoder
    found, names = {}, {}
    for dtype in ("float32", "bfloat16"):
        options = ImageOptions(
            dataset=f"folder:{dataset}", encoder=name, encode_dtype=dtype, encode_batch=BATCH
        )
        names[dtype] = options.encoder_name
        with Progress(disable=True) as progress:
            stores = inputs.open_inputs(options).splits(0.0, tmp_path, progress)
        found[dtype] = stores["train"].features.cls
    exact, rounded = found["float32"], found["bfloat16"]
    error = np.linalg.norm(rounded - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 1e-4 < error.max() < 0.05
    assert names == {"float32": name, "bfloat16": f"{name} in bfloat16"}
    with pytest.raises(ValueError, match="encode_dtype must be one of .* got 'float16'"):
        images.build_encoder(ImageOptions(encoder=name, encode_dtype="float16"))


def test_a_resnet_goes_without_masks(dataset, directory, tmp_path):
    options = ImageOptions(dataset=f"folder:{dataset}", encoder=str(directory))
    whole = images.build_encoder(options)
    with (
        pytest.raises(ValueError, match=r"ratio 0\.5 keeps none of the 1 patches"),
        Progress(disable=True) as progress,
    ):
        inputs.open_inputs(options).splits(0.5, tmp_path, progress)
    with pytest.raises(ValueError, match="needs whole images"):
        images.random_masks(options, 0.0, whole)


@pytest.mark.parametrize(
    "option",
    [{"simulate_clouds": 0.3}, {"natural_masks": True}, {"no_data": 0}, {"dataset": "masked:x"}],
)
def test_images_with_masks_are_refused(option, tmp_path):
    options = EncodersOptions(encoders=("random-nano",), run_dir=tmp_path, **option)
    (name, value) = option.popitem()
    with pytest.raises(ValueError, match=f"compared on unmasked images, .* got .*{name}={value}"):
        encoders.main(options)


def test_encoders_of_one_name_are_refused(tmp_path):
    options = EncodersOptions(encoders=("a/base", "b/base"), run_dir=tmp_path)
    with pytest.raises(ValueError, match="encoders must have names of their own"):
        encoders.main(options)
