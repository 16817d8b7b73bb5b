"""Figures that are written."""

import itertools
import types

import matplotlib.legend
from matplotlib.figure import Figure

from experiments.figures import png


def test_a_slow_machine_is_no_reason_to_warn(tmp_path, monkeypatch):
    """Matplotlib says so where placing a legend takes more than a second."""
    clock = types.SimpleNamespace(perf_counter=itertools.count(0, 2).__next__)
    monkeypatch.setattr(matplotlib.legend, "time", clock)
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], label="a line")
    axes.legend()
    png.write(figure, tmp_path / "figures" / "a.png")
    assert (tmp_path / "figures" / "a.png").stat().st_size
    assert next(clock.perf_counter.__self__) > 2  # it was asked
