"""Images with missing regions, and data sets of masked images, through the scripts."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import centralized, evaluate, export, extract, mask_dataset, predict
from experiments.command.options import HeadOptions, ImageOptions, StrategyOptions
from experiments.runs.given_images import masks_of_run
from experiments.runs.images import build_encoder
from experiments.runs.plan import Plan, Training
from jist.data import EmptyImageError
from jist.masking import FixedMask

SMALL = {"hidden": (12, 9), "batch_size": 8, "epochs": 2}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes of coloured noise; of image i the first i rows of patches are transparent."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name, colour in (("red", (200, 60, 60)), ("blue", (60, 60, 200))):
        (root / name).mkdir()
        for i in range(20):
            pixels = np.clip(generator.normal(colour, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            alpha = np.full((32, 32, 1), 255, np.uint8)
            alpha[: 4 * (i % 8)] = 0
            Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(
                root / name / f"{i:02}.png"
            )
    return root


def results(run_dir):
    return json.loads((run_dir / "summary.json").read_text())["results"]


def test_natural_masks_from_images_to_predictions(images, tmp_path, capsys):
    options = {"dataset": f"folder:{images}", "natural_masks": True, "run_dir": tmp_path / "r"}
    centralized.main(centralized.CentralizedOptions(**options, **SMALL))
    (result,) = results(tmp_path / "r")
    assert result["mask"] == "natural"
    assert 0.3 < result["ratio"] < 0.6  # of 0/8 ... 7/8
    assert result["best_test_accuracy"] > 0.8
    assert result["empty_examples"] == 0
    capsys.readouterr()
    predict.main(
        predict.PredictOptions(
            run_dir=tmp_path / "r", images=(images / "red",), json_lines=True, batch_size=7
        )
    )
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(record["class"] == "red" for record in records) > 15
    Image.new("L", (32, 32), 1).save(tmp_path / "gone.mask.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "gone.png")
    with pytest.raises(EmptyImageError, match="gone.png is visible.*; leave it out of --images"):
        predict.main(predict.PredictOptions(run_dir=tmp_path / "r", images=(tmp_path,)))


def test_simulated_clouds_are_marked_in_every_result(images, tmp_path, capsys):
    options = {"dataset": "digits", "simulate_clouds": 0.3, "run_dir": tmp_path / "r"}
    centralized.main(centralized.CentralizedOptions(**options, **SMALL))
    assert "the clouds are simulated" in capsys.readouterr().out
    (result,) = results(tmp_path / "r")
    assert result["mask"] == "simulated clouds 0.3"
    assert 0.3 < result["ratio"] < 0.8
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["ratio"] for line in lines} == {result["ratio"]}


def test_training_runs_from_masked_images_alone(images, tmp_path, capsys):
    masks = {"dataset": f"folder:{images}", "simulate_clouds": 0.2, "skip_empty": True}
    mask_dataset.main(mask_dataset.MaskDatasetOptions(**masks, out=tmp_path / "m"))
    output = capsys.readouterr().out
    assert "simulated clouds 0.2" in output
    (train, test) = json.loads((tmp_path / "m" / "sizes.json").read_text())["sizes"]
    assert train["images"] + train["left_out"] == 32
    assert test["images"] + test["left_out"] == 8
    assert train["bytes_raw"] == pytest.approx(train["images"] * 64 * (1 - train["ratio"]) * 49)
    assert train["bytes_paper"] == pytest.approx(train["images"] * 1024 * (1 - train["ratio"]) * 4)
    run = centralized.CentralizedOptions
    centralized.main(run(**masks, **SMALL, run_dir=tmp_path / "full"))
    name = f"masked:{tmp_path / 'm'}"
    centralized.main(run(dataset=name, **SMALL, run_dir=tmp_path / "patches"))
    (full,), (patches,) = results(tmp_path / "full"), results(tmp_path / "patches")
    same = ("mask", "ratio", "last_test_accuracy", "train_examples", "test_examples")
    assert [full[key] for key in same] == [patches[key] for key in same]
    assert full["last_test_loss"] == pytest.approx(patches["last_test_loss"], rel=1e-4)
    capsys.readouterr()
    printed = []
    for run_dir in ("full", "patches"):
        predict.main(
            predict.PredictOptions(
                run_dir=tmp_path / run_dir, images=(images / "red",), json_lines=True
            )
        )
        lines = capsys.readouterr().out.splitlines()
        printed.append([json.loads(line)["probabilities"]["red"] for line in lines])
    np.testing.assert_allclose(*printed, atol=1e-3)
    evaluate.main(evaluate.EvaluateOptions(run_dir=tmp_path / "full", dataset=name))
    (found,) = json.loads((tmp_path / "full" / "evaluation.json").read_text()).values()
    assert found["test_accuracy"] == full["last_test_accuracy"]
    assert found["examples"] == full["test_examples"]


def test_predictions_take_the_masks_that_masked_the_training_images(images, tmp_path):
    options = {"dataset": f"folder:{images}", "mask_ratio": 0.5, "seed": 3}
    mask_dataset.main(mask_dataset.MaskDatasetOptions(**options, out=tmp_path / "m"))
    masked = ImageOptions(dataset=f"masked:{tmp_path / 'm'}")
    encoder = build_encoder(masked)
    assert masks_of_run(masked, 0.0, encoder) == FixedMask(64, 0.5, 3)


@pytest.mark.parametrize(
    ("masks", "visible", "max_missing"),
    [
        ({"mask_ratio": 0.75}, 16, 0.0),
        ({"simulate_clouds": 0.2, "max_missing": 0.5, "skip_empty": True}, 64, 0.5),
    ],
)
def test_a_run_on_masked_images_sees_whole_ones_under_their_masks(
    images, tmp_path, masks, visible, max_missing
):
    whole = f"folder:{images}"
    options = {"dataset": whole, **masks, "out": tmp_path / "m"}
    mask_dataset.main(mask_dataset.MaskDatasetOptions(**options))
    options = {"dataset": f"masked:{tmp_path / 'm'}", "run_dir": tmp_path / "r"}
    centralized.main(centralized.CentralizedOptions(**options, **SMALL))
    run_dir = {"run_dir": tmp_path / "r"}
    evaluate.main(evaluate.EvaluateOptions(**run_dir))
    (own,) = json.loads((tmp_path / "r" / "evaluation.json").read_text()).values()
    evaluate.main(evaluate.EvaluateOptions(**run_dir, dataset=whole))
    (other,) = json.loads((tmp_path / "r" / "evaluation.json").read_text()).values()
    assert other["examples"] > own["examples"]
    assert other["ratio"] == pytest.approx(own["ratio"], abs=0.15)
    assert own["ratio"] > 0.3
    export.main(export.ExportOptions(**run_dir, out=tmp_path / "exported"))
    said = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert (said["visible"], said["max_missing"]) == (visible, max_missing)


def test_the_first_image_may_be_unreadable(images, tmp_path, capsys):
    root = shutil.copytree(images, tmp_path / "images")
    for folder in root.iterdir():
        for path in list(folder.iterdir())[:15]:  # in either split some
            path.write_bytes(path.read_bytes()[:60])
    options = {"dataset": f"folder:{root}", "skip_unreadable": True}
    mask_dataset.main(mask_dataset.MaskDatasetOptions(**options, out=tmp_path / "m"))
    (train, test) = json.loads((tmp_path / "m" / "sizes.json").read_text())["sizes"]
    assert train["left_out"] + test["left_out"] == 30
    assert train["original_size"] == 32
    assert "32 × 32 pixels that the first image had" in capsys.readouterr().out


def test_what_is_left_out_is_counted(tmp_path, capsys):
    options = {"simulate_clouds": 0.95, "skip_empty": True, "features_dir": tmp_path}
    extract.main(extract.ExtractOptions(**options))
    output = capsys.readouterr().out
    assert "train: masks: simulated clouds 0.95" in output
    assert " 0 images with nothing visible" not in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_missing": 0.1}, "--max-missing needs --natural-masks or --simulate-clouds"),
        ({"skip_empty": True}, "--skip-empty needs --natural-masks"),
        ({"dataset": "images:x"}, "images:x has neither labels nor test images, .*pretrain only"),
        ({"dataset": "masked:x", "no_data": 3}, "masked:x is masked already, --no-data cannot"),
    ],
)
def test_options_that_do_not_go_together_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        ImageOptions(**options)


def test_natural_masks_leave_no_ratio_to_choose():
    how = StrategyOptions()
    for training in (
        Training(mask_ratio=0.5, how=how),
        Training(mask_ratio=0, mask="random", how=how),
    ):
        with pytest.raises(ValueError, match="leave no ratio to choose and no mask to draw"):
            Plan(
                experiment="x",
                images=ImageOptions(natural_masks=True),
                head=HeadOptions(batch_size=64),
                trainings=(training,),
            )


def test_a_plan_says_nothing_of_natural_masks_where_there_are_none():
    plan = {"experiment": "x", "head": HeadOptions(batch_size=64), "trainings": ()}
    usual = Plan(images=ImageOptions(), **plan).config()["images"]
    assert not {"natural_masks", "no_data", "simulate_clouds", "max_missing"} & usual.keys()
    clouds = Plan(images=ImageOptions(simulate_clouds=0.5), **plan)
    assert clouds.config()["images"]["simulate_clouds"] == 0.5
    assert Plan.from_config(json.loads(json.dumps(clouds.config()))) == clouds
