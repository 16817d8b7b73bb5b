"""The code in the README works."""

import pathlib
import re

from jist.evaluation import evaluate

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_code_in_the_readme_trains_a_network_that_tells_digits_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole, loop = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict = {}
    exec(whole, names)
    test = names["examples"]["test"]
    accuracy = (names["logits"].argmax(axis=-1) == test["y"]).mean()
    assert accuracy == max(metrics["test_accuracy"] for metrics in names["history"])
    exec(loop, names)
    for found in (accuracy, evaluate(names["network"], test)["test_accuracy"]):
        assert found > 0.5  # chance: 0.1
