"""Networks of convolutions from scratch, by parts, on small images and with few channels."""

import json
import shutil

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file
from shown import commands_of, run_shown

from experiments import convnet, evaluate, export, predict
from experiments.command.errors import UsageError
from experiments.evaluate import EvaluateOptions
from experiments.export import ExportOptions
from experiments.predict import PredictOptions
from experiments.runs import convolutional
from experiments.runs.convolutional import ConvnetOptions
from experiments.runs.directory import write_json
from experiments.runs.trained import open_run
from jist.costs import count


@pytest.fixture
def images(tmp_path):
    generator = np.random.default_rng(0)
    for name, colour in (("dark", 60), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(generator.normal(colour, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


# With fewer channels a BatchNorm makes the rounding of small weights as loud as the numbers.
SHORTER = "--channels 4 --workers 2 --local-steps 1 --batch-size 4 --epochs 8 --run-dir run"


@pytest.mark.parametrize("arguments", commands_of("convnet"))
def test_a_network_is_trained_by_two_workers(arguments, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = arguments[arguments.index("--model") + 1]
    size = {"resnet18": 8, "vgg12": 32}[model]
    data = ["--dataset", f"folder:{images}", "--data-dir", "None", "--image-size", str(size)]
    data += ["--hidden", "8", "8"] if model == "vgg12" else []
    given = []
    run_shown("convnet", [*arguments, *data, *SHORTER.split()], monkeypatch, given.append)
    (options,) = given
    shutil.copytree(images, tmp_path / "copy")
    convnet.main(options)
    (result,) = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    whole = convolutional.build_network(options, 2).network
    assert result["parameters_per_worker"] < count(nnx.state(whole, nnx.Param))
    assert (result["train_examples"], result["test_examples"]) == (20, 4)
    assert result["best_test_accuracy"] > 0.5
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    convnet.main(options)  # there is nothing left to do
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    # It is read back for its test images, and for all images of a folder, which are the same.
    evaluate.main(EvaluateOptions(run_dir=options.run_dir))
    found = json.loads((options.run_dir / "evaluation.json").read_text())["convnet"]
    assert found["test_accuracy"] == result["last_test_accuracy"]
    capsys.readouterr()
    given = {"run_dir": options.run_dir, "images": (images,)}
    predict.main(PredictOptions(**given, out=tmp_path / "all.csv"))
    said = capsys.readouterr().err
    evaluate.main(EvaluateOptions(run_dir=options.run_dir, dataset=f"folder:{tmp_path}/copy"))
    (found,) = json.loads((options.run_dir / "evaluation.json").read_text()).values()
    assert f"of 24 in folders of their classes {found['test_accuracy']:.1%} are right" in said
    # It leaves as a program, which is compared with jist, and sees images alone.
    out = tmp_path / "exported"
    export.main(ExportOptions(run_dir=options.run_dir, out=out, weights="int8"))
    said = json.loads((out / "config.json").read_text())
    assert (said["patches"], said["image_size"], said["checked_on"]) == (0, size, 4)
    # And as tensors, which a network in PyTorch takes, every one of them.
    out = tmp_path / "tensors"
    export.main(ExportOptions(run_dir=options.run_dir, out=out, format="safetensors"))
    said = json.loads((out / "config.json").read_text())["network"]
    tensors = load_file(out / "network.safetensors")
    pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, takes the tensors")
    from torch_networks import torch, torch_network

    theirs = torch_network(said, size, 2, options.hidden)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    for wrong in ({"mask_ratio": (0.5,)}, {"simulate_clouds": (0.5,)}):
        with pytest.raises(UsageError, match="cannot be used: .* sees images whole"):
            evaluate.main(EvaluateOptions(run_dir=options.run_dir, **wrong))
    for wrong in ({"mask_ratio": 0.5}, {"draws": 2}):
        with pytest.raises(UsageError, match="need a run with drawn masks: its network sees"):
            predict.main(PredictOptions(**given, **wrong))
    # A validation split that comes later makes it another run, which is told at once.
    for split in ("train", "val", "test"):
        shutil.copytree(tmp_path / "copy", images / split)
    for name in ("dark", "light"):
        shutil.rmtree(images / name)
    with pytest.raises(UsageError, match="own_validation is None there and True here .data of"):
        convnet.main(options)
    config = json.loads((options.run_dir / "config.json").read_text())
    write_json(options.run_dir / "config.json", config | {"own_validation": True})
    assert open_run(options.run_dir).images.dataset == options.dataset


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "alexnet"}, r"model must be one of .*resnet18.*, got 'alexnet'"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"hidden": (8,)}, "--hidden 8 has no effect with --model resnet18"),
        ({"model": "vgg12", "neurons": ("blocks",)}, "--neurons blocks has no effect with --model"),
        ({"neurons": ("blocks",)}, "--neurons blocks has no effect with --strategy centralized"),
    ],
)
def test_bad_options_are_told(options, message):
    with pytest.raises(UsageError, match=message):
        ConvnetOptions(**options)
