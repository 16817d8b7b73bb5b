"""Figures on disk, as PNG."""

import pathlib

from matplotlib.figure import Figure

from jist.staging import replaced


def write(figure: Figure, path: pathlib.Path, *, dpi: int = 150) -> None:
    """Writes a figure whole or not at all; its directory is made if missing.

    Args:
        figure: the figure.
        path: the file to write.
        dpi: dots per inch.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as staging:
        figure.savefig(staging, format="png", dpi=dpi)
