r"""Pre-trains a masked autoencoder on unlabelled images.

    python -m experiments.pretrain --dataset folder:data/cifar10 --encoder nano --epochs 100 \
        --base-lr 1e-3 --run-dir runs/pretrain-nano

He et al., Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377). Only the training
split is read, without its labels; `--dataset images:photos` takes every image below a directory and
holds none out. Writes `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `reconstructions/` (PNG)
and, with every checkpoint, `encoder/`, which every other script takes as
`--encoder runs/pretrain-nano/encoder`. The same command with the same `--run-dir` resumes where it
stopped, with the same bits on a CPU with as many cores; on a GPU that needs
`XLA_FLAGS=--xla_gpu_deterministic_ops=true`, because XLA otherwise picks kernels by measured time.
A run cannot be extended by more `--epochs`: the schedule of its learning rate depends on the last.

Images with missing regions can be used as they are: with `--natural-masks` (or `--no-data`,
`--simulate-clouds`) missing patches are neither encoded nor predicted, and `--mask-ratio` is a
share of the patches that are present. An image without any patch contributes nothing.
`masked:PATH`, which holds visible patches only, needs `--natural-masks`.

`--encoder` may also name a trained encoder, to adapt it to other images or to give it the decoder
that it lacks. Its preprocessing stays, and a tenth of the learning rate of a new one is enough:

    python -m experiments.pretrain --dataset images:data/photos --encoder mae-nano-cifar10-long \
        --epochs 20 --base-lr 1e-4 --run-dir runs/adapted

The defaults for the learning rate are those of He et al., for large models and long schedules;
for small models on small images use `--base-lr 1e-3`. Expected for the command above on 2 CPU
cores: about a minute an epoch, 40 seconds on cores with AMX.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from experiments.command import processes
from experiments.command.cli import run
from experiments.command.cpu import has_matrix_unit
from experiments.command.errors import UsageError, of_options
from experiments.command.options import BANDS, NATURAL, ProcessOptions, pick
from experiments.figures.reconstruction import draw, views
from experiments.runs import hub
from experiments.runs.bands import (
    are_asked,
    bands_of,
    new_preprocessing,
    of_encoder,
    resolve,
    with_bands,
)
from experiments.runs.directory import RunDirectory
from experiments.runs.images import progress_bar, resized_before
from experiments.runs.masks import natural_masks
from experiments.runs.pretraining import (
    PretrainOptions,
    build_mae,
    check_start,
    new_shape,
    trained_mae,
)
from experiments.runs.remarks import say_how_resized
from jist.data import Dataset, MaskedImages, NaturalMasks, batches, load_dataset
from jist.data.order import steps_until
from jist.masking import are_visible
from jist.metrics import MetricsLog
from jist.models import MAE, Preprocessing, digest, save_mae
from jist.placement import batch_mesh
from jist.pretraining import Pretraining, Resident, Streamed, adamw, pretrain

PICTURES = 6


# Why a run cannot be resumed with another value.
REASONS = {
    "epochs": "the learning rate falls along a cosine that ends with the last epoch, so a longer "
    "run differs from its first step"
}
# Options that do not change the result, and may differ when a run resumes.
FREE = ("run_dir", "debug", "data_dir", "resident_gb", "checkpoint_every", "picture_every")


def main(options: PretrainOptions) -> None:
    """Pre-trains, saving the encoder as it goes."""
    processes.join(pick(options, ProcessOptions))
    least_values = {"epochs": 1, "batch_size": 1, "checkpoint_every": 1, "picture_every": 0}
    for name, least in least_values.items():
        if getattr(options, name) < least:
            raise UsageError(f"{name} must be at least {least}, got {getattr(options, name)}")
    if options.dataset.startswith("masked:") and not options.natural_masks:
        raise UsageError(
            f"{options.dataset} holds visible patches only: pre-training on it needs "
            "--natural-masks"
        )
    check_start(options)
    if options.dtype == "auto":  # decided once: a resumed run keeps its type on any machine
        fast = jax.default_backend() != "cpu" or has_matrix_unit()
        options = dataclasses.replace(options, dtype="bfloat16" if fast else "float32")
    dataset = load_dataset(options.dataset, "train", data_dir=options.data_dir, seed=options.seed)
    start = trained_mae(options)
    options, dataset, preprocessing = with_preprocessing(options, dataset, start)
    config = dataclasses.asdict(options)
    for name in (*FREE, *(field.name for field in dataclasses.fields(ProcessOptions))):
        del config[name]
    for name in () if options.natural else NATURAL:
        config.pop(name, None)
    later = (*BANDS, "quality_band", "cloudy")  # runs from before there were any do not list them
    config = {n: of for n, of in config.items() if of is not None or n not in later}
    run_directory = RunDirectory(
        options.run_dir,
        {"experiment": "pretrain"} | config,
        reasons=REASONS,
        data_dir=options.data_dir,
    )
    mae = start
    if mae is None:
        mae = build_mae(options, preprocessing)
    else:
        run_directory.pin({"encoder_sha256": digest(mae.encoder), **hub.revision(options.encoder)})
        mae.encoder.preprocessing = preprocessing
    say_how_resized(dataset, mae.encoder)
    steps = steps_until(
        options.epochs, examples=len(dataset), workers=1, batch_size=options.batch_size
    )
    optimizer, learning_rate = adamw(
        options.base_lr,
        options.batch_size,
        steps=steps,
        warmup_steps=round(options.warmup * steps),
        weight_decay=options.weight_decay,
    )
    pretraining = Pretraining(
        mae,
        optimizer,
        mask_ratio=options.mask_ratio,
        max_missing=options.max_missing,
        crop_area=(options.least_crop, 1.0),
        accumulate=options.accumulate,
        mesh=cores_mesh(options),
    )
    run_directory.note_devices("pretrain", pretraining.mesh.size, options.epochs)
    masks = natural_masks(options, preprocessing, options.seed) if options.natural else None
    given = dataset, pretraining, masks
    channels = dataset.channels + (masks is not None)
    decoded_gb = len(dataset) * channels * mae.encoder.config.image_size**2 / 1e9
    if jax.default_backend() == "cpu":
        decoded_gb *= len(pretraining.mesh.local_devices)  # which share one memory
    with progress_bar() as progress, MetricsLog(options.run_dir, "pretrain") as log:
        if decoded_gb <= options.resident_gb:
            source = Resident(*given, progress)
        else:
            source = Streamed(*given)

        def after_checkpoint(epoch: int, mae: MAE) -> None:
            if jax.process_index() != 0:
                return
            # Local copies, because only this process computes the pictures.
            nnx.update(mae, jax.tree.map(np.asarray, nnx.state(mae)))
            origin = {"pretrained_on": options.dataset, "split": "train", "epochs": epoch}
            if start is not None:
                origin["began_with"] = options.encoder
            save_mae(mae, options.run_dir / "encoder", source=origin, overwrite=True)
            if picture_is_due(options, epoch):
                picture(mae, dataset, masks, options, epoch)

        pretrain(
            pretraining,
            source,
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            checkpoints=options.run_dir / "checkpoints",
            log=log,
            learning_rate=learning_rate,
            checkpoint_every=options.checkpoint_every,
            after_checkpoint=after_checkpoint,
            progress=progress,
        )
    if jax.process_index() == 0:
        print(f"written: {run_directory.path / 'encoder'}")


def with_preprocessing(
    options: PretrainOptions, dataset: Dataset, start: MAE | None
) -> tuple[PretrainOptions, Dataset, Preprocessing]:
    """The options with bands in full, the images read so, and how they are normalised.

    A trained encoder keeps mean and deviation of its own, and needs all of its bands.

    Raises:
        UsageError: as `resolve` of bands, or the images have not the encoder's channels, or not its
            patches.
    """
    own = None if start is None else start.encoder.preprocessing
    preprocessing = own or Preprocessing.of(dataset.channels)
    of_bands = own is not None and bool(own.bands or len(own.mean) != 3)
    if not options.dataset.startswith("masked:") and (are_asked(options) or of_bands):
        options = dataclasses.replace(options, **resolve(options, dataset, own))
        bands = bands_of(options)
        assert bands is not None
        dataset = with_bands(dataset, bands)
        if own is None:
            preprocessing = new_preprocessing(options, dataset)
        elif of_encoder(bands.names, own) not in ((), own.bands):
            raise UsageError(
                f"bands must be all of those of encoder={options.encoder}, in its order: "
                f"{','.join(own.bands)}; got {options.bands}"
            )
        else:
            preprocessing = dataclasses.replace(own, scale=tuple(bands.scale))
    if dataset.channels != len(preprocessing.mean):
        raise UsageError(
            f"encoder={options.encoder} takes {len(preprocessing.mean)} channels, and images of "
            f"{options.dataset} have {dataset.channels}"
        )
    if isinstance(dataset, MaskedImages):
        shape = new_shape(options) if start is None else start.encoder.config
        with of_options():
            dataset.check(shape.image_size, shape.patch_size, preprocessing)
    resized = resized_before(options.dataset, options.data_dir) or options.resize
    if resized is not None:
        preprocessing = dataclasses.replace(preprocessing, resize=resized)
    return options, dataset, preprocessing


def cores_mesh(options: PretrainOptions) -> Mesh | None:
    """A mesh of as many CPU cores as divide the batch, since the user did not choose the devices.

    None, for all devices, on a GPU or with several processes: the batch must then be divisible.
    """
    if jax.default_backend() != "cpu" or jax.process_count() > 1:
        return None
    return batch_mesh(options.batch_size // (options.accumulate or 1))


def picture_is_due(options: PretrainOptions, epoch: int) -> bool:
    """Whether a picture is drawn at the checkpoint of an epoch."""
    every = options.picture_every
    if every == 0:
        return False
    return epoch == options.epochs or epoch // every > (epoch - options.checkpoint_every) // every


def picture(
    mae: MAE, dataset: Dataset, masks: NaturalMasks | None, options: PretrainOptions, epoch: int
) -> None:
    """Draws some training images, masked and reconstructed."""
    config, preprocessing = mae.encoder.config, mae.encoder.preprocessing
    rows = np.linspace(0, len(dataset) - 1, PICTURES).astype(int)
    (some,) = batches(
        dataset,
        image_size=config.image_size,
        preprocessing=preprocessing,
        batch_size=PICTURES,
        rows=rows,
        natural=masks,
    )
    visible = np.ones((len(rows), config.patches), bool)
    if some.missing is not None:
        visible = are_visible(some.missing, config.patch_size, options.max_missing)
    shown = visible.any(axis=1)
    if not shown.any():
        return
    # All images show as many patches as the image that has fewest.
    kept = max(1, int(visible[shown].sum(axis=1).min() * (1 - options.mask_ratio)))
    generator = np.random.default_rng(options.seed)
    order = np.argsort(np.where(visible, generator.random(visible.shape), 1), axis=1)
    keep = jnp.asarray(np.sort(order[shown, :kept], axis=1), jnp.int32)
    columns = views(mae, some.images[shown], keep)
    names = [dataset.keys[row].rsplit("/", 1)[-1] for row in rows[shown]]
    draw(columns, names, options.run_dir / "reconstructions" / f"epoch-{epoch:04d}.png")


if __name__ == "__main__":
    run(main, PretrainOptions, __doc__ or "")
