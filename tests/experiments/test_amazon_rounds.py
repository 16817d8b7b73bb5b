"""Rounds at the size of Amazon-670k, here far smaller: that they are carried out, and counted."""

import json

import numpy as np
import pytest

from experiments import amazon_rounds
from experiments.amazon_rounds import AmazonRoundsOptions


def test_rounds_are_carried_out_and_counted(tmp_path, capsys):
    out = tmp_path / "rounds.json"
    options = {"scale": 1e-3, "width": 16, "workers": 2, "examples": 400, "rounds": 2}
    small = {"local_steps": 2, "batch_size": 64, "test_examples": 50, "chunk": 100, "lr": 0.1}
    amazon_rounds.main(AmazonRoundsOptions(out=out, **options, **small))
    assert f"written: {out}" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["widths"] == [136, 16, 670]
    assert found["devices"] == 2
    assert found["examples_seen"] == 2 * 2 * 2 * 64
    assert all(0 < loss < 670 * np.log(2) for loss in found["train_loss"])  # of all chances even
    assert found["parameters"] == 136 * 16 + 16 * 670 + 670
    assert found["parameters_per_worker"] == 136 * 8 + 8 * 670 + 670
    own = {"negatives": 40, "output_dtype": "bfloat16"}
    amazon_rounds.main(AmazonRoundsOptions(out=out, **options, **small | own))
    drawn = json.loads(out.read_text())
    assert drawn | own == drawn
    assert np.isfinite(drawn["train_loss"]).all()
    with pytest.raises(ValueError, match="output_dtype must be one of"):
        amazon_rounds.main(AmazonRoundsOptions(out=out, output_dtype="int8"))
    with pytest.raises(ValueError, match="rounds must be at least 2, got 1"):
        amazon_rounds.main(AmazonRoundsOptions(out=out, rounds=1))
    with pytest.raises(ValueError, match=r"scale must lie in \(0, 1\], got 0"):
        amazon_rounds.main(AmazonRoundsOptions(out=out, scale=0.0))
