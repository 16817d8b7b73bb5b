import dataclasses
import json
import statistics

import pytest

from experiments.command.errors import UsageError
from experiments.command.options import HeadOptions, StrategyOptions
from experiments.figures.summaries import Method, Study, by_study, read_results

RESULT = {
    "run": "centralized-1-ratio-0.5",
    "dataset": "folder:data/cifar10",
    "encoder": "random-nano",
    "image_size": 32,
    "patch_size": 4,
    "feature_dim": 8,
    "train_examples": 40,
    "epochs": 2,
    "norm": "standardize",
    "worker_data": "shared",
    "strategy": "centralized",
    "workers": 1,
    "mask": "fixed",
    "ratio": 0.5,
    "seed": 0,
    "best_test_accuracy": 0.5,
}


def test_results_of_unlike_heads_stand_apart_and_those_of_others_are_refused(tmp_path):
    unlike = [{}, {"dropout": 0.5}, {"weight_decay": 0.2}, {"lazy_rows": True}, {"seed": 1}]
    run = write(tmp_path / "a", *(RESULT | of for of in unlike))
    studies = by_study(read_results([run]))
    told = [study.options for study in studies]
    assert told == ["", "lazy rows True", "weight decay 0.2", "dropout 0.5"]
    assert [len(cell.results) for ((cell,),) in _cells(studies)] == [2, 1, 1, 1]
    # The others say how many examples are trained on, which tells them apart.
    of_head = {field.name for field in dataclasses.fields(HeadOptions)}
    of_study = {field.name for field in dataclasses.fields(Study)}
    # `fused_output` changes where a step is taken, not what it is.
    assert of_head - of_study == {"preset", "validation", "calibration", "fused_output"}
    other = write(tmp_path / "b", {k: v for k, v in RESULT.items() if k != "image_size"})
    with pytest.raises(UsageError, match="b: centralized-1-ratio-0.5 is no head on CLS vectors of"):
        read_results([run, other])


def _cells(studies):
    return ([line.values() for line in table.values()] for table in studies.values())


def write(path, *results):
    path.mkdir(exist_ok=True)
    (path / "summary.json").write_text(json.dumps({"class_names": [], "results": results}))
    return path


def test_mean_and_deviation_over_the_seeds_of_all_directories(tmp_path):
    accuracies = [0.50, 0.52, 0.57]
    a = write(tmp_path / "a", RESULT, RESULT | {"seed": 1, "best_test_accuracy": accuracies[1]})
    b = write(
        tmp_path / "b",
        RESULT | {"seed": 2, "best_test_accuracy": accuracies[2]},
        RESULT | {"ratio": 0.75},
        RESULT | {"mask": "random"},
        RESULT | {"dataset": "digits"},
    )
    studies = by_study(read_results([a, b / "summary.json", a]))
    assert [study.dataset for study in studies] == ["digits", "folder:data/cifar10"]
    _, methods = studies.values()
    assert list(methods) == [Method("centralized", 1, "fixed"), Method("centralized", 1, "random")]
    line = methods[Method("centralized", 1, "fixed")]
    assert list(line) == [0.5, 0.75]
    assert line[0.5].mean("best_test_accuracy") == pytest.approx(sum(accuracies) / 3)
    deviation = statistics.stdev(accuracies)
    assert line[0.5].deviation("best_test_accuracy") == pytest.approx(deviation)
    assert line[0.5].percent("best_test_accuracy") == "53.0 ± 3.6"
    assert line[0.75].deviation("best_test_accuracy") is None
    assert line[0.75].percent("best_test_accuracy") == "50.0"


def test_encoders_that_one_name_meant_in_turn_are_not_averaged(tmp_path):
    def titles(encoder):
        found = [
            RESULT | {"encoder": encoder, "seed": seed, "encoder_sha256": str(seed) * 64}
            for seed in (1, 2)
        ]
        run = write(tmp_path / encoder, *found)
        return [str(study) for study in by_study(read_results([run]))]

    assert titles("mae") == [
        "folder:data/cifar10, mae (11111111), 2 epochs",
        "folder:data/cifar10, mae (22222222), 2 epochs",
    ]
    # These are drawn, and others with every seed.
    assert titles("random-nano") == ["folder:data/cifar10, random-nano, 2 epochs"]


HEAD = {"hidden": [500], "learning_rate": 3e-3, "batch_size": 32, "norm": "scale"}
HOW = {
    "local_steps": 200,
    "partition": "stratified",
    "optimizer_state": "reset",
    "exchange": "sharded",
    "exchange_dtype": "bfloat16",
    "shares": "0.75,0.25",
    "alpha": 0.1,
}
IST = RESULT | {"strategy": "ist", "workers": 2}


@pytest.mark.parametrize("option", [*HEAD, *HOW, "worker_data"])
def test_what_was_trained_otherwise_is_not_another_seed(option, tmp_path):
    value = (HEAD | HOW | {"worker_data": "sharded"})[option]
    other = IST | {option: value, "seed": 1, "best_test_accuracy": 0.9}
    studies = by_study(read_results([write(tmp_path / "a", IST, other)]))
    lines = [
        (study, method, line) for study, table in studies.items() for method, line in table.items()
    ]
    assert len(lines) == 2
    for _, _, line in lines:
        assert line[0.5].deviation("best_test_accuracy") is None
    # And a reader can see in what they differ.
    words = f"{option.replace('_', ' ')} {value[0] if option == 'hidden' else value}"
    assert {f"{study.options}{method.options}" for study, method, _ in lines} == {"", words}


def test_ratios_that_were_measured_are_averaged_like_accuracies(tmp_path):
    """Clouds take another share of the patches with every seed."""
    clouds = RESULT | {"mask": "simulated clouds 0.3", "ratio": 0.47}
    others = clouds | {"seed": 1, "ratio": 0.49, "best_test_accuracy": 0.6}
    a = write(tmp_path / "a", clouds, others, clouds | {"max_missing": 0.5, "ratio": 0.2})
    ((_, methods),) = by_study(read_results([a])).items()
    assert [str(method) for method in methods] == [
        "centralised, simulated clouds 0.3 masks",
        "centralised, simulated clouds 0.3 masks, max missing 0.5",
    ]
    (cells, patient) = methods.values()
    assert list(cells) == [0.48]
    assert cells[0.48].percent("best_test_accuracy") == "55.0 ± 7.1"
    assert list(patient) == [0.2]


def test_results_that_do_not_say_all_options_are_of_the_defaults(tmp_path):
    said = (
        dataclasses.asdict(StrategyOptions(exchange="replicated"))
        | dataclasses.asdict(HeadOptions(batch_size=64))
        | IST
    )
    results = IST, said | {"seed": 1}
    ((table,),) = [by_study(read_results([write(tmp_path / "a", *results)])).values()]
    assert list(table) == [Method("ist", 2, "fixed")]
    assert len(table[Method("ist", 2, "fixed")][0.5].results) == 2


def test_rounds_do_not_tell_trainings_apart_that_exchange_nothing(tmp_path):
    central = write(tmp_path / "a", RESULT, RESULT | {"local_steps": 200, "seed": 1})
    (table,) = by_study(read_results([central])).values()
    assert list(table) == [Method("centralized", 1, "fixed")]
    assert str(Method("ist", 2, "random", "local steps 200")) == (
        "IST, 2 workers, random masks, local steps 200"
    )


def test_the_recipes_of_one_search_do_not_contradict_each_other(tmp_path):
    """`experiments.tune` trains many, all with the first seed."""
    tried = [
        IST | option | {"directory": f"recipe-{i}", "best_test_accuracy": i / 10}
        for i, option in enumerate(({}, {"learning_rate": 3e-3}, {"local_steps": 10}))
    ]
    directory = write(tmp_path / "tune", *tried)
    assert len(read_results([directory])) == 3
    again = tried[0] | {"directory": "again", "best_test_accuracy": 1}
    write(directory, *tried, again)
    with pytest.raises(ValueError, match="tune/recipe-0 and .*tune/again both hold"):
        read_results([directory])


def test_results_that_contradict_each_other_are_refused(tmp_path):
    a, b = write(tmp_path / "a", RESULT), write(tmp_path / "b", RESULT | {"best_test_accuracy": 1})
    with pytest.raises(ValueError, match="a and .*b both hold centralized-1-ratio-0.5"):
        read_results([a, b])


def test_a_missing_summary_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results at"):
        read_results([tmp_path])
