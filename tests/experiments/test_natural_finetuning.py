"""Fine-tuning on images with holes, and maps of scenes by networks of whole images."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled
from flax import nnx
from PIL import Image

import experiments.finetune
from experiments import evaluate, scene
from experiments.command.options import ImageOptions
from experiments.runs.finetuning import FinetuneOptions
from experiments.runs.network_images import NetworkInputs
from experiments.runs.restored import Head
from experiments.runs.scene_tiles import TileClassifier
from experiments.runs.trained import open_run
from jist.models import ImageClassifier, MAEEncoder, ViTConfig, save_encoder
from jist.tasks import classification

CONFIG = ViTConfig(8, 4, dim=16, depth=1, heads=2, mlp_dim=32)
# Which of the four patches each image lacks, by turns.
HOLES = ((), (0,), (1, 2), (3,), (0, 1, 2))


def write_images(root, beneath):
    """Grey images, dark or bright, with transparent patches that hide a colour."""
    for label, (name, grey) in enumerate((("bright", 220), ("dark", 30))):
        for split, count in (("train", 10), ("test", 5)):
            directory = root / split / name
            directory.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((8, 8, 4), grey + 2 * i, np.uint8)
                pixels[..., 3] = 255
                for patch in HOLES[(i + label) % len(HOLES)]:
                    place = np.s_[4 * (patch // 2) :, 4 * (patch % 2) :][:2]
                    pixels[place][:4, :4] = (*beneath, 0)
                Image.fromarray(pixels).save(directory / f"{i}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs on images that differ in nothing that is visible."""
    root = tmp_path_factory.mktemp("natural")
    save_encoder(filled(lambda: MAEEncoder(CONFIG, rngs=nnx.Rngs(0))), root / "before")
    found = []
    for name, beneath in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        write_images(root / name, beneath)
        options = FinetuneOptions(
            dataset=f"folder:{root / name}",
            encoder=str(root / "before"),
            natural_masks=True,
            epochs=1,
            batch_size=5,
            learning_rate=0.01,
            dtype="float32",
            run_dir=root / f"run-{name}",
        )
        experiments.finetune.main(options)
        found.append(options)
    return found


def test_what_is_hidden_has_no_influence_on_the_network(trained):
    one, other = (
        (options.run_dir / "encoder/encoder.safetensors").read_bytes() for options in trained
    )
    assert one == other
    (result,) = json.loads((trained[0].run_dir / "summary.json").read_text())["results"]
    hidden = np.mean([len(HOLES[(i + label) % 5]) / 4 for label in range(2) for i in range(10)])
    assert (result["mask"], result["ratio"]) == ("natural", hidden)
    assert result["missing_pixels"] == hidden
    assert result["train_examples"] == 20
    assert "mask_ratio" not in result


def test_a_run_is_evaluated_under_its_own_masks(trained):
    run_dir = trained[0].run_dir
    evaluate.main(evaluate.EvaluateOptions(run_dir=run_dir))
    (found,) = json.loads((run_dir / "evaluation.json").read_text()).values()
    last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["test_accuracy"] == last["test_accuracy"]
    assert found["test_loss"] == pytest.approx(last["test_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mask_ratio": 0.5}, "--mask-ratio 0.5 has no effect: the images come with their masks"),
        ({"correction": "reconstruct"}, "reconstruct cannot be used with natural masks"),
        ({"natural_masks": False, "skip_empty": True}, "--skip-empty needs --natural-masks"),
        ({"natural_masks": False, "max_missing": 0.5}, "--max-missing needs --natural-masks"),
    ],
)
def test_options_that_do_not_go_together_are_refused(trained, given, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(trained[0], **given)


def test_a_fine_tuned_network_maps_a_scene(trained, tmp_path, capsys):
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 16), np.uint8)
    alpha = np.full((1, 24, 16), 255, np.uint8)
    alpha[0, :8, :8] = 0  # a tile
    alpha[0, 8:12, 2:5] = 0  # two patches of another
    profile = {"driver": "GTiff", "width": 16, "height": 24, "count": 4, "dtype": "uint8"}
    profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
    with rasterio.open(tmp_path / "s.tif", "w", photometric="RGB", alpha="yes", **profile) as file:
        file.write(np.concatenate([pixels, alpha]))
    given = {"run_dir": trained[0].run_dir, "scene": tmp_path / "s.tif", "tile": 8}
    scene.main(scene.SceneOptions(**given, batch_size=4, out=tmp_path / "m.tif"))
    assert "3 × 2 tiles" in capsys.readouterr().out
    with (
        rasterio.open(tmp_path / "m.tif") as file,
        rasterio.open(tmp_path / "m-probability.tif") as likely,
    ):
        classes, probability = file.read(1), likely.read(1)
    assert classes[0, 0] == 255
    assert np.isnan(probability[0, 0])
    model = open_run(trained[0].run_dir).restore("finetune", "last").model
    for row, column in [(0, 1), (1, 0), (2, 1)]:
        tile = pixels[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].transpose(1, 2, 0)
        keep = [2, 3] if (row, column) == (1, 0) else [0, 1, 2, 3]
        x = {"image": jnp.asarray(tile)[None], "keep": jnp.asarray([keep])}
        wanted = nnx.softmax(model(x))[0]  # without padding
        assert classes[row, column] == wanted.argmax()
        assert probability[row, column] == pytest.approx(float(wanted.max()), abs=1e-5)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (("blue", "green", "red", "alpha"), (3, 2, 1)),
        (("gray", "undefined", "undefined", "undefined"), (1, 2, 3)),
        (("gray", "alpha", "undefined", "undefined"), None),
    ],
)
def test_colours_of_a_scene_are_what_it_says(tmp_path, said, wanted):
    rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 4, "dtype": "uint8"}
    profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
    path = tmp_path / "s.tif"
    with rasterio.open(path, "w", photometric="MINISBLACK", **profile) as file:
        file.write(np.zeros((4, 8, 8), np.uint8))
        file.colorinterp = [rasterio.enums.ColorInterp[name] for name in said]
    model = ImageClassifier(nnx.Dropout(0), rngs=nnx.Rngs(0))
    inputs = NetworkInputs(ImageOptions(dataset="digits"), model, classification(), 8)
    options = scene.SceneOptions(run_dir=tmp_path, scene=path)
    with rasterio.open(path) as file:
        if wanted is not None:
            assert scene.bands_for(file, inputs, options).names == wanted
            return
        with pytest.raises(ValueError, match="gray, alpha, .* trained on red, green and blue"):
            scene.bands_for(file, inputs, options)


def test_a_network_of_whole_images_sees_tiles_whole():
    class Brightness(nnx.Module):
        def __call__(self, images):
            mean = images.mean(axis=(1, 2, 3))
            return jnp.stack([mean, -mean], axis=1)

    model = ImageClassifier(Brightness(), rngs=nnx.Rngs(0))
    inputs = NetworkInputs(ImageOptions(dataset="digits"), model, classification(), 8)
    tiles = TileClassifier(
        inputs, Head(model, ["bright", "dark"], 2.0), batch_size=2, max_missing=0.0
    )
    assert not tiles.sees_patches
    pixels = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (250, 10, 200)])
    missing = np.zeros((3, 8, 8), bool)
    missing[0, :4], missing[2] = True, True
    found, seen = tiles(pixels, missing)
    assert seen.tolist() == [True, True, False]
    assert found.argmax(axis=1).tolist() == [0, 1, 0]
    mean = ((pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found[:, 0], 1 / (1 + np.exp(-mean)), rtol=1e-5)  # by 2 and 2
