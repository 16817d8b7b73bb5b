"""The pictures of the README show what subnetworks are."""

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image

from experiments import overview
from experiments.figures.drawing import FAINT, WORKERS, canvas, network


def colours(owners, **options):
    _, axes = canvas(4, 4)
    network(axes, 1, 1, 2, 2, owners, **options)
    drawn = [to_hex(line.get_color()).upper() for line in axes.lines]
    return [drawn.count(colour) for colour in (*WORKERS, FAINT)]


def test_a_connection_between_hidden_neurons_is_its_workers_or_nobodys():
    owners = np.array([[0, 1, 2, 0, 2, 1], [1, 0, 0, 2, 1, 2]])
    inputs, outputs = 4, 3
    expected = [
        inputs * (owners[0] == worker).sum()
        + (owners[0] == worker).sum() * (owners[1] == worker).sum()
        + (owners[1] == worker).sum() * outputs
        for worker in range(3)
    ]
    nobodys = (owners[0][:, None] != owners[1]).sum()
    assert colours(owners.tolist(), ends=(inputs, outputs)) == [*expected, nobodys]


def test_a_subnetwork_has_the_connections_of_its_worker_alone():
    owners = ((0, 1, 1), (1, 0, 1))
    assert colours(owners, only=1, ends=(2, 3)) == [0, 2 * 2 + 2 * 2 + 2 * 3, 0, 0]


def test_both_pictures_are_written(tmp_path):
    overview.main(overview.OverviewOptions(out=tmp_path))
    for name in ("overview", "ist-round"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 1500
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50
