"""The code, the commands and the links in the documents work."""

import doctest
import json
import pathlib
import re

import numpy as np
import pytest
from sklearn.metrics import f1_score

from experiments import distributed
from experiments.distributed import DistributedOptions
from jist import features, tasks
from jist.data import load_dataset
from jist.evaluation import evaluate
from jist.masking import FixedMask
from jist.models import load_encoder

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "experiments" / "results"
DOCUMENTS = (
    README,
    ROOT / "BUILD_NOTES.md",
    *(ROOT / "experiments").glob("*.md"),
    *(ROOT / "jist").rglob("*.md"),
    RESULTS / "README.md",
)


def test_the_code_in_the_readme_trains_networks_that_tell_digits_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    own_features, own_model, reading = blocks
    names: dict = {}
    exec(own_features, names)
    options = DistributedOptions(dataset="features:mine.npz", workers=4, hidden=(64,), epochs=6)
    distributed.main(options)
    (result,) = json.loads((options.run_dir / "summary.json").read_text())["results"]
    assert result["last_test_accuracy"] > 0.5  # chance: 0.1

    assert len(own_model.splitlines()) <= 25
    exec(own_model, names)
    test = names["test"]
    accuracy = (names["logits"].argmax(axis=-1) == test["y"]).mean()
    best = max(metrics["test_accuracy"] for metrics in names["history"])
    assert accuracy == pytest.approx(best, abs=1e-6)
    for found in (accuracy, evaluate(names["network"], test)["test_accuracy"]):
        assert found > 0.5
    for example in doctest.DocTestParser().get_examples(tasks.__doc__):
        exec(example.source, names)
    several = {"x": test["x"], "y": np.eye(10)[test["y"]]}
    f1 = f1_score(several["y"], names["network"](test["x"]) > 0, average="micro")
    assert evaluate(names["network"], several, names["task"])["test_f1"] == pytest.approx(f1)

    summary = tmp_path / "runs/quickstart/summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text((RESULTS / "sweep-cifar10.json").read_text())
    encoder, images = load_encoder("mae-nano-cifar10"), load_dataset("digits", "test")
    masks = FixedMask(encoder.config.patches, ratio=0.9, seed=0)
    extracted = features.extract(encoder, images, "features/train", keep_for=masks)
    exec(reading, names)
    curve = [metrics["test_accuracy"] for metrics in names["history"]]
    np.testing.assert_allclose(names["curves"]["test_accuracy"], curve)
    np.testing.assert_array_equal(names["vectors"], extracted.cls)
    np.testing.assert_array_equal(names["labels"], extracted.label)
    assert names["table"].loc[("ist", 2), 0.5] > 0.5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_points_at_is_there(document):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    assert targets
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (document.parent / target).exists()] == []


def test_every_committed_result_is_explained():
    text = (RESULTS / "README.md").read_text()
    files = [path.name for path in RESULTS.iterdir() if path.suffix in (".json", ".png")]
    assert len(files) > 10
    assert [name for name in files if f"({name})" not in text] == []
