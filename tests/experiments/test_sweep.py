"""A sweep grows training by training and repeats none."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import sweep
from experiments.sweep import SweepOptions


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name in ("dark", "light"):
        (root / name).mkdir()
        for i in range(12):
            low = 0 if name == "dark" else 128
            pixels = generator.integers(low, low + 128, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return f"folder:{root}"


def options(images, run_dir, **others):
    small = {"hidden": (8,), "batch_size": 8, "epochs": 1, "local_steps": 2}
    return SweepOptions(dataset=images, run_dir=run_dir, **small | others)


def test_a_sweep_grows_and_does_no_cell_twice(images, tmp_path, capsys):
    first = {"ratios": (0.5,), "masks": ("fixed",), "workers": (2,), "seeds": (0,)}
    sweep.main(options(images, tmp_path, **first))
    lines = (tmp_path / "seed-0" / "metrics.jsonl").read_text()
    assert len(lines.splitlines()) == 2
    features = {path.name for path in (tmp_path / "features").iterdir()}
    assert len(features) == 2

    more = {"ratios": (0.75,), "masks": ("fixed", "random"), "workers": (), "seeds": (1, 0)}
    sweep.main(options(images, tmp_path, **more))
    assert (tmp_path / "seed-0" / "metrics.jsonl").read_text().startswith(lines)
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    found = {(r["seed"], r["ratio"], r["strategy"], r["workers"], r["mask"]) for r in results}
    assert found == {
        (0, 0.5, "centralized", 1, "fixed"),
        (0, 0.5, "ist", 2, "fixed"),
        *((s, 0.75, "centralized", 1, m) for s in (0, 1) for m in ("fixed", "random")),
    }
    assert len(results) == len(found)

    written = (tmp_path / "seed-0" / "metrics.jsonl").read_text()
    capsys.readouterr()
    sweep.main(options(images, tmp_path, **first))
    assert "nothing to do" in capsys.readouterr().out
    assert (tmp_path / "seed-0" / "metrics.jsonl").read_text() == written

    with pytest.raises(ValueError, match=r"head\.norm is 'standardize' there and 'scale' here"):
        sweep.main(options(images, tmp_path, **first, norm="scale"))
    with pytest.raises(ValueError, match="has a training 'centralized-1-ratio-0.5' with other"):
        sweep.main(options(images, tmp_path, **first | {"local_steps": 3}))
    assert (tmp_path / "seed-0" / "metrics.jsonl").read_text() == written

    # A kill may cut a line short.
    with (tmp_path / "seed-0" / "metrics.jsonl").open("a") as file:
        file.write(written[:20])
    sweep.main(options(images, tmp_path, **first))
    assert "nothing to do" in capsys.readouterr().out


def test_a_sweep_with_more_epochs_goes_on_with_all_of_it(images, tmp_path):
    cells = {"ratios": (0.5,), "masks": ("fixed",), "workers": (), "seeds": (0,)}
    sweep.main(options(images, tmp_path, **cells))
    short = (tmp_path / "seed-0" / "metrics.jsonl").read_text()
    more = cells | {"workers": (2,)}  # and something new at the same time
    sweep.main(options(images, tmp_path, **more, epochs=2))
    lines = (tmp_path / "seed-0" / "metrics.jsonl").read_text()
    assert lines.startswith(short)
    assert len(lines.splitlines()) == 2 * 2
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    found = [(r["strategy"], r["epochs"], len(r["test_accuracy_per_epoch"])) for r in results]
    assert found == [("centralized", 2, 2), ("ist", 2, 2)]
    with pytest.raises(ValueError, match=r"head\.epochs is 2 there and 1 here"):
        sweep.main(options(images, tmp_path, **cells))


def test_a_mistyped_cell_is_forgotten(images, tmp_path):
    cells = {"ratios": (0.5,), "masks": ("fixed",), "seeds": (0,)}
    with pytest.raises(ValueError, match="--batch-size 8 of 8 .* needs 64 .* there are 20"):
        sweep.main(options(images, tmp_path, **cells, workers=(2, 8)))
    sweep.main(options(images, tmp_path, **cells, workers=(2, 1)))
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert {(r["strategy"], r["workers"]) for r in results} == {
        ("centralized", 1),
        ("ist", 1),
        ("ist", 2),
    }


def test_a_seed_of_other_heads_is_not_averaged_with_the_others(images, tmp_path, capsys):
    few = {"ratios": (0.5,), "masks": ("fixed",), "workers": ()}
    sweep.main(options(images, tmp_path, seeds=(0, 1), **few))
    capsys.readouterr()
    sweep.main(options(images, tmp_path, seeds=(2,), hidden=(4,), **few))
    out = " ".join(capsys.readouterr().out.split())
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert [r["hidden"] for r in results] == [[8], [8], [4]]
    assert [r["local_steps"] for r in results] == [2, 2, 2]
    tables = out.split("best test accuracy")[1:]
    assert len(tables) == 2
    assert "hidden 4" in out
    assert "hidden 8" in out
    assert ["±" in table for table in tables] == [False, True]


def test_random_masks_are_for_centralised_training_as_in_the_paper(images, tmp_path):
    (plan,) = sweep.plans(options(images, tmp_path, ratios=(0.0, 0.5), seeds=(3,))).values()
    assert plan.images.seed == 3
    methods = [(t.mask_ratio, t.how.strategy, t.how.workers, t.mask) for t in plan.trainings]
    each = [
        ("centralized", 1, "fixed"),
        ("centralized", 1, "random"),
        *(("ist", workers, "fixed") for workers in (1, 2, 4)),
    ]
    assert methods == [(ratio, *method) for ratio in (0.0, 0.5) for method in each]


def test_other_strategies_stand_beside_the_first(images, tmp_path):
    few = {"ratios": (0.5,), "masks": (), "workers": (2, 4), "seeds": (0,)}
    given = options(images, tmp_path, strategies=("ist", "local_sgd"), **few)
    (plan,) = sweep.plans(given).values()
    methods = [(t.how.strategy, t.how.workers, t.how.local_steps) for t in plan.trainings]
    assert methods == [(name, n, 2) for name in ("ist", "local_sgd") for n in (2, 4)]
    with pytest.raises(ValueError, match="strategies must be some of .*, got 'centralized'"):
        sweep.plans(options(images, tmp_path, strategies=("centralized",)))
