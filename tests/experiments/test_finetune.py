"""Fine-tuning as a user runs it: an encoder goes in, is trained by parts, and comes out."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled
from flax import nnx
from PIL.Image import Resampling
from scipy.special import log_softmax, softmax

import experiments.export
import experiments.finetune
import experiments.finetune_costs
from experiments import evaluate, predict
from experiments.evaluate import EvaluateOptions
from experiments.finetune_costs import CostOptions
from experiments.predict import PredictOptions
from experiments.runs.end_to_end import open_splits, worker_steps
from experiments.runs.end_to_end_training import configuration
from experiments.runs.finetuning import FinetuneOptions
from experiments.runs.remarks import say_batch
from experiments.runs.trained import open_run
from jist.evaluation import predict as predict_with
from jist.finetuning import MaskedImages
from jist.metrics import MetricsLog
from jist.models import MAEEncoder, ViTConfig, load_encoder, save_encoder
from jist.models.storage import tensors
from jist.probabilities import fit_temperature

BICUBIC = Resampling.BICUBIC
CONFIG = ViTConfig(8, 4, dim=16, depth=1, heads=2, mlp_dim=32)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finetune")
    save_encoder(filled(lambda: MAEEncoder(CONFIG, rngs=nnx.Rngs(0))), directory / "before")
    return FinetuneOptions(
        encoder=str(directory / "before"),
        mask_ratio=0.5,
        strategy="ist",
        workers=2,
        local_steps=1,  # all rounds are one program
        neurons=("mlp", "channels"),
        correction="reconstruct",
        mixup=0.8,
        epochs=2,
        dtype="float32",
        run_dir=directory / "whole",
    )


@pytest.fixture(scope="module")
def result(options):
    experiments.finetune.main(options)
    return json.loads((options.run_dir / "summary.json").read_text())["results"][0]


def test_a_worker_trains_half_of_the_neurons(options, result):
    dim, hidden = CONFIG.dim, CONFIG.mlp_dim
    on_all = 48 * dim + dim + dim + 3 * 2 * dim + 2 * dim + 10 * dim + 10  # out's and MLP's biases
    halved = 4 * dim * dim + 3 * dim + 2 * dim * hidden + hidden
    assert result["parameters_per_worker"] == on_all + halved // 2
    assert result["bytes_received_per_worker"] > 0
    assert 0 < result["last_test_accuracy"] < 1
    assert len(result["test_accuracy_per_epoch"]) == 2


def test_the_encoder_has_moved_and_can_be_loaded(options, result):
    before, after = tensors(load_encoder(options.encoder)), options.run_dir / "encoder"
    after = tensors(load_encoder(after))
    assert after.keys() == before.keys()
    for name, array in after.items():
        assert np.array_equal(array, before[name]) == (name == "positions"), name


def test_a_killed_run_resumes_with_the_same_bits(options, result, tmp_path, monkeypatch):
    killed = dataclasses.replace(options, run_dir=tmp_path / "killed")
    append = MetricsLog.append

    def dies(log, metrics):
        if metrics["epoch"] == 2:
            raise KeyboardInterrupt
        append(log, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            experiments.finetune.main(killed)
    experiments.finetune.main(killed)
    file = "encoder/encoder.safetensors"
    assert (killed.run_dir / file).read_bytes() == (options.run_dir / file).read_bytes()


def test_images_that_are_decoded_whenever_used_give_the_same_bits(
    options, result, tmp_path, capsys
):
    streamed = dataclasses.replace(options, resident_gb=0.0, run_dir=tmp_path / "streamed")
    experiments.finetune.main(streamed)
    assert (
        "GB of images are decoded whenever used: more than --resident-gb" in capsys.readouterr()[0]
    )
    found = json.loads((streamed.run_dir / "summary.json").read_text())["results"][0]
    unlike = {"run_dir", "training_seconds"}
    assert {k: v for k, v in found.items() if k not in unlike} == {
        k: v for k, v in result.items() if k not in unlike
    }
    file = "encoder/encoder.safetensors"
    assert (streamed.run_dir / file).read_bytes() == (options.run_dir / file).read_bytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask": "none"}, "mask must be one of .*'fixed', 'random'"),
        ({"correction": "standardize"}, "correction must be one of .*'reconstruct', 'none'"),
        ({"strategy": "local_sgd"}, "--neurons mlp channels has no effect with"),
        ({"least_crop": 0.0}, r"least_crop must lie in \(0, 1\], got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"dataset": "masked:x"}, "comes with its masks"),
        ({"mask": "fixed"}, "--mixup 0.8 cannot be used with fixed or natural masks"),
    ],
)
def test_wrong_options_are_refused(options, wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(options, **wrong)


def test_batches_of_few_images_are_smaller_and_one_that_was_asked_for_is_refused(options, capsys):
    assert (options.batch_of(1000), options.batch_of(30)) == (64, 15)
    assert configuration(options, 30)["batch_size"] == 15
    assert worker_steps(options, 30) == 2  # in both epochs
    asked = dataclasses.replace(options, batch_size=16)
    with pytest.raises(ValueError, match="--batch-size 16 of 2 worker.* needs 32 .* there are 30"):
        worker_steps(asked, 30)
    say_batch(15, None, 2, 30)
    say_batch(15, 15, 2, 30)
    say_batch(64, None, 2, 300)
    said = "batches of 15 in place of 64: there are 30 training examples for 2 worker(s)\n"
    assert capsys.readouterr().out == said


def test_a_run_is_opened_with_one_look_at_its_configuration(options, result, monkeypatch):
    read, looked = pathlib.Path.read_text, []

    def noted(path, *given, **how):
        looked.append(path)
        return read(path, *given, **how)

    monkeypatch.setattr(pathlib.Path, "read_text", noted)
    assert open_run(options.run_dir).names == ["finetune"]
    assert looked.count(options.run_dir / "config.json") == 1


def test_an_option_that_the_strategy_does_not_take_is_refused(options):
    local = {"strategy": "local_sgd", "correction": "scale", "neurons": ("mlp", "heads")}
    wrong = dataclasses.replace(options, **local, exchange="sharded")
    with pytest.raises(ValueError, match="exchange=sharded cannot be used with --strategy local_s"):
        experiments.finetune.main(wrong)


def test_more_epochs_are_another_schedule(options, result):
    with pytest.raises(ValueError, match="epochs is 2 there and 3 here .the learning rate falls"):
        experiments.finetune.main(dataclasses.replace(options, epochs=3))


def test_what_a_worker_needs_is_what_its_program_holds(options, tmp_path):
    costs = CostOptions(
        encoder=options.encoder,
        mask_ratio=0.5,
        neurons=options.neurons,
        workers=(2,),
        batch_size=4,
        repeats=1,
        out=tmp_path / "costs.json",
    )
    experiments.finetune_costs.main(costs)
    whole, part = json.loads(costs.out.read_text())["rows"]
    dim, hidden = CONFIG.dim, CONFIG.mlp_dim
    cut = 4 * dim * dim + 3 * dim + 2 * dim * hidden + hidden
    assert whole["parameters"] - part["parameters"] == cut // 2
    # Parameters and both moments of Adam, at least, and less of each in a worker.
    for row in (whole, part):
        assert row["memory"] > 3 * 4 * row["parameters"] + row["activations_and_gradients"]
    assert part["memory_ratio"] < 1
    assert part["flops_ratio"] < 1
    assert part["time_ratio"] > 0
    with pytest.raises(ValueError, match="workers 2, got 1, 4 and .1,."):
        experiments.finetune_costs.main(dataclasses.replace(costs, workers=(1,)))


@pytest.fixture(scope="module")
def restored(options, result):
    """The network of the last epoch, the test images and their labels."""
    trained = open_run(options.run_dir)
    model = trained.restore("finetune", "last").model
    tests = trained.inputs.examples("test")
    pixels = np.stack(
        [np.asarray(tests.open(i).resize((8, 8), BICUBIC)) for i in range(len(tests))]
    )
    pixels = jnp.asarray(pixels)
    return nnx.jit(lambda keep: model({"image": pixels, "keep": keep})), tests


def test_it_is_evaluated_under_other_conditions(options, result, restored, tmp_path):
    """Of whole images the accuracy is computed here; under clouds there is less to be seen."""
    out = tmp_path / "all.json"
    given = {"run_dir": options.run_dir, "out": out, "mistakes": tmp_path / "mistakes.png"}
    evaluate.main(EvaluateOptions(**given, mask_ratio=(0.5, 0.0), simulate_clouds=(0.3,)))
    same, whole, clouds = json.loads(out.read_text())
    assert same["test_accuracy"] == result["last_test_accuracy"]
    model, tests = restored
    labels = tests.labels
    keep = np.arange(4, dtype=np.int32)[None].repeat(len(labels), 0)
    logits = np.asarray(model(keep))
    found = logits.argmax(axis=1)
    assert whole["test_accuracy"] == pytest.approx((found == labels).mean())
    assert (
        np.diag(whole["confusion"]).tolist()
        == np.bincount(labels[found == labels], minlength=10).tolist()
    )
    assert 0.3 < clouds["ratio"] < 1
    assert clouds["examples"] <= whole["examples"] == len(labels)
    assert whole["calibration"]["uncalibrated"]["nll"] == pytest.approx(
        -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean(), rel=1e-5
    )
    for name in ("mistakes.png",):
        assert (tmp_path / name).stat().st_size > 1000
    evaluate.main(EvaluateOptions(run_dir=options.run_dir, checkpoint="best"))
    best = json.loads((options.run_dir / "evaluation.json").read_text())["finetune"]
    assert best["test_accuracy"] == result["best_test_accuracy"]


def test_the_encoder_that_it_began_with_may_be_gone(options, result, tmp_path, capsys):
    first = pathlib.Path(options.encoder)
    gone = first.rename(first.with_name("gone"))
    try:
        evaluate.main(EvaluateOptions(run_dir=options.run_dir, out=tmp_path / "evaluation.json"))
        open_run(options.run_dir).inputs.examples("test").open(0).save(tmp_path / "0.png")
        predict.main(PredictOptions(run_dir=options.run_dir, images=(tmp_path / "0.png",)))
    finally:
        gone.rename(first)
    (found,) = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["test_accuracy"] == result["last_test_accuracy"]
    assert "0.png" in capsys.readouterr().out


def test_runs_from_before_there_were_mixtures_are_the_same_without(options):
    assert configuration(options, 30)["mixup"] == 0.8
    assert "mixup" not in configuration(dataclasses.replace(options, mixup=0.0), 30)


def test_a_temperature_is_fitted_on_images_that_are_not_trained_on(options, result):
    held = open_splits(options)["calibration"]
    assert result["train_examples"] + len(held) == 1438
    assert result["calibration_examples"] == len(held) == pytest.approx(71, abs=5)
    seen = MaskedImages(held, load_encoder(options.encoder), ratio=0.5, seed=0).fixed
    model, _, temperature, _ = open_run(options.run_dir).restore("finetune", "last")
    expected = fit_temperature(np.asarray(predict_with(model, seen["x"])), held.labels)
    assert temperature == result["temperature"] == pytest.approx(expected, rel=1e-3)
    evaluate.main(EvaluateOptions(run_dir=options.run_dir))
    found = json.loads((options.run_dir / "evaluation.json").read_text())["finetune"]
    for name in ("ece", "nll", "brier"):
        assert found[f"test_{name}"] == pytest.approx(result[f"last_test_{name}"])


def test_files_are_predicted(options, restored, tmp_path, capsys):
    model, tests = restored
    for i in range(3):
        (tmp_path / tests.class_names[tests.labels[i]]).mkdir(exist_ok=True)
        tests.open(i).save(tmp_path / tests.class_names[tests.labels[i]] / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = sorted(tmp_path.rglob("?.png"))
    keep = np.arange(4, dtype=np.int32)[None].repeat(len(tests), 0)
    temperature = open_run(options.run_dir).restore("finetune", "last").temperature
    wanted = softmax(np.asarray(model(keep)) / temperature, axis=1)[
        [int(path.stem) for path in paths]
    ]
    given = {"run_dir": options.run_dir, "images": (tmp_path,), "skip_unreadable": True}
    predict.main(PredictOptions(**given, mask_ratio=0.0, top_k=2, json_lines=True))
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["image"] for line in lines] == [str(path) for path in paths]
    for line, row in zip(lines, wanted, strict=True):
        assert [*line["probabilities"].values()] == pytest.approx(sorted(row)[:-3:-1], abs=2e-4)
    assert "skipped" in err
    assert "of 3 in folders of their classes" in err
    predict.main(PredictOptions(**given, draws=3))
    assert capsys.readouterr().out.count("± ") == 3


def test_it_is_exported_as_one_program(options, restored, tmp_path, capsys):
    """Compared with jist by the script itself, on 100 images."""
    given = {"run_dir": options.run_dir, "out": tmp_path / "out"}
    experiments.export.main(experiments.export.ExportOptions(**given))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["largest_relative_difference"] < 1e-4
    assert (config["checked_on"], config["visible"]) == (100, 2)
    # With more patches than in training, it is still the same network.
    call = jax.export.deserialize((tmp_path / "out" / "model.stablehlo").read_bytes()).call
    model, tests = restored
    pixels = np.stack([np.asarray(tests.open(i).resize((8, 8), BICUBIC)) for i in range(3)])
    keep = np.arange(4, dtype=np.int32)[None].repeat(len(tests), 0)
    expected = softmax(np.asarray(model(keep)) / config["temperature"], axis=1)[:3]
    np.testing.assert_allclose(call(pixels, keep[:3]), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="training must be one of .'finetune'., got 'a'"):
        experiments.export.main(
            experiments.export.ExportOptions(
                run_dir=options.run_dir, out=tmp_path / "x", training="a"
            )
        )
