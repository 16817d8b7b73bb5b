import pytest

from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.runs.conditions import Condition


def test_a_masked_data_set_brings_masks_and_bands_in_the_place_of_the_runs():
    for of_run in (
        {"natural_masks": True, "max_missing": 0.2, "skip_empty": True},
        {"bands": "B4,B3", "scale": "0,8000", "quality_band": "SCL", "resize": "pad"},
        {"simulate_clouds": 0.3},
    ):
        images = ImageOptions(dataset="folder:a", image_size=64, seed=3, **of_run)
        found = Condition(dataset="masked:m").applied(images)
        assert found == ImageOptions(dataset="masked:m", image_size=64, seed=3)
        assert Condition(dataset="folder:b").applied(images).natural == images.natural


def test_masks_that_are_asked_for_are_still_refused_for_a_masked_data_set():
    images = ImageOptions(dataset="folder:a", natural_masks=True)
    for given, said in (
        ({"natural_masks": True}, "--natural-masks cannot be used with it"),
        ({"simulate_clouds": 0.3}, "--simulate-clouds cannot be used with it"),
        ({"mask_ratio": 0.5}, "--mask-ratio 0.5 has no effect"),
    ):
        with pytest.raises(UsageError, match=said):
            Condition(dataset="masked:m", **given).applied(images)
