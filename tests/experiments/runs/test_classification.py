"""Random masks and validation, from images on disk to results."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from experiments.command.errors import UsageError
from experiments.command.options import HeadOptions, ImageOptions, StrategyOptions
from experiments.runs import calibration, classification, outcome
from experiments.runs.heads import TASK, validation_rows
from experiments.runs.images import dataset_of
from experiments.runs.inputs import open_inputs
from experiments.runs.plan import Plan, Training
from experiments.runs.restored import restore_head
from experiments.runs.splits import DenseSplit
from jist.data import DataError, OnDisk
from jist.data.holdout import held_out, spared
from jist.features import Features
from jist.metrics import MetricsLog, read_metrics

HEAD = HeadOptions(hidden=(12,), batch_size=8, epochs=3)
# Rounds of one step: those of an epoch are all one program.
CENTRAL = StrategyOptions(strategy="centralized", workers=1, local_steps=1)
COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for i in range(20):
            pixels = np.clip(generator.normal(colour, 60, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return ImageOptions(dataset=f"folder:{root}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a plan in a directory; the features of all are kept together."""
    features = tmp_path_factory.mktemp("features")
    return lambda wanted, run_dir: classification.run_plan(wanted, run_dir, features_dir=features)


def plan(images, head, *masks):
    trainings = tuple(Training(mask_ratio=0.75, how=CENTRAL, mask=mask) for mask in masks)
    return Plan(experiment="x", images=images, head=head, trainings=trainings)


@pytest.fixture(scope="module")
def whole(images, run, tmp_path_factory):
    """The directory of an undisturbed run under fixed and random masks, and its results."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return run_dir, *run(plan(images, HEAD, "fixed", "random"), run_dir)


@pytest.fixture(scope="module")
def validated(images, run, tmp_path_factory):
    """The same with a quarter of the training images held out."""
    run_dir = tmp_path_factory.mktemp("validated") / "run"
    head = dataclasses.replace(HEAD, validation=0.25)
    return run_dir, *run(plan(images, head, "fixed", "random"), run_dir)


def losses(run_dir, run):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line["train_loss"] for line in lines if line["run"] == run]


def timeless(results):
    return [{k: v for k, v in result.items() if k != "training_seconds"} for result in results]


def test_random_masks_are_a_training_of_their_own_and_go_on_after_a_kill(
    images, run, whole, tmp_path, monkeypatch
):
    wanted = plan(images, HEAD, "fixed", "random")
    undisturbed, fixed, random = whole
    assert (fixed["mask"], fixed["run"]) == ("fixed", "centralized-1-ratio-0.75")
    assert (random["mask"], random["run"]) == ("random", "centralized-1-random-ratio-0.75")
    assert losses(undisturbed, fixed["run"]) != losses(undisturbed, random["run"])

    class Killed(Exception):
        pass

    append = MetricsLog.append

    def killed(self, metrics):
        append(self, metrics)
        if metrics["epoch"] == 2 and "random" in self._tags["run"]:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "append", killed)
        with pytest.raises(Killed):
            run(wanted, tmp_path / "killed")
    again = run(wanted, tmp_path / "killed")
    assert timeless(again) == timeless([fixed, random])
    assert losses(tmp_path / "killed", random["run"]) == losses(undisturbed, random["run"])


def test_more_epochs_go_on_with_a_run_that_is_done(images, run, whole, tmp_path, monkeypatch):
    """The result is the undisturbed longer run's; until it is there, the shorter one's stays."""

    def wanted(epochs):
        return plan(images, dataclasses.replace(HEAD, epochs=epochs), "fixed", "random")

    _, *whole = whole
    short = run(wanted(2), tmp_path / "longer")
    lines = (tmp_path / "longer" / "metrics.jsonl").read_text()

    class Killed(Exception):
        pass

    append = MetricsLog.append

    def killed(self, metrics):
        append(self, metrics)
        if "random" in self._tags["run"]:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "append", killed)
        with pytest.raises(Killed):
            run(wanted(3), tmp_path / "longer")
    results = json.loads((tmp_path / "longer" / "summary.json").read_text())["results"]
    assert timeless(results) == timeless([whole[0], short[1]])
    done = {result["run"]: result for result in results}
    assert [wanted(3).is_done(t, done) for t in wanted(3).trainings] == [True, False]

    longer = run(wanted(3), tmp_path / "longer")
    assert timeless(longer) == timeless(whole)
    assert (tmp_path / "longer" / "metrics.jsonl").read_text().startswith(lines)
    with pytest.raises(ValueError, match=r"head\.epochs is 3 there and 2 here"):
        run(wanted(2), tmp_path / "longer")


def test_a_validation_split_is_what_held_out_images_are(images, run, tmp_path):
    """The same images in val/ as would be held out give the same bits, and the same checkpoint."""
    whole = {split: dataset_of(images, split) for split in ("train", "test")}
    train = whole["train"]
    keys = [f"validation/{example_id}" for example_id in train.example_ids]
    rows = held_out(keys, train.labels, train.class_names, share=0.25, seed=0)
    for split, dataset, some in (
        ("test", whole["test"], range(len(whole["test"]))),
        ("val", train, np.flatnonzero(rows)),
        ("train", train, np.flatnonzero(~rows)),
    ):
        for row in some:
            copy = tmp_path / "own" / split / dataset.keys[row]
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.hardlink_to(dataset.locate(int(row)))
    own = dataclasses.replace(images, dataset=f"folder:{tmp_path / 'own'}")
    found = []
    for name, given, share in (("held", images, 0.25), ("brought", own, 0.0)):
        training = Training(mask_ratio=0.0, how=CENTRAL)
        head = dataclasses.replace(HEAD, validation=share)
        wanted = Plan(experiment="x", images=given, head=head, trainings=(training,))
        (result,) = run(wanted, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        again = Plan.from_config(config)
        assert (config.get("own_validation"), again.validated) == (share == 0 or None, True)
        head = restore_head(tmp_path / name, again, training, open_inputs(given), "best")
        found.append((result, head.temperature))
        assert run(wanted, tmp_path / name) == [result]  # finds its work done
    (held, warm), (brought, of_own) = found
    names = ("test_accuracy_per_epoch", "best_validation_accuracy", "best_validation_epoch")
    names += ("temperature", "last_test_loss", "train_examples", "validation_examples")
    assert {n: brought[n] for n in names} == {n: held[n] for n in names}
    assert warm == of_own
    assert (held["own_validation"], brought["own_validation"]) == (False, True)
    assert brought["calibration_examples"] == 0

    with pytest.raises(UsageError, match="--validation 0.1 holds out .* brings a validation split"):
        run(plan(own, dataclasses.replace(HEAD, validation=0.1), "fixed"), tmp_path / "both")
    assert not (tmp_path / "both").exists()

    # What is wrong with the last split is told before the first is encoded.
    for image in (tmp_path / "own" / "val" / "red").iterdir():
        image.unlink()
    with pytest.raises(DataError, match="val/red holds no image"):
        classification.run_plan(plan(own, HEAD, "fixed"), tmp_path / "broken")
    assert not (tmp_path / "broken" / "features").exists()


def test_results_are_named_by_the_tasks_metric_and_chosen_in_its_direction():
    task = dataclasses.replace(TASK, best="loss", higher_is_better=False)
    history = [
        {"epoch": epoch, "test_loss": test, "validation_loss": validation}
        for epoch, (test, validation) in enumerate([(3.0, 1.0), (1.0, 3.0), (2.0, 2.0)], start=1)
    ]
    assert outcome.chosen(history, task) == {
        "metric": "loss",
        "best_test_loss": 1.0,
        "best_epoch": 2,
        "last_test_loss": 2.0,
        "test_loss_per_epoch": [3.0, 1.0, 2.0],
        "best_validation_loss": 1.0,
        "best_validation_epoch": 1,
        "test_loss_at_best_validation": 3.0,
    }


def test_without_a_patch_removed_random_masks_are_the_fixed_ones(
    images, run, tmp_path, monkeypatch
):
    trainings = tuple(
        Training(mask_ratio=0.0, how=CENTRAL, mask=mask) for mask in ("fixed", "random")
    )
    # Encoding the images again would need this function.
    monkeypatch.delattr("experiments.runs.images.random_masks")
    wanted = Plan(experiment="x", images=images, head=HEAD, trainings=trainings)
    fixed, random = run(wanted, tmp_path)
    assert random["mask"] == "random"
    assert random["test_accuracy_per_epoch"] == fixed["test_accuracy_per_epoch"]


def test_results_say_how_heads_were_trained(whole):
    _, result, _ = whole
    options = dataclasses.asdict(HEAD) | dataclasses.asdict(CENTRAL) | {"hidden": [12]}
    options["exchange"] = "replicated"  # what was chosen
    del options["preset"]  # stands in the widths
    assert {name: result[name] for name in options} == options


def test_subnets_see_random_masks_too(images, run, tmp_path):
    how = StrategyOptions(workers=2, local_steps=1)
    trainings = tuple(Training(mask_ratio=0.75, how=how, mask=mask) for mask in ("fixed", "random"))
    wanted = Plan(experiment="x", images=images, head=HEAD, trainings=trainings)
    fixed, random = run(wanted, tmp_path)
    assert (random["mask"], random["run"]) == ("random", "ist-2-random-ratio-0.75")
    assert losses(tmp_path, fixed["run"]) != losses(tmp_path, random["run"])


def test_bytes_by_the_papers_formula():
    """VLDB 2022, §2.3, for 10-20-30-5, in floats of 4 bytes."""

    def received(strategy, workers):
        how = StrategyOptions(strategy=strategy, workers=workers)
        last = {"round": 7, "examples_seen": 96 * workers}  # 12 steps of 8 examples
        return outcome.bytes_by_paper(how, HEAD.batch_size, (10, 20, 30, 5), last)

    assert received("data_parallel", 2) == 12 * 4 * (10 * 20 + 20 * 30 + 30 * 5)
    assert received("ist", 2) == 7 * 4 * ((10 * 20 + 30 * 5) / 2 + 20 * 30 / 4)
    assert received("centralized", 1) == 0
    assert received("local_sgd", 2) is None


def test_the_epoch_is_chosen_by_held_out_training_images(validated):
    run_dir, *results = validated
    for result in results:
        assert (result["train_examples"], result["validation_examples"]) == (36, 12)
        lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
        history = [line for line in lines if line["run"] == result["run"]]
        chosen = max(history, key=lambda line: line["validation_accuracy"])
        assert result["best_validation_epoch"] == chosen["epoch"]
        assert result["best_validation_accuracy"] == chosen["validation_accuracy"]
        assert result["test_accuracy_at_best_validation"] == chosen["test_accuracy"]
        assert result["best_test_accuracy"] >= chosen["test_accuracy"]


def test_a_temperature_is_fitted_on_spared_training_images(
    images, run, whole, validated, tmp_path, monkeypatch
):
    """Those of validation if there are any; runs without either have none."""
    without, few, _ = whole
    assert (few["calibration_examples"], few["temperature"]) == (0, None)
    _, chosen, _ = validated
    assert (chosen["calibration_examples"], chosen["validation_examples"]) == (0, 12)
    assert chosen["temperature"] > 0

    monkeypatch.setattr(calibration, "FEWEST", 1)
    monkeypatch.setattr(calibration, "MOST_SHARE", 0.125)
    (result,) = run(plan(images, HEAD, "fixed"), tmp_path / "spared")
    assert (result["train_examples"], result["calibration_examples"]) == (42, 6)
    last = read_metrics(tmp_path / "spared")[-1]
    assert result["temperature"] == last["temperature"]
    assert result["last_test_ece_uncalibrated"] != result["last_test_ece"]

    # Runs before there was a temperature keep all their training examples.
    file = without / "config.json"
    config = json.loads(file.read_text())
    assert config["head"].pop("calibration") == HEAD.calibration
    assert Plan.from_config(config).head.calibration == 0
    assert "calibration" not in Plan.from_config(config).config()["head"]


def test_every_class_keeps_an_example_when_some_are_spared():
    labels = np.array([0] * 40 + [1] * 10 + [2])
    held = spared([str(i) for i in range(51)], labels, share=0.5, seed=0)
    assert np.bincount(labels[held]).tolist() == [20, 5]


def store(labels):
    features = Features(
        label=np.array(labels, np.int32),
        example_id=np.arange(len(labels), dtype=np.uint32),
        attributes={"class_names": ["a", "b"]},
        read_cls=lambda: np.zeros((len(labels), 2), np.float32),
        on_disk=lambda: OnDisk(np.zeros((len(labels), 2)), np.arange(len(labels))),
    )
    return DenseSplit(features)


def test_held_out_examples_are_as_much_of_every_class_and_the_same_every_time():
    labels = store([0] * 30 + [1] * 10)
    held = validation_rows(labels, 0.2, seed=1)
    assert np.bincount(labels.label[held]).tolist() == [6, 2]
    np.testing.assert_array_equal(held, validation_rows(labels, 0.2, seed=1))
    assert (held != validation_rows(labels, 0.2, seed=2)).any()
    assert not validation_rows(labels, 0.0, seed=1).any()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ValueError, match=r"validation must lie in \[0, 1\), got"):
        validation_rows(store([0, 0, 1, 1]), share, seed=0)


def test_an_unknown_mask_is_refused():
    with pytest.raises(ValueError, match="mask must be fixed or random, got 'natural'"):
        Training(mask_ratio=0.5, how=CENTRAL, mask="natural")
