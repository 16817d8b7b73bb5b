"""Figures on disk, as PNG."""

import io
import pathlib
import warnings

from matplotlib.figure import Figure

from jist.staging import replaced


def write(figure: Figure, path: pathlib.Path, *, dpi: int = 150) -> None:
    """Writes a figure whole or not at all, unless it is there; its directory is made if missing.

    Args:
        figure: the figure.
        path: the file to write.
        dpi: dots per inch.
    """
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        # Said where finding a place takes more than a second, as on a busy machine.
        warnings.filterwarnings("ignore", 'Creating legend with loc="best" can be slow')
        figure.savefig(drawn, format="png", dpi=dpi)
    if path.is_file() and path.read_bytes() == drawn.getvalue():
        return  # of a finished run, which may be on a read-only mount
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as staging:
        staging.write_bytes(drawn.getvalue())
