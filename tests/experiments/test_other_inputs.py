"""What is no image: vectors and clips through the scripts, as a user runs them."""

import json
import re
import shutil
import subprocess
import sys
import wave

import jax.export
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.special
from safetensors.numpy import load_file

from experiments import (
    centralized,
    compare,
    distributed,
    evaluate,
    export,
    extract,
    predict,
    sweep,
)
from experiments.command import cli
from experiments.command.options import HeadOptions, ImageOptions
from experiments.runs.inputs import open_inputs
from jist.data.sparse import load_xc
from jist.data.vectors import load_vectors
from jist.features import load

SMALL = ("--hidden", "8", "--batch-size", "8", "--epochs", "1")
ROWS, DIM, CLASSES = 60, 6, 3


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Three clouds of points, written as the README says."""
    y = np.arange(ROWS) % CLASSES
    x = np.random.default_rng(0).normal(5.0 * np.eye(CLASSES, DIM)[y])
    path = tmp_path_factory.mktemp("vectors") / "mine.npz"
    np.savez(path, x=x.astype(np.float32), y=np.array(["ash", "elm", "oak"])[y])
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two words, a low and a high tone, by twelve speakers."""
    root = tmp_path_factory.mktemp("clips")
    seconds = np.arange(16_000) / 16_000
    for word, hertz in (("low", 300), ("high", 3000)):
        (root / word).mkdir()
        for speaker in range(12):
            tone = 8000 * np.sin(2 * np.pi * (hertz + 10 * speaker) * seconds)
            with wave.open(str(root / word / f"{speaker:08x}_nohash_0.wav"), "wb") as file:
                file.setparams((1, 2, 16_000, 0, "NONE", ""))
                file.writeframes(tone.astype("<i2").tobytes())
    return root


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """The Repository's text: two labels of five for each example, seen in its features."""
    root = tmp_path_factory.mktemp("xc")
    for split, count in (("train", 60), ("test", 20)):
        lines = [f"{count} 10 5"]
        for row in range(count):
            labels = sorted({row % 5, (row + 1) % 5})
            features = " ".join(f"{label}:1 {label + 5}:0.5" for label in labels)
            lines.append(f"{','.join(map(str, labels))} {features}")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script; returns its exit code, its output and its messages."""

    def call(script, options, *arguments):
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        try:
            cli.run(script.main, options, script.__doc__ or "")
        except SystemExit as stopped:
            return stopped.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return call


def test_vectors_are_trained_evaluated_and_predicted(run, vectors, tmp_path):
    own = ("--dataset", f"features:{vectors}", *SMALL, "--epochs", "8", "--learning-rate", "0.03")
    arguments = (*own, "--workers", "2", "--run-dir", tmp_path / "r")
    code, out, err = run(distributed, distributed.DistributedOptions, *arguments)
    assert (code, err) == (0, "")
    assert "–" in out  # no patches
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["class_names"] == ["ash", "elm", "oak"]
    (result,) = summary["results"]
    assert (result["feature_dim"], result["mask"], result["encoder"]) == (DIM, "none", "none")
    assert result["last_test_accuracy"] == 1.0

    code, _, err = run(evaluate, evaluate.EvaluateOptions, "--run-dir", tmp_path / "r")
    assert (code, err) == (0, "")
    (measured,) = json.loads((tmp_path / "r" / "evaluation.json").read_text()).values()
    assert measured["test_accuracy"] == result["last_test_accuracy"]

    np.save(tmp_path / "new.npy", 5 * np.eye(CLASSES, DIM))  # without labels
    wanted = ("--run-dir", tmp_path / "r", "--images", tmp_path / "new.npy")
    code, out, err = run(predict, predict.PredictOptions, *wanted)
    assert (code, err) == (0, "")
    found = [line.split("\t")[:2] for line in out.splitlines()]
    assert found == [[f"{tmp_path}/new.npy:{i}", w] for i, w in enumerate(("ash", "elm", "oak"))]

    np.save(tmp_path / "other.npy", np.eye(2))
    wanted = (*wanted[:-1], tmp_path / "other.npy")
    code, _, err = run(predict, predict.PredictOptions, *wanted)
    assert code == 1
    assert "other.npy has 2 features in a row, the run's 6" in err
    for name, vectors, message in (
        ("none.npy", np.zeros((0, DIM)), "none.npy holds no rows"),
        ("nan.npy", np.full((1, DIM), np.nan), "nan.npy:0: a feature is not finite in float32"),
        ("far.npy", np.eye(2, DIM) * 1e300, "far.npy:0: a feature is not finite in float32"),
        ("big.npy", np.full((1, DIM), 3e38), "big.npy:0: its probabilities are not finite"),
    ):
        np.save(tmp_path / name, vectors)
        code, out, err = run(predict, predict.PredictOptions, *wanted[:-1], tmp_path / name)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert message in err
    for option, *given in (("--draws", "3"), ("--mask-ratio", "0.5"), ("--skip-unreadable",)):
        code, _, err = run(predict, predict.PredictOptions, *wanted, option, *given)
        assert (code, f"error: {option} needs a run on images" in err) == (2, True)


def test_other_vectors_have_labels_of_their_own(run, vectors, tmp_path):
    """In a file as those of the run, in another column, in the run's, or nowhere."""
    with np.load(vectors) as arrays:
        x, y = arrays["x"], arrays["y"]
    np.save(tmp_path / "train.npy", x)
    np.save(tmp_path / "names.npy", y)
    kept = ("--run-dir", tmp_path / "r")
    given = (*SMALL, "--epochs", "8", "--learning-rate", "0.03", *kept)
    labels = ("--labels", tmp_path / "names.npy")
    data = ("--dataset", f"features:{tmp_path}/train.npy")
    assert run(centralized, centralized.CentralizedOptions, *data, *labels, *given)[0] == 0
    np.savez(tmp_path / "other.npz", x=x[::-1], y=y[::-1], kind=np.roll(y, 1)[::-1])
    np.savez(tmp_path / "split.npz", x=x, y=y, split=np.repeat(["train", "test"], [50, 10]))
    np.save(tmp_path / "bare.npy", x[::-1])
    np.save(tmp_path / "reversed.npy", y[::-1])
    for name, more, accuracy, examples in (
        ("other.npz", (), 1.0, ROWS),  # not by the run's file, which has as many rows
        ("other.npz", ("--labels", "kind"), 0.0, ROWS),
        ("bare.npy", ("--labels", tmp_path / "reversed.npy"), 1.0, ROWS),
        ("split.npz", (), 1.0, 10),
        ("split.npz,other.npz", (), 1.0, ROWS),
    ):
        asked = (*kept, "--dataset", f"features:{name}", "--data-dir", tmp_path, *more)
        code, _, err = run(evaluate, evaluate.EvaluateOptions, *asked)
        assert (code, err) == (0, "")
        (found,) = json.loads((tmp_path / "r" / "evaluation.json").read_text()).values()
        assert (found["test_accuracy"], found["examples"]) == (accuracy, examples)
    for arguments, code, message in (
        (("--dataset", f"features:{tmp_path}/bare.npy"), 1, "has no labels, .* by --labels"),
        (("--labels", "kind"), 2, "--labels needs --dataset features:PATH"),
        (("--labels", "kind", "--dataset", "digits"), 2, "--labels needs --dataset features:PATH"),
    ):
        found, _, err = run(evaluate, evaluate.EvaluateOptions, *kept, *arguments)
        assert (found, err.count("\n")) == (code, 1)
        assert re.search(message, err)


def test_features_with_names_are_matched_by_these(run, vectors, tmp_path):
    """In prediction and evaluation; the column of the run's labels is never a feature."""
    with np.load(vectors) as arrays:
        x, y = arrays["x"], np.unique(arrays["y"], return_inverse=True)[1]
    frame = pd.DataFrame(x, columns=[*"abcdef"]).assign(kind=y, town="x")
    frame.to_parquet(tmp_path / "own.parquet")
    frame[["f", "kind", *"edcba"]].to_parquet(tmp_path / "turned.parquet")
    frame[[*"abcdef"]].to_parquet(tmp_path / "bare.parquet")
    frame.rename(columns={"f": "q"}).to_parquet(tmp_path / "unlike.parquet")
    kept = ("--run-dir", tmp_path / "r")
    given = ("--dataset", f"features:{tmp_path}/own.parquet", "--labels", "kind", *SMALL, *kept)
    more = ("--epochs", "8", "--learning-rate", "0.03")
    code, out, err = run(centralized, centralized.CentralizedOptions, *given, *more)
    assert (code, err) == (0, "")
    assert "left out of the features: town (no numbers)" in " ".join(out.split())
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["feature_names"] == [*"abcdef"]

    def predicted(name):
        wanted = (*kept, "--images", tmp_path / name)
        code, out, err = run(predict, predict.PredictOptions, *wanted)
        return code, [line.split("\t")[1] for line in out.splitlines()], err

    for name in ("own.parquet", "turned.parquet", "bare.parquet"):
        assert predicted(name) == (0, [*map(str, y)], "")
    asked = (*kept, "--dataset", f"features:{tmp_path}/turned.parquet")
    assert run(evaluate, evaluate.EvaluateOptions, *asked)[0] == 0
    (found,) = json.loads((tmp_path / "r" / "evaluation.json").read_text()).values()
    assert (found["test_accuracy"], found["examples"]) == (1.0, ROWS)
    asked = (*kept, "--dataset", f"features:{tmp_path}/unlike.parquet")
    for code, _, err in (
        predicted("unlike.parquet"),
        run(evaluate, evaluate.EvaluateOptions, *asked),
    ):
        assert (code, err.count("\n")) == (1, 1)
        assert "unlike.parquet has other features than features:" in err
        assert "it lacks f and adds q" in err
    old = {name: of for name, of in config.items() if not name.startswith("feature_names")}
    (tmp_path / "r" / "config.json").write_text(json.dumps(old))  # as runs before names counted
    assert predicted("unlike.parquet") == (0, [*map(str, y)], "")


def test_what_cannot_be_learned_is_refused(run, clips, tmp_path):
    """A class without training examples, one class alone, and rows without a label."""
    x, y, split = np.eye(8), np.arange(8) % 2, np.repeat(["train", "test"], 4)
    np.savez(tmp_path / "one.npz", x=x, y=np.zeros(8, int))
    np.savez(tmp_path / "late.npz", x=x, y=np.where(np.arange(8) == 7, 2, y), split=split)
    np.savez(tmp_path / "none.npz", x=x, y=np.repeat([[0, 0], [0, 1]], 4, axis=0), split=split)
    shutil.copytree(clips, tmp_path / "words")
    (tmp_path / "words" / "zoo").mkdir()
    shutil.copy(clips / "low" / "00000003_nohash_0.wav", tmp_path / "words" / "zoo")
    listed = [f"{word}/00000003_nohash_0.wav" for word in ("low", "high", "zoo")]
    (tmp_path / "words" / "testing_list.txt").write_text("\n".join(listed))
    shutil.copytree(clips / "low", tmp_path / "word" / "low")
    late = "occurs in the split 'test' and has no example to train on"
    for dataset, message in (
        (f"features:{tmp_path}/one.npz", "holds only one class (0); a classifier needs two"),
        (f"features:{tmp_path}/late.npz", f"late.npz: class '2' {late}"),
        (f"features:{tmp_path}/none.npz", "none.npz: none of the 4 training examples has a label"),
        (f"speech:{tmp_path}/words", f"words: class 'zoo' {late}"),
        (f"speech:{tmp_path}/word", "holds only one class (low); a classifier needs two"),
    ):
        given = ("--dataset", dataset, *SMALL, "--run-dir", tmp_path / "r")
        code, _, err = run(centralized, centralized.CentralizedOptions, *given)
        assert (code, err.count("\n"), message in err) == (1, 1, True), err
    assert not (tmp_path / "r" / "metrics.jsonl").exists()


def test_vectors_too_large_for_memory_stay_on_disk(run, vectors, tmp_path):
    own = ("--dataset", f"features:{vectors}", *SMALL, "--epochs", "8", "--learning-rate", "0.03")
    for name, kept in (("disk", "0"), ("memory", "1")):
        arguments = (*own, "--resident-gb", kept, "--run-dir", tmp_path / name)
        code, out, err = run(centralized, centralized.CentralizedOptions, *arguments)
        assert (code, err) == (0, "")
        assert ("features stay on disk" in out) == (name == "disk")
        (result,) = json.loads((tmp_path / name / "summary.json").read_text())["results"]
        assert (result["streamed"], result["last_test_accuracy"]) == (name == "disk", 1.0)


def test_vectors_written_anew_under_their_name_are_noticed(run, vectors, tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(vectors.read_bytes())
    arguments = ("--dataset", f"features:{path}", *SMALL, "--run-dir", tmp_path / "r")
    assert run(centralized, centralized.CentralizedOptions, *arguments)[0] == 0
    with np.load(vectors) as arrays:
        np.savez(path, x=arrays["x"] + 1, y=arrays["y"])
    code, _, err = run(evaluate, evaluate.EvaluateOptions, "--run-dir", tmp_path / "r")
    assert code == 2
    assert "train features: not what the run began with" in err


def test_strategies_are_compared_on_vectors(run, vectors, tmp_path):
    own = ("--dataset", f"features:{vectors}", *SMALL, "--workers", "2")
    code, out, _ = run(compare, compare.CompareOptions, *own, "--run-dir", tmp_path)
    assert code == 0
    assert "ensemble" in out
    assert (tmp_path / "comparison.png").stat().st_size


def test_clips_are_extracted_trained_and_predicted(run, clips, tmp_path):
    own, kept = ("--dataset", f"speech:{clips}"), ("--features-dir", tmp_path / "features")
    code, out, err = run(extract, extract.ExtractOptions, *own, *kept)
    assert (code, err) == (0, "")
    assert "vectors of 4096 numbers" in out
    for name in ("table.npz", "table.parquet"):  # what leaves can come in again
        wanted = (*own, *kept, "--out", tmp_path / name)
        assert run(extract, extract.ExtractOptions, *wanted)[0] == 0
        for split in ("train", "test"):
            (path,) = (tmp_path / "features").glob(f"*-{split}-*")
            stored, again = load(path), load_vectors(tmp_path / name, split)
            np.testing.assert_array_equal(again.read(), stored.cls)
            assert [again.class_names[label] for label in again.labels] == [
                stored.attributes["class_names"][label] for label in stored.label
            ]
    code, _, err = run(extract, extract.ExtractOptions, *own, "--out", tmp_path / "table.csv")
    assert (code, "out must end in .npz or .parquet, got" in err) == (2, True)
    arguments = (*own, *kept, *SMALL, "--epochs", "6", "--run-dir", tmp_path / "r")
    code, _, err = run(centralized, centralized.CentralizedOptions, *arguments)
    assert (code, err) == (0, "")
    (result,) = json.loads((tmp_path / "r" / "summary.json").read_text())["results"]
    assert (result["feature_dim"], result["encoder"]) == (4096, "log-mel")
    assert result["last_test_accuracy"] == 1.0
    wanted = ("--run-dir", tmp_path / "r", "--images", clips / "high")
    code, out, err = run(predict, predict.PredictOptions, *wanted)
    assert (code, err) == (0, "of 12 in folders of their classes 100.0% are right\n")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["high"] * 12
    shutil.copytree(clips, tmp_path / "others")  # without lists: all clips count
    wanted = ("--run-dir", tmp_path / "r", "--dataset", f"speech:{tmp_path}/others")
    code, _, err = run(evaluate, evaluate.EvaluateOptions, *wanted)
    assert (code, err) == (0, "")
    (found,) = json.loads((tmp_path / "r" / "evaluation.json").read_text()).values()
    assert (found["test_accuracy"], found["examples"]) == (1.0, 24)


def test_the_published_list_of_clips_for_validation_is_used(run, clips, tmp_path):
    shutil.copytree(clips, tmp_path / "words")
    for name, speakers in (("testing", range(3)), ("validation", range(3, 8))):
        lines = [f"{word}/{of:08x}_nohash_0.wav" for word in ("low", "high") for of in speakers]
        (tmp_path / "words" / f"{name}_list.txt").write_text("\n".join(lines))
    given = ("--dataset", f"speech:{tmp_path}/words", *SMALL, "--run-dir", tmp_path / "r")
    code, out, err = run(centralized, centralized.CentralizedOptions, *given)
    assert (code, err) == (0, "")
    assert "brings a validation split" in out
    (result,) = json.loads((tmp_path / "r" / "summary.json").read_text())["results"]
    examples = [result[f"{split}_examples"] for split in ("train", "validation", "test")]
    assert examples == [8, 10, 6]


def test_sparse_rows_with_many_labels(run, sparse, tmp_path):
    own = ("--dataset", f"xc:{sparse}", *SMALL, "--epochs", "8", "--learning-rate", "0.03")
    more = ("--dropout", "0.1", "--validation", "0.2", "--workers", "2")
    arguments = (*own, *more, "--run-dir", tmp_path / "r")
    code, out, err = run(distributed, distributed.DistributedOptions, *arguments)
    assert (code, err) == (0, "")
    assert "precision" in out
    (result,) = json.loads((tmp_path / "r" / "summary.json").read_text())["results"]
    assert result["metric"] == "precision_at_1"
    assert result["last_test_precision_at_1"] == 1.0
    assert (result["train_examples"], result["validation_examples"]) == (48, 12)

    code, out, _ = run(evaluate, evaluate.EvaluateOptions, "--run-dir", tmp_path / "r")
    assert (code, "ndcg at 5" in out) == (0, True)
    (measured,) = json.loads((tmp_path / "r" / "evaluation.json").read_text()).values()
    assert measured["test_precision_at_1"] == result["last_test_precision_at_1"]
    assert measured["test_recall_at_3"] == result["last_test_recall_at_3"]
    for name in ("temperature", "offset"):  # fitted on the validation examples
        assert measured[name] == result[name]
    assert measured["test_nll"] == result["last_test_nll"]
    assert measured["test_nll"] <= measured["calibration"]["uncalibrated"]["nll"]

    (tmp_path / "alone").mkdir()  # without train.txt, and its labels are others
    text = (sparse / "test.txt").read_text()
    (tmp_path / "alone" / "test.txt").write_text(text.replace("20 10 5", "20 10 9", 1))
    wanted = ("--run-dir", tmp_path / "r", "--images", tmp_path / "alone", "--json-lines")
    code, out, _ = run(predict, predict.PredictOptions, *wanted)
    assert code == 0
    for row, line in enumerate(out.splitlines()):
        assert int(json.loads(line)["class"]) in {row % 5, (row + 1) % 5}
    check_export(run, tmp_path, [json.loads(line)["probabilities"] for line in out.splitlines()])

    sharded = (*own, "--worker-data", "sharded", "--run-dir", tmp_path / "s")
    code, _, err = run(distributed, distributed.DistributedOptions, *sharded)
    assert (code, "needs examples of one class each" in err) == (2, True)


def test_an_output_layer_that_takes_its_steps_in_chunks(run, sparse, vectors, tmp_path):
    own = ("--dataset", f"xc:{sparse}", *SMALL, "--workers", "1")
    losses = []
    for name, more in (("whole", ()), ("fused", ("--fused-output",))):
        arguments = (*own, *more, "--run-dir", tmp_path / name)
        code, _, err = run(distributed, distributed.DistributedOptions, *arguments)
        assert (code, err) == (0, "")
        (line,) = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append(json.loads(line)["test_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    config = json.loads((tmp_path / "fused" / "config.json").read_text())
    assert config["head"]["fused_output"]
    other = ("--dataset", f"features:{vectors}", "--fused-output")
    for words, message in (
        ((*own, "--fused-output", "--negatives", "2"), "cannot be used with --negatives 2"),
        (
            (*own, "--fused-output", "--multilabel-loss", "softmax"),
            "cannot be used with --multilabel-loss softmax",
        ),
        ((*own, "--fused-output", "--lazy-rows"), "--fused-output cannot be used with --lazy-rows"),
        (other, "--fused-output needs many labels"),
    ):
        given = (*words, "--run-dir", tmp_path / "w")
        code, _, err = run(distributed, distributed.DistributedOptions, *given)
        assert (code, message in err) == (2, True)


def check_export(run, root, predicted):
    """The program finds what `predict` does, and NumPy with the head's arrays, on padded rows."""
    given = ("--run-dir", root / "r")
    for form in ("stablehlo", "safetensors"):
        words = (*given, "--format", form, "--out", root / form)
        assert run(export, export.ExportOptions, *words)[0] == 0
    code, _, err = run(export, export.ExportOptions, *given, "--format", "onnx")
    assert (code, "of which stablehlo and safetensors are written" in err) == (2, True)
    config = json.loads((root / "stablehlo" / "config.json").read_text())
    assert (config["classes"], config["sparse"], config["output"]) == ([], True, "sigmoid")
    x = np.zeros((len(predicted), 10))
    for row, labels in enumerate((i % 5, (i + 1) % 5) for i in range(len(x))):
        x[row, list(labels)], x[row, [label + 5 for label in labels]] = 1, 0.5
    x[0] = 0  # a row without entries
    head = load_file(root / "safetensors" / "head.safetensors")
    last = len(head) // 2 - 1
    found = x
    for layer in range(last + 1):
        found = np.maximum(found, 0) if layer else found
        found = found @ head[f"{layer}.kernel"] + head[f"{layer}.bias"]
    wanted = scipy.special.expit(found / config["temperature"] + config["offset"])
    program = jax.export.deserialize((root / "stablehlo" / "model.stablehlo").read_bytes())
    order = np.argsort(-x, axis=1, kind="stable")[:, :6].astype(np.int32)  # 4 entries, padded
    values = np.take_along_axis(x, order, axis=1).astype(np.float32)
    np.testing.assert_allclose(program.call(order, values), wanted, atol=1e-5)
    for row, labels in enumerate(predicted[1:], start=1):
        for label, probability in labels.items():
            assert probability == pytest.approx(wanted[row, int(label)], abs=1e-4)
    scipy.sparse.save_npz(root / "x.npz", scipy.sparse.csr_matrix(x))
    command = [sys.executable, root / "stablehlo" / "predict.py", root / "x.npz"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    best = [line.split("\t")[0] for line in said.splitlines()]
    assert best == [str(i) for i in wanted.argmax(axis=1)]


def test_sparse_vectors_of_ones_own(run, vectors, sparse, tmp_path):
    with np.load(vectors) as dense:
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_matrix(dense["x"]))
        (tmp_path / "y.txt").write_text("\n".join(dense["y"]))
    own = ("--dataset", f"features:{tmp_path}/x.npz", *SMALL, "--learning-rate", "0.03")
    arguments = (
        *own,
        "--epochs",
        "8",
        "--entry-dropout",
        "0.1",
        "--lazy-rows",
        "--run-dir",
        tmp_path / "r",
    )
    code, _, err = run(centralized, centralized.CentralizedOptions, *arguments)
    assert (code, err) == (0, "")
    (result,) = json.loads((tmp_path / "r" / "summary.json").read_text())["results"]
    assert (result["entry_dropout"], result["last_test_accuracy"]) == (0.1, 1.0)
    code, _, err = run(evaluate, evaluate.EvaluateOptions, "--run-dir", tmp_path / "r")
    assert (code, err) == (0, "")
    scipy.sparse.save_npz(tmp_path / "new.npz", scipy.sparse.csr_matrix(5 * np.eye(CLASSES, DIM)))
    for name, wanted in (("new.npz", 0), ("mine.npz", 1)):
        path = tmp_path / name if name == "new.npz" else vectors
        given = ("--run-dir", tmp_path / "r", "--images", path)
        code, out, err = run(predict, predict.PredictOptions, *given)
        assert code == wanted
        if code:
            assert f"{path} holds dense vectors, unlike the run's" in err
        else:
            assert [line.split("\t")[1] for line in out.splitlines()] == ["ash", "elm", "oak"]
    wrong = (*own, "--multilabel-loss", "softmax", "--run-dir", tmp_path / "w")
    code, _, err = run(centralized, centralized.CentralizedOptions, *wrong)
    assert (code, "--multilabel-loss needs examples with many labels" in err) == (2, True)
    for option in (("--entry-dropout", "0.1"), ("--lazy-rows",)):
        given = ("--dataset", f"features:{vectors}", *option, "--run-dir", tmp_path / "w")
        code, _, err = run(centralized, centralized.CentralizedOptions, *given)
        assert (code, f"{option[0]} needs sparse rows" in err) == (2, True)


def test_dense_vectors_with_many_labels(run, tmp_path):
    """Three labels, each seen in two features; the vectors stay on disk."""
    held = np.random.default_rng(0).random((ROWS, CLASSES)) < 0.6
    held[~held.any(axis=1), 0] = True
    x = np.tile(np.where(held, 2, -2), 2).astype(np.float32)
    names = np.array(["sea", "ice", "sky"])
    frame = pd.DataFrame({"x": list(x), "y": [names[row] for row in held]})
    frame.to_parquet(tmp_path / "a.parquet")
    own = ("--dataset", f"features:{tmp_path}/a.parquet", *SMALL, "--run-dir", tmp_path / "r")
    more = ("--epochs", "8", "--learning-rate", "0.03", "--workers", "2", "--negatives", "2")
    arguments = (*own, *more, "--resident-gb", "0")
    code, out, err = run(distributed, distributed.DistributedOptions, *arguments)
    assert (code, err, "features stay on disk" in out) == (0, "", True)
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["class_names"] == ["ice", "sea", "sky"]
    (result,) = summary["results"]
    assert (result["streamed"], result["negatives"]) == (True, 2)
    assert (result["metric"], result["last_test_precision_at_1"]) == ("precision_at_1", 1.0)
    code, out, err = run(evaluate, evaluate.EvaluateOptions, "--run-dir", tmp_path / "r")
    assert (code, err, "ndcg at 3" in out) == (0, "", True)
    np.save(tmp_path / "new.npy", 2 * np.tile(2 * np.eye(CLASSES) - 1, 2))
    wanted = ("--run-dir", tmp_path / "r", "--images", tmp_path / "new.npy", "--top-k", "2")
    code, out, err = run(predict, predict.PredictOptions, *wanted)
    assert (code, err) == (0, "")
    assert [line.split("\t")[1] for line in out.splitlines()] == [*names]
    code, _, err = run(centralized, centralized.CentralizedOptions, *own, "--row-length", "1")
    assert (code, "--row-length needs sparse rows" in err) == (2, True)
    few = ("--ratios", "0", "--masks", "fixed", "--workers", "--seeds", "0", "1")
    own = (*own[:-1], tmp_path / "sweep")
    code, out, err = run(sweep, sweep.SweepOptions, *own, *few)
    assert (code, err) == (0, "")
    assert "best test precision at 1 in %" in " ".join(out.split())


def test_what_has_no_vectors_to_extract_is_refused_before_any_work(run, sparse, tmp_path):
    np.savez(tmp_path / "many.npz", x=np.eye(8), y=np.ones((8, 2), int))
    rows = scipy.sparse.csr_matrix(np.eye(8))
    scipy.sparse.save_npz(tmp_path / "x.npz", rows)
    np.save(tmp_path / "y.npy", np.arange(8) % 2)
    for dataset, what in (
        (f"xc:{sparse}", "examples with many labels"),
        (f"features:{tmp_path}/many.npz", "examples with many labels"),
        (f"features:{tmp_path}/x.npz", "sparse rows"),
    ):
        for out in ((), ("--out", tmp_path / "o.npz")):
            given = ("--dataset", dataset, "--features-dir", tmp_path / "features", *out)
            code, printed, err = run(extract, extract.ExtractOptions, *given)
            assert (code, printed, err.count("\n")) == (2, "", 1)
            assert f"dataset={dataset} holds {what}" in err
    assert not (tmp_path / "features").exists()
    assert not (tmp_path / "o.npz").exists()


def test_matrices_of_many_labels_are_what_their_text_is(sparse, tmp_path):
    for split in ("train", "test"):
        rows = load_xc(sparse, split)
        y = np.ones(len(rows.labels.entries), bool), rows.labels.entries
        x = rows.features.entries["values"], rows.features.entries["indices"]
        for name, of, arrays, width in (("x", rows.features, x, 10), ("y", rows.labels, y, 5)):
            matrix = scipy.sparse.csr_matrix((*arrays, of.offsets), shape=(len(rows), width))
            scipy.sparse.save_npz(tmp_path / f"{name}_{split}.npz", matrix)
    text, matrices = (
        open_inputs(ImageOptions(dataset=of)) for of in (f"xc:{sparse}", f"features:{tmp_path}")
    )
    assert matrices.pinned == text.pinned
    names, found = matrices.read(tmp_path / "x_test.npz")
    assert names[19] == f"{tmp_path}/x_test.npz:19"
    np.testing.assert_array_equal(found.entries["indices"], text.read(sparse)[1].entries["indices"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mask_ratio": 0.5}, "--mask-ratio 0.5 has no effect: features:x holds no images"),
        ({"encoder": "random-nano"}, "--encoder random-nano has no effect"),
        ({"simulate_clouds": 0.5}, "--simulate-clouds 0.5 has no effect"),
        ({"encode_dtype": "bfloat16"}, "--encode-dtype bfloat16 has no effect"),
    ],
)
def test_options_of_images_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        ImageOptions(dataset="features:x", **option)
    with pytest.raises(ValueError, match="--labels needs --dataset features:PATH, got digits"):
        ImageOptions(labels="kind")


def test_a_preset_is_the_papers_network():
    assert HeadOptions(preset="speech-3-layer").hidden == (8192, 8192)
    with pytest.raises(ValueError, match="--preset speech-2-layer has widths of its own"):
        HeadOptions(preset="speech-2-layer", hidden=(8,))
    for wrong in ({"preset": "speech"}, {"optimizer": "lion"}):
        with pytest.raises(ValueError, match=r"must be one of .*, got"):
            HeadOptions(**wrong)


def test_augmented_clips_differ_by_epoch_and_resume(run, clips, tmp_path):
    own = ("--dataset", f"speech:{clips}", "--augment", "--optimizer", "sgd", *SMALL)
    kept, results = ("--features-dir", tmp_path / "features"), []
    for name, epochs in (("whole", (3,)), ("longer", (2, 3))):
        for number in epochs:
            arguments = (*own, *kept, "--epochs", number, "--run-dir", tmp_path / name)
            code, _, err = run(centralized, centralized.CentralizedOptions, *arguments)
            assert (code, err) == (0, "")
        (result,) = json.loads((tmp_path / name / "summary.json").read_text())["results"]
        results.append({k: v for k, v in result.items() if k != "training_seconds"})
    assert results[0] == results[1]
    assert (results[0]["encoder"], results[0]["optimizer"]) == ("log-mel, augmented", "sgd")


def test_random_masks_are_refused(run, vectors, tmp_path):
    arguments = ("--dataset", f"features:{vectors}", *SMALL, "--run-dir", tmp_path / "r")
    code, _, err = run(centralized, centralized.CentralizedOptions, *arguments, "--mask", "random")
    assert code == 2
    assert "random masks need images" in err
    assert not (tmp_path / "r").exists()
