"""Every command that a document or a docstring shows is taken by its script, and works."""

import ast
import importlib
import json
import pathlib
import re
import shlex
import shutil
import sys
import wave

import numpy as np
import pytest
import rasterio
from flax import nnx
from PIL import Image
from rasterio.warp import transform_bounds

from experiments import example_scenes, ship
from experiments.command import allowed, cli
from experiments.example_scenes import ExampleScenesOptions
from jist.models import MAE, DecoderConfig, ViTConfig, save_mae

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    ROOT / "experiments" / "README.md",  # those of results are of their commits
    *(ROOT / "experiments").rglob("*.py"),
    *(ROOT / "jist").rglob("*.md"),
]
WITHOUT_OPTIONS = ("experiments.command.listing",)
COMMAND = re.compile(r"python -m (experiments(?:\.\w+)+)((?:[^\n`\\]|\\\n)*)")


def shown():
    """(script, arguments) of every command, those behind `experiments.launch` included."""
    found = set()
    for document in DOCUMENTS:
        text = document.read_text()
        if document.suffix == ".py":
            text = ast.get_docstring(ast.parse(text)) or ""
        for script, rest in COMMAND.findall(in_one_line(text)):
            if "{" in rest or "NAME" in script:  # a pattern
                continue
            arguments = shlex.split(rest.replace("\\\n", " ").replace(" ...", ""), comments=True)
            if script == "experiments.launch":
                script, *arguments = arguments[arguments.index("--") + 1 :]
            if "--help" not in arguments and script not in WITHOUT_OPTIONS:
                found.add((script, tuple(arguments)))
    return sorted(found)


def in_one_line(text):
    """The text with the commands of its prose, between backticks, in one line each."""
    parts = text.split("```")
    parts[::2] = [re.sub(r"`[^`]*`", lambda m: m[0].replace("\n", " "), p) for p in parts[::2]]
    return "```".join(parts)


def options_of(script):
    """The module that runs, and the class of its options, as its last line names them."""
    if (ROOT / script.replace(".", "/")).is_dir():
        script += ".__main__"
    module = importlib.import_module(script)
    (name,) = re.findall(
        r"^    run\(main, (\w+), ", pathlib.Path(module.__file__).read_text(), re.M
    )
    return module, getattr(module, name)


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
    " --base-lr 1e-3 --least-crop 0.6 --dtype float32",
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
    "quickstart": "--epochs 1",
}
# What no option makes short: these have tests of their own, of their parts.
LONG = {"bench", "bench.wire_bytes", "chaos", "convnet", "network", "scaling"}
READERS = {"evaluate", "predict", "export", "scene"}  # of the directory of a run
SMALL = ("--encoder", "encoders/mae-base")
WITH_ENCODER = {
    *("centralized", "clouds", "compare", "distributed", "extract", "finetune", "finetune_costs"),
    *("mask_dataset", "probe", "quickstart", "sweep", "tune"),
}


def in_order():
    """The commands that can be made short."""
    of = {name: [a for script, a in shown() if script == f"experiments.{name}"] for name in SHORTER}
    return [(name, arguments) for name, commands in of.items() for arguments in commands]


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
    mae = MAE(ViTConfig(16, 4, 16, 1, 2, 32), DecoderConfig(8, 1, 2, 16), rngs=nnx.Rngs(0))
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
    module, options = options_of(f"experiments.{name}")
    words = [*arguments, *SHORTER[name].split()]
    if "--preset" in words:  # it has widths of its own
        words = [w for w in words if w not in ("--hidden", "16")]
    if takes_a_small_encoder(name, words):
        words += SMALL
    monkeypatch.setattr(sys, "argv", [name, *words])

    def once(parsed):  # made short, some are the same
        if parsed not in done:
            done.append(parsed)
            if name not in READERS and hasattr(parsed, "run_dir"):  # two may name the same one
                shutil.rmtree(parsed.run_dir, ignore_errors=True)
            module.main(parsed)

    cli.run(once, options, "")
    assert done


@pytest.mark.parametrize(
    ("script", "arguments"),
    [command for command in shown() if command[0].removeprefix("experiments.") in LONG],
)
def test_every_long_command_that_is_shown_is_taken(script, arguments, monkeypatch):
    """All but the work itself: the options exist, are of their types, and are allowed."""
    taken = []
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    for what_is_read in ("READ", "READ_DIRECTORIES"):  # it need not be there
        monkeypatch.setattr(allowed, what_is_read, ())
    cli.run(taken.append, options_of(script)[1], "")
    assert len(taken) == 1


def test_every_script_is_shown_somewhere():
    scripts = {f"experiments.{path.stem}" for path in (ROOT / "experiments").glob("[a-z]*.py")}
    assert scripts - {script for script, _ in shown()} <= {"experiments.launch"}


def test_every_command_that_is_shown_is_run_or_long():
    names = {script.removeprefix("experiments.") for script, _ in shown()}
    assert names == SHORTER.keys() | LONG
