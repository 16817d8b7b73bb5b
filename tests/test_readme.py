"""The code, the commands and the links in the documents work."""

import json
import pathlib
import re

import numpy as np
import pytest
from sklearn.metrics import f1_score

from experiments import distributed
from experiments.distributed import DistributedOptions
from jist.evaluation import evaluate

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "experiments" / "results"
DOCUMENTS = (
    README,
    ROOT / "BUILD_NOTES.md",
    ROOT / "experiments" / "README.md",
    RESULTS / "README.md",
)


def test_the_code_in_the_readme_trains_a_network_that_tells_digits_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    vectors, whole, own_task, own_features, reading = blocks
    assert len(whole.splitlines()) <= 25
    names: dict = {}
    exec(vectors + whole, names)
    test = names["examples"]["test"]
    accuracy = (names["logits"].argmax(axis=-1) == test["y"]).mean()
    assert accuracy == max(metrics["test_accuracy"] for metrics in names["history"])
    for found in (accuracy, evaluate(names["network"], test)["test_accuracy"]):
        assert found > 0.5  # chance: 0.1
    exec(own_task, names)
    several = {"x": test["x"], "y": np.eye(10)[test["y"]]}
    f1 = f1_score(several["y"], names["network"](test["x"]) > 0, average="micro")
    assert evaluate(names["network"], several, names["task"])["test_f1"] == pytest.approx(f1)

    exec(own_features, {})
    own = DistributedOptions(dataset="features:mine.npz", workers=4, hidden=(64,), epochs=6)
    distributed.main(own)
    (result,) = json.loads((own.run_dir / "summary.json").read_text())["results"]
    assert result["last_test_accuracy"] > 0.5

    summary = tmp_path / "runs/quickstart/summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text((RESULTS / "sweep-cifar10.json").read_text())
    exec(reading, names)
    curve = [metrics["test_accuracy"] for metrics in names["history"]]
    np.testing.assert_allclose(names["curves"]["test_accuracy"], curve)
    np.testing.assert_array_equal(names["vectors"], names["examples"]["train"]["x"])
    np.testing.assert_array_equal(names["labels"], names["examples"]["train"]["y"])
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
