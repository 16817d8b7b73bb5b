r"""A map of a scene by a trained run: a class and a probability for every tile.

    python -m experiments.scene --run-dir runs/land --scene data/example/scenes/scene-3.tif \
        --tile 32 --stride 16 --out maps/scene.tif

Reads the scene window by window, with the bands and the scale of the run, so a scene may be larger
than memory. Patches that are missing (no data, clouds by the run's quality band, a mask) are left
out of every tile, and a tile with nothing visible is no data. A run under fixed masks is used
without: all patches that are there count. Runs of `finetune` and `convnet` are taken as well; a
network of convolutions sees tiles whole, with the mean colour where pixels are missing. Writes,
with the scene's georeference and pixels of one stride, each of them the middle of a tile:

- `scene.tif`: the class as a number from 0, with a colour table and the names as tags;
- `scene-probability.tif`: the probability of that class, with the run's temperature;
- `scene.png`: both as a picture, with a legend.

Needs `pip install -e '.[geo]'`. Expected: 400 tiles of 13 bands a second on 2
CPU cores, and less than 1 GB of memory for 20,000 × 20,000 pixels.
"""

import dataclasses
import pathlib
import time
from collections import Counter
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.command.bands import parse_quality
from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.figures.choice import chosen_training
from experiments.figures.land import colours_of, draw_map
from experiments.runs.bands import bands_seen
from experiments.runs.images import ImageInputs, progress_bar
from experiments.runs.masks import natural_masks
from experiments.runs.network_images import NetworkInputs
from experiments.runs.scene_maps import SceneMap, write_map
from experiments.runs.scene_tiles import TileClassifier
from experiments.runs.trained import open_run
from jist.data.images.bands import Bands
from jist.data.images.rasters import colour_bands, load_rasterio, opened
from jist.data.images.tiles import Grid, strips

BLOCKS_MB = 64  # of decoded blocks that GDAL keeps


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneOptions(Options):
    """Options of mapping."""

    run_dir: pathlib.Path
    """The run directory, of a classifier of images."""
    scene: pathlib.Path
    """The scene: a GeoTIFF, or another file that GDAL reads."""
    out: pathlib.Path = pathlib.Path("map.tif")
    """The map to write, a .tif; the probabilities and the picture are named after it."""
    tile: int = 64
    """Pixels of a tile's side; best that of the images the run was trained on."""
    stride: int | None = None
    """Pixels from one tile to the next, at most a tile; by default the tile: none overlap."""
    quality_band: str | None = None
    """The band that says which pixels are clouds; by default the run's."""
    cloudy: str | None = None
    """The values of --quality-band that are missing pixels, as in training."""
    data_dir: pathlib.Path | None = None
    """Where the data are, as of training; by default where the run found them."""
    training: str | None = None
    """Which training of the run; by default the one with the best accuracy."""
    checkpoint: str = "last"
    """Which checkpoint: last, or best."""
    batch_size: int = 256
    """Tiles encoded at a time."""


def main(options: SceneOptions) -> None:
    """Restores the run, classifies every tile, and writes the map."""
    rasterio = load_rasterio("experiments.scene")
    if options.out.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"out must end in .tif, got {options.out}")
    trained = open_run(options.run_dir, options.data_dir)
    training = chosen_training(trained, options.run_dir, options.training, options.checkpoint)
    inputs = trained.inputs
    if not isinstance(inputs, ImageInputs | NetworkInputs):
        raise UsageError(f"run_dir={options.run_dir} has no head on features of images")
    head = trained.restore(training, options.checkpoint)
    names = head.class_names
    classifier = TileClassifier(
        inputs, head, batch_size=options.batch_size, max_missing=trained.max_missing
    )
    if not classifier.sees_patches:
        print(
            "note: the run's network sees tiles whole; what is missing of one has the mean colour"
        )
    if trained.ratio(training):
        print(
            f"note: the run was trained at a masking ratio of {trained.ratio(training):g}; the "
            "map takes every patch that is there"
        )
    start = time.perf_counter()
    with (
        rasterio.Env(GDAL_CACHEMAX=BLOCKS_MB),
        opened(options.scene) as file,
        progress_bar() as progress,
    ):
        bands = bands_for(file, inputs, options)
        stride = options.stride or options.tile
        grid = Grid(file.height, file.width, options.tile, stride)
        found = classify(file, bands, grid, inputs, classifier, progress)
        write_map(found, file, options.out, names, colours_of(len(names)))
    draw_map(found, names, options.out.with_suffix(".png"), options.scene.name)
    report(found, names, time.perf_counter() - start)
    print(f"written: {options.out}, -probability.tif and .png beside it")


def bands_for(file: Any, inputs: ImageInputs | NetworkInputs, options: SceneOptions) -> Bands:
    """What is read of the scene: the run's bands, or of a run on colours red, green and blue.

    Raises:
        UsageError: the scene does not have them.
    """
    bands = bands_seen(inputs.options)
    if bands is None:
        colours = colour_bands(file)
        if colours is None or {file.dtypes[number - 1] for number in colours} != {"uint8"}:
            kinds = ", ".join(kind.name for kind in file.colorinterp)
            raise UsageError(
                f"scene={options.scene} holds {file.count} band(s) of {file.dtypes[0]} ({kinds}), "
                "and the run was trained on red, green and blue of 8 bits"
            )
        bands = Bands(colours, ((0, 255),))
    quality = parse_quality(options.quality_band, options.cloudy) or bands.quality
    bands = dataclasses.replace(bands, quality=quality)
    try:
        bands.numbers(file)
    except LookupError as error:
        raise UsageError(f"scene={options.scene} has {error.args[0]}") from None
    return bands


def classify(
    file: Any,
    bands: Bands,
    grid: Grid,
    inputs: ImageInputs | NetworkInputs,
    classifier: TileClassifier,
    progress: Progress,
) -> SceneMap:
    """The class and its probability of every tile; -1 and NaN where nothing is visible."""
    masks = natural_masks(inputs.options, inputs.preprocessing, inputs.options.seed)
    masks = dataclasses.replace(masks, clouds=None)
    classes = np.full((grid.rows, grid.columns), -1, np.int32)
    probability = np.full(classes.shape, np.nan, np.float32)
    missing_pixels = 0.0
    bar = progress.add_task("rows of tiles", total=grid.rows)

    def finish(waiting: list[tuple[int, int, np.ndarray, np.ndarray]]) -> None:
        rows, columns, pixels, missing = (np.stack(part) for part in zip(*waiting, strict=True))
        of, seen = classifier(pixels, missing)
        places = rows[seen], columns[seen]
        classes[places] = of.argmax(axis=1)[seen]
        probability[places] = of.max(axis=1)[seen]

    waiting = []
    for strip in strips(file, bands, grid, inputs.options.no_data):
        missing_pixels += strip.missing_pixels()
        for row, column, pixels, missing in strip.tiles():
            # The id decides nothing: no cloud is simulated.
            shown = masks.resize(pixels, missing, 0, inputs.image_size, inputs.preprocessing)
            waiting.append((row, column, *shown))
            if len(waiting) == 2 * classifier.batch_size:
                finish(waiting)
                waiting = []
        progress.update(bar, completed=strip.row + strip.rows)
        del strip  # before the next one is read
    if waiting:
        finish(waiting)
    return SceneMap(classes, probability, grid, missing_pixels / (grid.height * grid.width))


def report(found: SceneMap, class_names: list[str], seconds: float) -> None:
    """Says how much there was to see, and what was seen."""
    seen = found.classes >= 0
    print(
        f"{found.grid.rows} × {found.grid.columns} tiles in {seconds:.1f} s; "
        f"{found.missing_pixels:.1%} of the pixels missing, {1 - seen.mean():.1%} of the tiles "
        "without anything visible"
    )
    counts = Counter(found.classes[seen].tolist())
    for label, count in counts.most_common():
        print(f"{class_names[label]}\t{count / max(seen.sum(), 1):.1%}")


if __name__ == "__main__":
    run(main, SceneOptions, __doc__ or "")
