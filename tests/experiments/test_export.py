"""What leaves a run works without jist, and finds what jist finds."""

import json
import pathlib
import runpy
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import softmax

import experiments.distributed
import experiments.export
from experiments.command.options import ImageOptions
from experiments.distributed import DistributedOptions
from experiments.export import ExportOptions
from experiments.runs import deployable
from experiments.runs.example import example_script
from experiments.runs.images import ImageInputs
from jist.data import DataError
from jist.data.images.resizing import resize, resize_missing
from jist.export import ConversionError, Deployed, onnx
from jist.features import cls_vectors
from jist.features.by_length import ByLength
from jist.features.visible import natural_keep
from jist.models import Preprocessing, load_encoder

# Runs a script where neither jist nor what it is made of can be imported, but JAX and NumPy.
ALONE = """
import runpy, sys
for name in ("jist", "experiments", "flax", "orbax", "optax", "safetensors", "PIL"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(*arguments):
    """The lines of `predict.py`: class and probability."""
    command = [sys.executable, "-W", "error", "-c", ALONE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return [name for name, _ in lines], np.array([float(p) for _, p in lines])


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    generator = np.random.default_rng(0)
    for number, name in enumerate(("red", "green", "blue")):
        (root / "images" / name).mkdir(parents=True)
        for i in range(20):
            noise = generator.normal(100 + 60 * np.eye(3)[number], 60, (32, 32, 3))
            pixels = np.clip(noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{i:02}.png")
    experiments.distributed.main(
        DistributedOptions(
            dataset=f"folder:{root}/images",
            mask_ratio=0.5,
            hidden=(12, 8),
            workers=2,
            local_steps=2,
            epochs=20,
            validation=0.2,
            run_dir=root / "run",
        )
    )
    return root


def test_the_script_moves_images_behind_a_border(tmp_path, monkeypatch, capsys):
    """As preprocessing moves them, with what is missing of them."""
    how = Preprocessing(border=1)
    config = {"patches": 16, "patch_size": 2, "image_size": 8, "visible": 8, "max_missing": 0.0}
    config |= {"most_visible": None, "preprocessing": how.as_json(), "classes": ["a", "b"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.stablehlo").touch()
    (tmp_path / "predict.py").write_text(example_script("stablehlo", "crop", how.border))
    generator = np.random.default_rng(0)
    images, missing = generator.integers(1, 256, (3, 8, 8, 3), np.uint8), np.zeros((3, 8, 8), bool)
    missing[0, 1, 5] = missing[1, 7, 7] = missing[2, 3, :4] = True
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "missing.npy", missing)
    seen = []

    class Program:
        def call(self, *given):
            seen.extend(given)
            return np.eye(2)[[0, 1, 0]]

    monkeypatch.setattr("jax.export.deserialize", lambda _: Program())
    names = ("predict.py", "images.npy", "missing.npy")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / name) for name in names])
    runpy.run_path(sys.argv[0], run_name="__main__")
    assert capsys.readouterr().out.split() == ["a", "1.0000", "b", "1.0000", "a", "1.0000"]
    inner = np.stack([resize(image, 8, how) for image in images])[:, 1:, 1:]
    np.testing.assert_array_equal(seen[0][:, 1:, 1:], inner)
    gone = np.stack([resize_missing(of, 8, how) for of in missing])
    np.testing.assert_array_equal(seen[1], natural_keep(gone, 2, 0.0))


@pytest.fixture(scope="module")
def arrays(of_images):
    """The head as plain arrays: what it finds is computed here in NumPy alone."""
    out = of_images / "arrays"
    experiments.export.main(ExportOptions(run_dir=of_images / "run", out=out, format="safetensors"))
    config = json.loads((out / "config.json").read_text())
    head = load_file(out / "head.safetensors")
    assert [[*head[f"{i}.kernel"].shape] for i in range(3)] == config["layers"]

    def probabilities(x):
        for i in range(3):
            x = np.maximum(x, 0) if i else x
            x = x @ head[f"{i}.kernel"] + head[f"{i}.bias"]
        return softmax(x / config["temperature"], axis=1)

    return config, load_encoder(out / "encoder"), probabilities


def test_a_program_classifies_images_with_holes_without_jist(of_images, arrays, tmp_path):
    """As jist does, by its own way through natural masks; images differ in what is visible."""
    config, encoder, probabilities = arrays
    out = of_images / "program"
    experiments.export.main(ExportOptions(run_dir=of_images / "run", out=out))
    assert len((out / "predict.py").read_text().splitlines()) <= 40
    said = json.loads((out / "config.json").read_text())
    assert said["largest_relative_difference"] < 1e-4
    assert (said["classes"], said["patches"], said["visible"]) == (["blue", "green", "red"], 64, 32)

    generator = np.random.default_rng(1)
    images = generator.integers(0, 200, (5, 32, 32, 3), np.uint8)
    images[:3, :, :, 0] += 50
    missing = np.zeros((5, 32, 32), bool)
    for i in range(5):
        missing[i, : 6 * i, 3:20] = True
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "missing.npy", missing)
    cls = ByLength(encoder, 5)(images, natural_keep(missing, 4, 0.0))
    expected = probabilities(cls)
    names, found = alone(out / "predict.py", tmp_path / "x.npy", tmp_path / "missing.npy")
    told = subprocess.run([sys.executable, out / "predict.py"], capture_output=True, text=True)
    assert (told.returncode, "python predict.py x.npy" in told.stderr) == (1, True)
    assert "Traceback" not in told.stderr
    assert names == [config["classes"][i] for i in expected.argmax(axis=1)]
    np.testing.assert_allclose(found, expected.max(axis=1), atol=1e-4)
    assert np.ptp(found) > 0.01

    missing[3] = True
    np.save(tmp_path / "missing.npy", missing)
    command = [sys.executable, out / "predict.py", tmp_path / "x.npy", tmp_path / "missing.npy"]
    told = subprocess.run(command, capture_output=True, text=True)
    said = "image 3 (from 0): nothing of it is visible\n"
    assert (told.returncode, told.stdout, told.stderr) == (1, "", said)


def test_a_head_on_vectors_is_exported(tmp_path, arrays):
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 90)
    x = (np.eye(3)[y] * 4 + generator.normal(size=(90, 3))).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    run_dir = tmp_path / "run"
    how = {"norm": "scale", "workers": 2, "hidden": (8,), "epochs": 1, "local_steps": 2}
    given = {"dataset": f"features:{tmp_path}/mine.npz", "run_dir": run_dir}
    experiments.distributed.main(DistributedOptions(**given, **how))
    for form in ("stablehlo", "safetensors"):
        out = tmp_path / form
        experiments.export.main(ExportOptions(run_dir=run_dir, out=out, format=form))
        config = json.loads((out / "config.json").read_text())
        assert (config["features"], config["patches"]) == (3, 0)
    head = load_file(tmp_path / "safetensors" / "head.safetensors")
    hidden = np.maximum(x @ head["0.kernel"] + head["0.bias"], 0)
    expected = softmax(hidden @ head["1.kernel"] + head["1.bias"], axis=1)
    from jax import export

    program = export.deserialize((tmp_path / "stablehlo" / "model.stablehlo").read_bytes())
    np.testing.assert_allclose(program.call(jnp.asarray(x)), expected, rtol=1e-4)

    for weights, allowed in experiments.export.ROUNDED.items():
        out = tmp_path / weights
        experiments.export.main(ExportOptions(run_dir=run_dir, out=out, weights=weights))
        config = json.loads((out / "config.json").read_text())
        assert config["weights"] == weights
        assert 0 < config["largest_difference"] < allowed


def test_an_onnx_graph_is_what_jist_is(of_images, arrays, tmp_path):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed (it asks for an old Orbax)")
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "onnx"
    experiments.export.main(ExportOptions(run_dir=of_images / "run", out=out, format="onnx"))
    config = json.loads((out / "config.json").read_text())
    assert config["largest_relative_difference"] < 1e-4
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [given.name for given in session.get_inputs()] == ["x", "keep"]
    images = np.random.default_rng(2).integers(0, 200, (3, 32, 32, 3), np.uint8)
    np.save(tmp_path / "x.npy", images)
    names, found = alone(out / "predict.py", tmp_path / "x.npy")
    # Half of the patches, drawn as the script draws them.
    ranks = np.random.default_rng(0).random((3, 64)).argsort(1).argsort(1)
    keep = np.stack([np.flatnonzero(row < 32) for row in ranks]).astype(np.int32)
    _, encoder, probabilities = arrays
    expected = probabilities(
        np.asarray(cls_vectors(encoder, jnp.asarray(images), jnp.asarray(keep)))
    )
    assert names == [config["classes"][i] for i in expected.argmax(axis=1)]
    np.testing.assert_allclose(found, expected.max(axis=1), atol=1e-4)
    size = (out / "model.onnx").stat().st_size
    for weights, share in (("bfloat16", 0.55), ("int8", 0.3)):
        out = tmp_path / weights
        given = {"run_dir": of_images / "run", "out": out, "format": "onnx", "weights": weights}
        experiments.export.main(ExportOptions(**given))  # which checks it
        assert (out / "model.onnx").stat().st_size < share * size


def test_a_converter_that_is_not_installed_is_told_at_once(of_images, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments.export, "deployable", lambda *_: pytest.fail("it is restored"))
    monkeypatch.setattr(onnx, "NEEDED", ("numpy", "no_such_package"))
    given = ExportOptions(run_dir=of_images / "run", out=tmp_path / "new", format="onnx")
    with pytest.raises(ConversionError, match=r"not installed \(no_such_package\): pip install"):
        experiments.export.main(given)


def test_a_network_leaves_where_its_images_have_not_come(of_images, arrays):
    _, encoder, _ = arrays

    class Gone(ImageInputs):
        def examples(self, split):
            raise DataError("folder:PATH needs the path of a directory")

    own = str(of_images / "arrays" / "encoder")
    inputs = Gone(ImageOptions(dataset="folder:gone", encoder=own))
    deployed = Deployed([], encoder=encoder)
    what, (images, keep), cls = deployable.some_examples(inputs, deployed, 0.5, pathlib.Path())
    assert (what, images.dtype, images.shape) == ("random images", np.uint8, (100, 32, 32, 3))
    assert (keep.shape, np.ptp(images) > 200, len(cls)) == ((100, 32), True, 100)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "torch"}, "format must be one of"),
        ({"weights": "int4"}, "weights of format=stablehlo must be one of"),
        ({"weights": "int8", "format": "safetensors"}, "weights of format=safetensors must be"),
        ({"mask_ratio": 0.5}, "--mask-ratio 0.5 has no effect: format=stablehlo takes any"),
        ({"training": "ist-9"}, "training must be one of"),
        ({"out": "there"}, "exists; exports are written to a new directory"),
    ],
)
def test_what_cannot_be_exported_is_told(of_images, tmp_path, given, message):
    (tmp_path / "there").mkdir()
    given = {"out": "new"} | given
    given["out"] = tmp_path / given["out"]
    with pytest.raises(ValueError, match=message):
        experiments.export.main(ExportOptions(run_dir=of_images / "run", **given))
    assert not (tmp_path / "new").exists()
