"""Networks of convolutions from scratch, by parts, on small images and with few channels."""

import functools
import json
import shutil

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments import convnet, evaluate, predict
from experiments.command.errors import UsageError
from experiments.evaluate import EvaluateOptions
from experiments.predict import PredictOptions
from experiments.runs import convolutional
from experiments.runs.convolutional import ConvnetOptions
from jist.costs import count
from jist.models import VGG12, ResNet18


@pytest.fixture
def images(tmp_path):
    generator = np.random.default_rng(0)
    for name, colour in (("dark", 60), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(generator.normal(colour, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("model", "narrow", "size"),
    [
        ("resnet18", functools.partial(ResNet18, width=2), 8),
        ("vgg12", functools.partial(VGG12, steps=((4,), (4,), (4,), (4,), (4,))), 32),
    ],
)
def test_a_network_is_trained_by_two_workers(
    model, narrow, size, images, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(convolutional, {"resnet18": "ResNet18", "vgg12": "VGG12"}[model], narrow)
    options = ConvnetOptions(
        dataset=f"folder:{images}",
        model=model,
        image_size=size,
        hidden=(8, 8),
        strategy="ist",
        workers=2,
        local_steps=1,
        batch_size=4,
        epochs=8,
        run_dir=tmp_path / "run",
    )
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
    for wrong in ({"mask_ratio": (0.5,)}, {"simulate_clouds": (0.5,)}):
        with pytest.raises(UsageError, match="sees images whole, so masks cannot be used"):
            evaluate.main(EvaluateOptions(run_dir=options.run_dir, **wrong))
    for wrong in ({"mask_ratio": 0.5}, {"draws": 2}):
        with pytest.raises(UsageError, match="need a run with drawn masks: its network sees"):
            predict.main(PredictOptions(**given, **wrong))


def test_another_model_is_refused():
    with pytest.raises(UsageError, match=r"model must be one of .*resnet18.*, got 'alexnet'"):
        ConvnetOptions(model="alexnet")
