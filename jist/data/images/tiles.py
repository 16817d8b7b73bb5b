"""Square tiles of a scene that is too large for memory: where they lie, and reading them."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from jist.data.images.bands import Bands

STRIP_BYTES = 64 * 2**20  # of decoded pixels; a strip has at least one row of tiles
_COLUMNS = 1024  # of a window: what is read of a file at a time


@dataclasses.dataclass(frozen=True)
class Grid:
    """Tiles row by row, from the upper left; the last ones may reach beyond the scene.

    Attributes:
        height: pixels of the scene from top to bottom.
        width: pixels from left to right.
        tile: pixels of a tile's side.
        stride: pixels from one tile to the next.

    Raises:
        ValueError: a number that is not positive, or a stride above the tile: gaps.
    """

    height: int
    width: int
    tile: int
    stride: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(
                    f"{field.name} must be at least 1 pixel, got {getattr(self, field.name)}"
                )
        if self.stride > self.tile:
            raise ValueError(
                f"stride must be at most the tile, so that no pixel is passed over, got "
                f"{self.stride} with tiles of {self.tile}"
            )

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return 1 + math.ceil(max(0, self.height - self.tile) / self.stride)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return 1 + math.ceil(max(0, self.width - self.tile) / self.stride)


@dataclasses.dataclass(frozen=True)
class Strip:
    """Some rows of tiles.

    Attributes:
        row: the first of them.
        pixels: [rows · stride + tile - stride, columns · stride + tile - stride, C].
        missing: which pixels are missing, those beyond the scene among them.
        grid: of the scene.
    """

    row: int
    pixels: UInt8[np.ndarray, "height width channels"]
    missing: Bool[np.ndarray, "height width"]
    grid: Grid

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return (len(self.pixels) - self.grid.tile) // self.grid.stride + 1

    def missing_pixels(self) -> int:
        """Missing pixels of the scene in this strip, without rows that the next one holds, too."""
        last = self.row + self.rows == self.grid.rows
        own = len(self.pixels) if last else self.rows * self.grid.stride
        own = min(own, self.grid.height - self.row * self.grid.stride)
        return int(self.missing[:own, : self.grid.width].sum())

    def tiles(
        self,
    ) -> Iterator[
        tuple[int, int, UInt8[np.ndarray, "tile tile channels"], Bool[np.ndarray, "tile tile"]]
    ]:
        """Row, column, pixels and missing pixels of every tile of which something is there."""
        tile, stride = self.grid.tile, self.grid.stride
        for row in range(self.rows):
            for column in range(self.grid.columns):
                top, left = row * stride, column * stride
                place = np.s_[top : top + tile, left : left + tile]
                if not self.missing[place].all():
                    yield self.row + row, column, self.pixels[place], self.missing[place]


def strips(file: Any, bands: Bands, grid: Grid, no_data: int | None = None) -> Iterator[Strip]:
    """A scene from top to bottom, window by window; few pixels are read twice.

    Args:
        file: of rasterio, open.
        bands: what is read.
        grid: its tiles.
        no_data: as `Bands.read`.

    Raises:
        LookupError: the file has no such band.
    """
    width = (grid.columns - 1) * grid.stride + grid.tile
    fit = STRIP_BYTES // (width * (len(bands.names) + 1))
    at_once = max(1, (fit - grid.tile) // grid.stride + 1)
    for first in range(0, grid.rows, at_once):
        rows = min(at_once, grid.rows - first)
        # No variable: a strip is large, and must be gone when the next is read.
        yield _read(file, bands, grid, first, (rows - 1) * grid.stride + grid.tile, no_data)


def _read(
    file: Any, bands: Bands, grid: Grid, first: int, height: int, no_data: int | None
) -> Strip:
    from rasterio.windows import Window

    width = (grid.columns - 1) * grid.stride + grid.tile
    pixels = np.zeros((height, width, len(bands.names)), np.uint8)
    missing = np.ones((height, width), bool)
    top = first * grid.stride
    there = min(height, grid.height - top)
    for left in range(0, grid.width, _COLUMNS):
        wide = min(_COLUMNS, grid.width - left)
        window = Window(left, top, wide, there)  # pyright: ignore[reportCallIssue]
        place = np.s_[:there, left : left + wide]
        pixels[place], missing[place] = bands.read_window(file, window, no_data)
    return Strip(first, pixels, missing, grid)
