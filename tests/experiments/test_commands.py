"""Every command that a document or a docstring shows is taken by its script, and works."""

import json
import shutil
import wave

import numpy as np
import pytest
import rasterio
from flax import nnx
from PIL import Image
from rasterio.warp import transform_bounds
from shown import ROOT, commands_of, options_of, run_shown, shown

from experiments import example_scenes, ship
from experiments.example_scenes import ExampleScenesOptions
from experiments.runs.pretraining import SIZES
from jist.models import MAE, DecoderConfig, ViTConfig, save_mae

# What shortens the commands of a script: of an option that is given twice the last one counts. The
# scripts stand in an order in which each finds what it reads.
HEAD = "--epochs 1 --hidden 16 --batch-size 4 --calibration 0 --local-steps 2"
SHORTER = {
    "overview": "--out runs/overview",
    "amazon_like": "--scale 0.0002",
    "amazon_rounds": "--scale 0.0005 --width 16 --examples 64 --rounds 2 --batch-size 8 --chunk 64",
    "convergence": "--steps 20 --seeds 2 --keep-probabilities 0.5 1",
    "table1": "",
    "example_scenes": "--side 256",
    "tile": "",
    "extract": "",
    "mask_dataset": "",
    "pretrain": "--epochs 1 --batch-size 8 --image-size 16 --patch-size 4 --encoder nano"
    " --base-lr 1e-3 --least-crop 0.6 --dtype float32 --picture-every 0",
    "probe": "--epochs 1 --seeds 0 --ratios 0.5 --batch-size 8",
    "ship": "",
    "reconstruct": "",
    "finetune": "--epochs 1 --batch-size 8 --dtype float32",
    "finetune_costs": "--workers 2 --batch-size 4 --repeats 1",
    "centralized": HEAD.replace("--local-steps 2", ""),
    "distributed": HEAD,
    "evaluate": "--mask-ratio 0.5",
    "scene": "",
    "predict": "",
    "export": "",
    "compare": HEAD + " --workers 1 2 --strategies ist",
    "clouds": "--seeds 0 --covers 0.3",
    "encoders": HEAD.replace("--local-steps 2", ""),
    "sweep": HEAD + " --ratios 0 0.5 --masks fixed --workers 1 2 --seeds 0",
    "report": "",
    "dataset_size": "",
    "tune": "--epochs 1 --seeds 0 --workers 2 --batch-size 8 --validation 0.2 --learning-rates 3e-3"
    " --local-steps 50 --norms standardize --optimizer-states carry --no-wide",
}
# Those whose commands other tests run, and look at what comes out.
ELSEWHERE = {
    "bench": "bench/test_bench_quick.py",
    "bench.wire_bytes": "bench/test_wire_bytes.py",
    "chaos": "test_chaos.py",
    "convnet": "test_convnet.py",
    "export_costs": "test_export_costs.py",
    "kills": "test_kills.py",
    "network": "network/test_cluster.py",
    "quickstart": "test_scripts.py",
    "scaling": "scaling/test_scaling.py",
}
READERS = {"evaluate", "predict", "export", "scene"}  # of the directory of a run
SMALL = ("--encoder", "encoders/mae-base")
SMALL_MAE = ViTConfig(16, 4, 16, 1, 2, 32), DecoderConfig(8, 1, 2, 16)
WITH_ENCODER = {
    *("centralized", "clouds", "compare", "distributed", "extract", "finetune", "finetune_costs"),
    *("mask_dataset", "probe", "sweep", "tune"),
}


def in_order():
    """The commands that are run here."""
    return [(name, arguments) for name in SHORTER for arguments in commands_of(name)]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """A directory with small data under the names that the commands use."""
    root = tmp_path_factory.mktemp("kitchen")
    generator = np.random.default_rng(0)
    for split, images in (("train", 16), ("test", 4)):
        for name, colour in (("cat", 60), ("dog", 200)):
            (root / "data/photos" / split / name).mkdir(parents=True)
            for i in range(images):
                pixels = np.clip(generator.normal(colour, 40, (16, 16, 3)), 0, 255)
                path = root / "data/photos" / split / name / f"{i}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    shutil.copytree(root / "data/photos", root / "data/cifar10")
    for name, of in (("Airport", "cat"), ("Pond", "dog")):
        shutil.copytree(root / "data/photos/train" / of, root / "data/AID" / name)
    for path in (root / "data/photos").rglob("*.png"):
        scene = root / "data/scenes" / path.relative_to(root / "data/photos")
        scene.parent.mkdir(parents=True, exist_ok=True)
        transparent = np.asarray(Image.open(path).convert("RGBA")).copy()
        transparent[:4] = 0
        Image.fromarray(transparent).save(scene)
    shutil.copytree(root / "data/photos/test", root / "photos")
    for name in ("cat", "dog"):
        Image.open(root / "photos" / name / "0.png").save(root / f"{name}.jpg")
        for speaker in range(20):
            path = root / "data/speech_commands" / name / f"{speaker:08x}_nohash_0.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as clip:
                clip.setparams((1, 2, 16_000, 0, "NONE", ""))
                clip.writeframes(generator.integers(-99, 99, 16_000, "<i2").tobytes())
    example_scenes.main(ExampleScenesOptions(out=root, scenes=1, side=256))
    with rasterio.open(root / "scenes/scene-0.tif") as scene:
        west, south, east, north = transform_bounds(scene.crs, "EPSG:4326", *scene.bounds)
    halves = {"oats": (west, (west + east) / 2), "rye": ((west + east) / 2, east)}
    parcels = [
        {
            "type": "Feature",
            "properties": {"crop": crop},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[a, south], [b, south], [b, north], [a, north], [a, south]]],
            },
        }
        for crop, (a, b) in halves.items()
    ]
    text = json.dumps({"type": "FeatureCollection", "features": parcels})
    (root / "parcels.geojson").write_text(text)
    (root / "data/bibtex").mkdir()
    for split in ("train", "test"):
        rows = "".join(f"{i % 3} {i % 5}:1 {5 + i % 2}:0.5\n" for i in range(16))
        (root / "data/bibtex" / f"{split}.txt").write_text(f"16 7 3\n{rows}")
    x = generator.normal(size=(60, 5)).astype(np.float32)
    np.savez(root / "mine.npz", x=x, y=np.arange(60) % 3)
    mae = MAE(*SMALL_MAE, rngs=nnx.Rngs(0))
    for name in ("mae-base", "resnet50"):
        save_mae(mae, root / "encoders" / name)
    return root


@pytest.fixture(scope="module")
def done():
    """The options with which scripts have been run."""
    return []


def takes_a_small_encoder(name, words):
    """In place of those that come with the package."""
    encoder = words[words.index("--encoder") + 1] if "--encoder" in words else "mae-"
    without = any(word.startswith(("features:", "speech:", "xc:")) for word in words)
    return name in WITH_ENCODER and encoder.startswith("mae-") and not without


@pytest.mark.parametrize(("name", "arguments"), in_order())
def test_every_command_that_is_shown_works(name, arguments, kitchen, done, monkeypatch):
    """In the order of the file: some commands read what others have written."""
    monkeypatch.chdir(kitchen)
    monkeypatch.setattr(ship, "DIRECTORY", kitchen)
    monkeypatch.setitem(SIZES, "nano", SMALL_MAE)
    words = [*arguments, *SHORTER[name].split()]
    if "--preset" in words:  # it has widths of its own
        words += ["--preset", "None"]
    if takes_a_small_encoder(name, words):
        words += SMALL
    module, _ = options_of(name)

    def once(parsed):  # made short, some are the same
        if parsed not in done:
            done.append(parsed)
            if name not in READERS and hasattr(parsed, "run_dir"):  # two may name the same one
                shutil.rmtree(parsed.run_dir, ignore_errors=True)
            module.main(parsed)

    run_shown(name, words, monkeypatch, once)
    assert done


def test_every_script_is_shown_somewhere():
    scripts = {path.stem for path in (ROOT / "experiments").glob("[a-z]*.py")}
    assert scripts - {script for script, _ in shown()} <= {"launch"}


def test_every_command_that_is_shown_is_run():
    assert {script for script, _ in shown()} == SHORTER.keys() | ELSEWHERE.keys()
    for script, file in ELSEWHERE.items():
        assert f'commands_of("{script}")' in (ROOT / "tests/experiments" / file).read_text()
