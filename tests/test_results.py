import json

import pandas as pd
import pytest

import jist
from jist.metrics import MetricsLog, read_metrics

RECORDS = [
    {"run": "ist-2", "workers": 2, "hidden": [8, 9], "last_test_accuracy": 0.5},
    {"run": "ist-4", "workers": 4, "hidden": [8, 9], "last_test_accuracy": 0.7, "ece": 0.1},
]


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"class_names": ["a"], "results": records}))


def test_results_are_a_table_in_one_line(tmp_path):
    write(tmp_path / "r" / "summary.json", RECORDS)
    for there in (tmp_path / "r", tmp_path / "r" / "summary.json"):
        table = pd.DataFrame(jist.results(there))
        assert table.groupby("hidden")["last_test_accuracy"].mean()[(8, 9)] == 0.6
        assert table["ece"].isna().tolist() == [True, False]


def test_a_directory_of_runs_is_a_table_too(tmp_path):
    for name, record in zip(("seed-0", "seed-1"), RECORDS, strict=True):
        write(tmp_path / name / "summary.json", [record])
    found = jist.results(tmp_path)
    assert [(r["directory"], r["run"]) for r in found] == [("seed-0", "ist-2"), ("seed-1", "ist-4")]
    # A sweep gathers them itself.
    write(tmp_path / "summary.json", [{"directory": "seed-0"} | RECORDS[0]])
    assert [r["directory"] for r in jist.results(tmp_path)] == ["seed-0"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": 3}', '{"results": [1]}', "null"])
def test_a_damaged_summary_is_named(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=r"summary\.json is damaged"):
        jist.results(tmp_path)


def test_no_results_are_an_error(tmp_path):
    for there in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="no results in run_dir"):
            jist.results(there)


def test_metrics_that_are_removed_meanwhile_are_missed(tmp_path):
    """Else a run whose directory is removed goes on, and leaves checkpoints without their run."""
    with MetricsLog(tmp_path, "run") as log:
        for epoch in (1, 2):
            log.append({"epoch": epoch})
        assert len(read_metrics(tmp_path)) == 2
        (tmp_path / "metrics.jsonl").unlink()
        with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
            log.append({"epoch": 3})
