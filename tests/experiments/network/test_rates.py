"""A learning rate is chosen by rounds to an accuracy on examples that are held out."""

import json

import numpy as np
import pytest

from experiments.command.errors import UsageError
from experiments.network import rates
from experiments.network.options import NetworkOptions
from experiments.network.training import Training


@pytest.fixture(scope="module")
def training():
    generator = np.random.default_rng(0)
    y = np.arange(80, dtype=np.int32) % 2
    x = generator.normal(size=(80, 3)).astype(np.float32) + 4 * y[:, None]
    how = NetworkOptions(hidden=(4,), batch_size=4, epochs=4, local_steps=2, exchange="replicated")
    return Training(head=how, how=how.how("ist", 2), seed=0, classes=2, examples={"x": x, "y": y})


def known(directory, accuracies):
    directory.mkdir()
    for rate, of in accuracies.items():
        (directory / f"{rate:g}.json").write_text(json.dumps({"accuracies": of}))
    return tuple(accuracies)


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ({0.1: [0.2, 0.6], 0.2: [0.6], 0.4: [0.1]}, 0.2),  # the fewest rounds
        ({0.1: [0.2, 0.6], 0.2: [0.1, 0.7]}, 0.2),  # of as many, the higher accuracy
        ({0.1: [0.4, 0.3], 0.2: [0.2, 0.3]}, 0.1),  # none arrives: the highest on the way
    ],
)
def test_the_fewest_rounds_decide(training, accuracies, best, tmp_path):
    chosen, tried = rates.choose(training, known(tmp_path / "a", accuracies), 0.5, tmp_path / "a")
    assert chosen == best
    assert {float(rate): of["accuracies"] for rate, of in tried.items()} == accuracies


def test_what_was_learned_is_kept_and_slower_rates_end_early(training, tmp_path, monkeypatch):
    first = rates.choose(training, (0.5, 1e-6), 0.9, tmp_path)
    assert first[0] == 0.5
    rounds = first[1]["0.5"]["rounds"]
    assert rounds < training.most_rounds
    assert len(first[1]["1e-06"]["accuracies"]) == rounds
    monkeypatch.setattr(rates, "learned", None)  # nothing is trained again
    assert rates.choose(training, (0.5, 1e-6), 0.9, tmp_path) == first


def test_what_is_held_out_is_not_trained_on(training):
    train, held = rates.held_out(training.examples, 0)
    assert (len(train["y"]), len(held["y"])) == (72, 8)
    rows = np.concatenate([train["x"], held["x"]])
    assert {row.tobytes() for row in rows} == {row.tobytes() for row in training.examples["x"]}
    assert (rates.held_out(training.examples, 1)[1]["x"] != held["x"]).any()


def test_one_rate_beside_several_is_refused():
    with pytest.raises(UsageError, match="--learning-rate is chosen of --learning-rates, got 0.1"):
        NetworkOptions(learning_rate=0.1, learning_rates=(0.1, 0.2))
