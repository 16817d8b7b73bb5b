"""Recipes are chosen by validation accuracy, and only by it."""

import dataclasses
import json

import pytest

from experiments import tune
from experiments.runs.recipes import EACH, TOTAL, Recipe, Score, combined, score
from experiments.tune import TuneOptions

OPTIONS = TuneOptions(dataset="made-up", mask_ratio=0.5, epochs=2, hidden=(8, 8))
DEFAULT = Recipe(1e-3, 50, "carry", "standardize", (8, 8))


def test_each_option_is_varied_alone():
    recipes = tune.to_try(OPTIONS, workers=4)
    assert recipes[0] == DEFAULT
    assert len(recipes) == len(set(recipes)) == 1 + 2 + 2 + 1 + 1 + 1
    for recipe in recipes[1:]:
        changed = [name for name in vars(recipe) if getattr(recipe, name) != getattr(DEFAULT, name)]
        assert len(changed) == 1
    # Four workers of layers four times as wide hold what one alone does.
    assert (32, 32) in {recipe.hidden for recipe in recipes}
    assert {vars(r)["local_steps"] for r in tune.to_try(OPTIONS, workers=1)} == {50}


def test_the_best_values_of_all_options_are_combined():
    accuracies = {DEFAULT: 0.5}
    accuracies[Recipe(3e-3, 50, "carry", "standardize", (8, 8))] = 0.6
    accuracies[Recipe(3e-4, 50, "carry", "standardize", (8, 8))] = 0.7
    accuracies[Recipe(1e-3, 10, "carry", "standardize", (8, 8))] = 0.4
    accuracies[Recipe(1e-3, 50, "reset", "standardize", (8, 8))] = 0.51
    scores = {recipe: Score(1, accuracy, 0.0) for recipe, accuracy in accuracies.items()}
    together = combined([*scores], scores)
    assert together == Recipe(3e-4, 50, "reset", "standardize", (8, 8))


def test_an_epoch_is_chosen_by_validation_among_those_compared():
    validation, test = (0.1, 0.3, 0.2, 0.4), (0.9, 0.5, 0.6, 0.7)
    curve = [
        {"epoch": epoch, "validation_accuracy": v, "test_accuracy": t}
        for epoch, (v, t) in enumerate(zip(validation, test, strict=True), start=1)
    ]
    assert score(curve, epochs=3) == Score(2, 0.3, 0.5)
    assert score(curve, epochs=4) == Score(4, 0.4, 0.7)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Searches without training: the accuracy is a function of the learning rate.

    Test accuracies, or another training in the same file, would choose the opposite.
    """

    def run_plans(plans, directory, **_):
        for name, plan in plans.items():
            (directory / name).mkdir(parents=True, exist_ok=True)
            (training,) = plan.trainings
            accuracy = 100 * plan.head.learning_rate + plan.images.seed / 1000
            lines = [
                {
                    "run": run,
                    "epoch": e,
                    "validation_accuracy": validation + e / 1e4,
                    "test_accuracy": -accuracy,
                }
                for run, validation in (("other ratio", 1 - accuracy), (training.name, accuracy))
                for e in range(1, plan.head.epochs + 1)
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (directory / name / "metrics.jsonl").write_text(text)

    monkeypatch.setattr(tune, "run_plans", run_plans)
    options = TuneOptions(
        mask_ratio=0.5, epochs=2, hidden=(8,), workers=(1, 2), seeds=(0, 1), run_dir=tmp_path
    )

    def searched(**others):
        tune.main(dataclasses.replace(options, **others))
        return json.loads((tmp_path / "tuning.json").read_text())

    return searched


def test_a_search_ends_with_the_recipe_that_validates_best(search):
    report = search()
    for comparison, last in ((TOTAL, [2, 2]), (EACH, [4, 4])):
        row = report[comparison]["2"]
        assert row["chosen"]["recipe"]["learning_rate"] == 3e-3
        assert row["chosen"]["epochs"] == last
        assert row["chosen"]["test_accuracy"] == pytest.approx([-0.3, -0.301])
        assert row["default"]["test_accuracy_mean"] == pytest.approx(-0.1005)


def test_a_validation_split_is_searched_on(search, tmp_path):
    for split in ("train", "val", "test"):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
    dataset = f"folder:{tmp_path / 'data'}"
    assert search(dataset=dataset)["options"]["validation"] == 0.0
    with pytest.raises(ValueError, match=r"--validation 0\.2 .* leave --validation out"):
        search(dataset=dataset, validation=0.2)


def test_a_curve_is_that_of_one_training(tmp_path):
    lines = [{"run": run, "epoch": 1} for run in ("ist-2-ratio-0.5", "ist-2-ratio-0.75")]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert tune.read_curve(tmp_path, "ist-2-ratio-0.75") == lines[1:]


def test_a_search_grows_by_numbers_of_workers_and_by_nothing_else(search, tmp_path):
    first = search(workers=(2,))
    grown = search(workers=(1,))
    whole = search()
    for comparison in (TOTAL, EACH):
        assert grown[comparison].keys() == {"1", "2"}
        assert grown[comparison]["2"] == first[comparison]["2"]
    assert whole == grown
    assert grown["options"] == first["options"]
    assert grown["options"]["mask_ratio"] == 0.5

    for other, difference in (
        ({"mask_ratio": 0.75}, "mask_ratio is 0.5 there and 0.75 here"),
        ({"seeds": (0,)}, r"seeds is \[0, 1\] there and \[0\] here"),
        ({"encode_dtype": "bfloat16"}, "encode_dtype is 'float32' there"),
    ):
        message = f"tuning.json belongs to another search; .*: {difference}"
        with pytest.raises(ValueError, match=message):
            search(**other)
    assert json.loads((tmp_path / "tuning.json").read_text()) == whole


def test_a_longer_search_goes_on_and_keeps_the_shorter_one(search):
    short = search(workers=(2,))
    longer = search(workers=(2,), epochs=3)
    assert longer["options"] == short["options"] | {"epochs": 3}
    assert longer[EACH]["2"]["chosen"]["epochs"] == [6, 6]
    assert longer["shorter"] == [short]
    assert search(workers=(2,), epochs=3) == longer
    with pytest.raises(ValueError, match=r"another search; .*: epochs is 3 there and 2 here$"):
        search(workers=(2,))


def test_a_report_that_does_not_say_what_it_is_of_is_not_added_to(search, tmp_path):
    (tmp_path / "tuning.json").write_text(json.dumps({TOTAL: {}, EACH: {}}))
    with pytest.raises(ValueError, match="it does not list its options"):
        search()


def test_without_held_out_images_nothing_can_be_chosen():
    with pytest.raises(ValueError, match=r"validation must lie in \(0, 1\), got 0"):
        tune.main(TuneOptions(validation=0.0))
