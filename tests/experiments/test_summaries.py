import json
import statistics

import pytest

from experiments.summaries import Way, by_study, read_results

RESULT = {
    "run": "centralized-1-ratio-0.5",
    "dataset": "folder:data/cifar10",
    "encoder": "random-nano",
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
    _, ways = studies.values()
    assert list(ways) == [Way("centralized", 1, "fixed"), Way("centralized", 1, "random")]
    line = ways[Way("centralized", 1, "fixed")]
    assert list(line) == [0.5, 0.75]
    assert line[0.5].mean("best_test_accuracy") == pytest.approx(sum(accuracies) / 3)
    deviation = statistics.stdev(accuracies)
    assert line[0.5].deviation("best_test_accuracy") == pytest.approx(deviation)
    assert line[0.5].percent("best_test_accuracy") == "53.0 ± 3.6"
    assert line[0.75].deviation("best_test_accuracy") is None
    assert line[0.75].percent("best_test_accuracy") == "50.0"


def test_results_that_contradict_each_other_are_refused(tmp_path):
    a, b = write(tmp_path / "a", RESULT), write(tmp_path / "b", RESULT | {"best_test_accuracy": 1})
    with pytest.raises(ValueError, match="a and .*b both hold centralized-1-ratio-0.5"):
        read_results([a, b])


def test_a_missing_summary_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results at"):
        read_results([tmp_path])
