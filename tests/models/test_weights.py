"""Encoders go to disk and come back; what does not fit is listed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled
from flax import nnx
from safetensors.numpy import load_file, save_file

from jist.models import (
    MAE,
    DecoderConfig,
    MAEEncoder,
    Preprocessing,
    ViTConfig,
    digest,
    load_encoder,
    load_mae,
    load_resnet,
    save_encoder,
    save_mae,
)
from jist.models.positions import resize_positions
from jist.models.storage import staged, tensors

CONFIG = ViTConfig(16, 4, dim=16, depth=1, heads=2, mlp_dim=32, layer_norm_eps=1e-5)
PREPROCESSING = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")


@pytest.fixture(scope="module")
def mae():
    return filled(
        lambda: MAE(
            CONFIG,
            DecoderConfig(8, 1, 2, 16),
            normalize_pixels=False,
            preprocessing=PREPROCESSING,
            rngs=nnx.Rngs(0),
        )
    )


@pytest.fixture
def directory(mae, tmp_path):
    save_mae(mae, tmp_path / "mae", source={"command": "test"})
    return tmp_path / "mae"


def assert_equal(one, other):
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_encoder_comes_back(mae, tmp_path):
    save_encoder(mae.encoder, tmp_path / "a" / "b", source={"from": "here"})
    encoder = load_encoder(tmp_path / "a" / "b", dtype=jnp.bfloat16)
    assert_equal(encoder, mae.encoder)
    assert (encoder.config, encoder.preprocessing) == (CONFIG, PREPROCESSING)
    assert encoder.dtype == jnp.bfloat16
    config = json.loads((tmp_path / "a/b/config.json").read_text())
    assert config["source"] == {"from": "here"}


def test_mae_comes_back_and_so_does_its_encoder(mae, directory):
    loaded = load_mae(directory)
    assert_equal(loaded, mae)
    assert loaded.normalize_pixels is False
    assert digest(load_encoder(directory)) == digest(mae.encoder)


def test_all_files_may_be_read_as_far_as_any_new_one(directory):
    (directory / "new").write_text("")
    modes = {file.name: oct(file.stat().st_mode) for file in directory.iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_digest_knows_everything_that_enters_a_feature(mae):
    def with_(**changes):
        arguments = {"preprocessing": PREPROCESSING, "dtype": "float32", "seed": 0} | changes
        seed = arguments.pop("seed")
        return digest(filled(lambda: MAEEncoder(CONFIG, **arguments, rngs=nnx.Rngs(0)), seed))

    digests = [
        with_(),
        with_(preprocessing=Preprocessing()),
        with_(dtype="bfloat16"),
        with_(seed=1),
    ]
    assert with_() == digests[0]
    assert len(set(digests)) == 4


def test_other_image_size_interpolates_positions_only(mae, directory):
    encoder = load_encoder(directory, image_size=24)
    assert encoder.config.image_size == 24
    stored, resized = tensors(mae.encoder), tensors(encoder)
    np.testing.assert_array_equal(resized["positions"][0], stored["positions"][0])
    expected = resize_positions(np.asarray(stored["positions"]), 6)
    np.testing.assert_array_equal(resized.pop("positions"), expected)
    for name, array in resized.items():
        np.testing.assert_array_equal(array, stored[name])
    tokens = nnx.jit(lambda encoder, x: encoder(x, None))(encoder, jnp.zeros((1, 24, 24, 3)))
    assert tokens.shape == (1, 37, 16)
    assert digest(encoder) != digest(mae.encoder)
    with pytest.raises(ValueError, match="multiple of patch_size"):
        load_encoder(directory, image_size=25)


def test_every_fault_is_listed(directory):
    file = directory / "encoder.safetensors"
    arrays = load_file(file)
    del arrays["cls"], arrays["blocks.0.mlp_in.bias"]
    arrays |= {"head.kernel": np.ones(3, np.float32), "norm.bias": np.ones(3, np.float32)}
    save_file(arrays, file)
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_encoder(directory)
    for line in (
        "missing: cls",
        "missing: blocks.0.mlp_in.bias",
        "unexpected: head.kernel",
        "misshapen: norm.bias is [3], expected [16]",
    ):
        assert line in str(caught.value)


def test_half_precision_files_are_read_as_float32(mae, directory):
    file = directory / "encoder.safetensors"
    save_file({k: v.astype(np.float16) for k, v in load_file(file).items()}, file)
    leaves = jax.tree.leaves(nnx.state(load_encoder(directory)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_damaged_directories_are_named(directory):
    file = directory / "encoder.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"encoder.safetensors is damaged"):
        load_encoder(directory)
    config = directory / "config.json"
    good = json.loads(config.read_text())
    config.write_text(json.dumps(good | {"version": 99}))
    with pytest.raises(ValueError, match="version 99, expected 'jist-encoder' version 1"):
        load_encoder(directory)
    config.write_text(json.dumps(good))
    with pytest.raises(ValueError, match=r"jist\.models\.load_encoder"):
        load_resnet(directory)
    config.write_text("[]")
    with pytest.raises(ValueError, match="no JSON object"):
        load_encoder(directory)
    config.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_encoder(directory)


def test_encoder_alone_is_no_mae(mae, tmp_path):
    save_encoder(mae.encoder, tmp_path / "encoder")
    # A shipped encoder has no decoder, so their names are not among what is allowed.
    with pytest.raises(FileNotFoundError, match=r"decoder\.safetensors is missing; [^,]*$"):
        load_mae(tmp_path / "encoder")
    with pytest.raises(FileNotFoundError, match=r"nano-cifar10: decoder\..*have no decoder"):
        load_mae("mae-nano-cifar10")


def test_existing_directories_are_left_alone(mae, directory):
    before = (directory / "encoder.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="exists"):
        save_encoder(mae.encoder, directory)
    assert (directory / "encoder.safetensors").read_bytes() == before


def test_a_mae_takes_the_place_of_one_and_of_nothing_else(mae, directory):
    save_mae(mae, directory, source={"epochs": 2}, overwrite=True)
    assert json.loads((directory / "config.json").read_text())["source"] == {"epochs": 2}
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not replaced"):
        save_mae(mae, directory, overwrite=True)
    load_mae(directory)


def test_interrupted_writing_leaves_what_was_there(directory):
    def write():
        with staged(directory, overwrite=True) as staging:
            (staging / "config.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    load_mae(directory)
    assert [path.name for path in directory.parent.iterdir()] == ["mae"]
