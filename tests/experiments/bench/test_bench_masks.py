"""Random and fixed masks are timed only where they give the same features for the same masks."""

import pytest
from flax import nnx

from experiments.bench import masks, timing
from jist.models import MAEEncoder, ViTConfig

TINY = ViTConfig(8, 2, dim=8, depth=1, heads=2, mlp_dim=16)


@pytest.fixture
def encoder():
    return MAEEncoder(TINY, rngs=nnx.Rngs(0))


def test_all_encode_every_image(encoder):
    case = masks.case("tiny", encoder, masks.digits(12), masks.digits(3), ratio=0.5)
    assert case.facts["largest_difference"] < 1e-5
    assert case.variants[timing.JIST].first_run_s > 0  # the one that was compared, which compiles
    row = timing.measure(case, repeats=2)
    assert [variant["items"] for variant in row["variants"].values()] == [12, 12, 3]
    assert [len(variant["samples_s"]) for variant in row["variants"].values()] == [2, 2, 2]


def test_other_features_are_not_timed(encoder, monkeypatch):
    right = masks.features.extract

    def wrong(*arguments, **options):
        found = right(*arguments, **options)
        found.cls[0, 0] += 1
        return found

    monkeypatch.setattr(masks.features, "extract", wrong)
    with pytest.raises(RuntimeError, match="the same masks give features that are 1 apart"):
        masks.case("tiny", encoder, masks.digits(12), masks.digits(3), ratio=0.5)
