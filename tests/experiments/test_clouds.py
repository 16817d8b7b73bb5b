"""What encoders are shown in the place of clouds."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments import clouds
from experiments.command.errors import UsageError
from experiments.runs import filling
from jist.features.visible import natural_keep
from jist.models import MAE, DecoderConfig, ViTConfig, save_mae


def test_what_is_visible_stays_and_what_is_hidden_has_no_influence():
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    hidden = generator.random((3, 8, 8)) < 0.4
    other[~hidden] = one[~hidden]
    mean = (51, 102, 153)
    for method in ("painted", "mean", "nearest"):
        found = filling.filled(one, hidden, method, mean)
        np.testing.assert_array_equal(found[~hidden], one[~hidden])
        np.testing.assert_array_equal(found, filling.filled(other, hidden, method, mean))
    np.testing.assert_array_equal(filling.filled(one, hidden, "clear", mean), one)
    assert (filling.filled(one, hidden, "mean", mean)[hidden] == (51, 102, 153)).all()


def test_the_nearest_colour_is_that_of_a_pixel_at_the_least_distance():
    hidden = np.random.default_rng(1).random((9, 7)) < 0.7
    places = np.stack(np.indices(hidden.shape), axis=-1).astype(np.uint8)  # [row, column]
    found = filling.nearest(places, hidden).astype(int)
    there = np.argwhere(~hidden)
    for place in np.argwhere(hidden):
        least = np.square(there - place).sum(axis=1).min()
        assert np.square(found[tuple(place)] - place).sum() == least


def test_means_over_the_seeds():
    costs = {"bytes_per_image": 3072, "cpu_ms_per_image": 0.5}
    rows = [
        {"cover": 0.1, "method": "mean", "seed": seed, "test_accuracy": accuracy} | costs
        for seed, accuracy in ((0, 0.4), (1, 0.6))
    ]
    (row,) = clouds.summary(rows)
    assert (row["mean"], row["deviation"]) == (pytest.approx(0.5), pytest.approx(0.1))
    assert (row["bytes"], row["cpu_ms"]) == (3072, 0.5)


@pytest.fixture(scope="module")
def mae():
    """Of images of 16 pixels and patches of 4, predicted but for mean and deviation."""
    config = dataclasses.replace(ViTConfig.nano(), image_size=16, dim=16, heads=2, mlp_dim=16)
    config = dataclasses.replace(config, depth=1, patch_size=4)
    decoder = DecoderConfig(dim=16, depth=1, heads=2, mlp_dim=16)
    return MAE(config, decoder, rngs=nnx.Rngs(0))


def test_what_is_hidden_has_no_influence_on_its_reconstruction(mae):
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
    hidden = np.zeros((3, 16, 16), bool)
    hidden[0, :5, :9], hidden[1, 4:, 3:], hidden[2, 0, 0] = True, True, True
    other[~hidden] = one[~hidden]
    keep = natural_keep(hidden, 4, 0.0)
    found = filling.reconstructed(mae, one, hidden, keep, batch_size=2)
    np.testing.assert_array_equal(found[~hidden], one[~hidden])
    np.testing.assert_array_equal(
        found, filling.reconstructed(mae, other, hidden, keep, batch_size=2)
    )
    # Without padding: the same as by the model itself, given the nearest patches.
    kept = keep[0][keep[0] >= 0]
    borrowed = filling.nearest_patches(one[0], keep[0], 4)
    np.testing.assert_array_equal(borrowed[:4, :4], one[0, 8:12, :4])
    preprocessing = mae.encoder.preprocessing
    given = preprocessing.normalize(jnp.asarray(borrowed)[None])
    wanted = mae.reconstruct(given, jnp.asarray(kept)[None])[0]
    wanted = 255 * (wanted * jnp.asarray(preprocessing.std) + jnp.asarray(preprocessing.mean))
    difference = np.abs(np.clip(wanted, 0, 255) - found[0].astype(float))
    assert difference[hidden[0]].max() < 0.51


def test_the_methods_follow_from_the_encoder(mae, tmp_path):
    shipped = clouds.CloudsOptions()
    usual = ("dropped", "painted", "mean", "nearest")
    assert clouds.methods_of(shipped) == (usual, None)
    relaxed = dataclasses.replace(shipped, max_missing=0.5)
    assert {*clouds.methods_of(relaxed)[0]} == {*usual, "relaxed"}
    for given, said in (
        ({"methods": ("relaxed",)}, "relaxed needs --max-missing"),
        ({"methods": ("mean",), "max_missing": 0.5}, "--max-missing 0.5 needs --methods relaxed"),
    ):
        with pytest.raises(UsageError, match=said):
            clouds.methods_of(dataclasses.replace(shipped, **given))
    with pytest.raises(UsageError, match="reconstructed needs an encoder with its decoder"):
        clouds.methods_of(dataclasses.replace(shipped, methods=("mean", "reconstructed")))
    with pytest.raises(UsageError, match="got 'median'"):
        clouds.methods_of(dataclasses.replace(shipped, methods=("median",)))
    save_mae(mae, tmp_path / "mae")
    own = clouds.CloudsOptions(encoder=str(tmp_path / "mae"))
    found, loaded = clouds.methods_of(own)
    assert {*found} == {*usual, "reconstructed"}
    assert loaded is not None


def test_a_study_goes_on_and_dropped_patches_are_counted(mae, tmp_path, capsys):
    save_mae(mae, tmp_path / "mae")
    options = clouds.CloudsOptions(
        encoder=str(tmp_path / "mae"),
        methods=("dropped", "relaxed", "reconstructed"),
        max_missing=0.5,
        covers=(0.3,),
        seeds=(0,),
        train=40,
        test=20,
        batch_size=20,
        out=tmp_path / "out",
    )
    clouds.main(options)
    file = tmp_path / "out" / "clouds.json"
    rows = json.loads(file.read_text())["results"]
    assert [row["method"] for row in rows] == ["clear", *options.methods]
    size = {row["method"]: row["bytes_per_image"] for row in rows}
    assert size["clear"] == size["reconstructed"] == 16 * 16 * 3
    assert 0 < size["dropped"] < size["relaxed"] < size["clear"]
    assert size["dropped"] <= 0.7 * size["clear"]  # where 30 % of the pixels are hidden
    assert all(row["cpu_ms_per_image"] > 0 for row in rows)

    clouds.main(dataclasses.replace(options, covers=(0.3, 0.5)))  # only what is not there yet
    longer = json.loads(file.read_text())["results"]
    assert longer[: len(rows)] == rows
    assert [row["cover"] for row in longer[len(rows) :]] == [0.5] * 3
    printed = capsys.readouterr().out
    assert printed.count("30%\tdropped") == 2
    with pytest.raises(UsageError, match="holds another study; .*: test is 20 there and 30 here"):
        clouds.main(dataclasses.replace(options, test=30))

    other = dataclasses.replace(mae.encoder.preprocessing, resize="pad")
    replaced = nnx.clone(mae)
    replaced.encoder.preprocessing = other
    save_mae(replaced, tmp_path / "mae", overwrite=True)
    with pytest.raises(UsageError, match="encoder: not what the run began .* another --out or put"):
        clouds.main(options)
    replaced = nnx.clone(mae)
    replaced.decoder.mask_token[...] += 1
    save_mae(replaced, tmp_path / "mae", overwrite=True)
    with pytest.raises(UsageError, match="decoder: not what the run began with"):
        clouds.main(options)
    assert json.loads(file.read_text())["results"] == longer
    save_mae(mae, tmp_path / "mae", overwrite=True)
    clouds.main(options)
