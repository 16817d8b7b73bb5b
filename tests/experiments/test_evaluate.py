"""What `experiments.evaluate` makes of its measurements."""

import pathlib

from experiments.evaluate import Evaluated, EvaluateOptions, curves


def test_a_curve_has_a_line_for_each_kind_of_condition():
    def line_of(training, share, **given):
        options = EvaluateOptions(run_dir=pathlib.Path("r"), **given)
        return [
            Evaluated(training, of, {"ratio": share, "test_accuracy": i}, None, [])
            for i, of in enumerate(options.conditions)
        ]

    ratios = line_of("a", 0.5, mask_ratio=(0.5,)) + line_of("a", 0.0, mask_ratio=(0.0,))
    assert curves(ratios) == {"a": {0.5: 0, 0.0: 0}}
    mixed = line_of("a", 0.5, mask_ratio=(0.5,), simulate_clouds=(0.3,), natural_masks=True)
    assert curves(mixed + line_of("b", 0.5, mask_ratio=(0.5,))) == {
        "a, fixed masks": {0.5: 0},
        "a, clouds": {0.5: 1},
        "a, natural masks": {0.5: 2},
        "b, fixed masks": {0.5: 0},
    }
