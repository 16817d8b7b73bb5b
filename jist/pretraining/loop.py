"""The loop of pre-training: epochs over a data set, checkpoints, metrics, progress.

Small data sets are kept decoded on the device; large ones are decoded again in every epoch, a few
batches ahead. Either way the order of the images follows from the seed alone, so a run that was
killed resumes from its last checkpoint and ends with the same bits; on a GPU with
`--xla_gpu_deterministic_ops=true`.
"""

import collections
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, UInt8
from rich.progress import Progress

from jist.checkpoint import Checkpoints
from jist.data import Batch, Dataset, NaturalMasks, batches
from jist.data.order import steps_until, worker_order
from jist.fingerprint import optimizer_fingerprint
from jist.metrics import MetricsLog
from jist.models import MAE
from jist.pretraining.step import Pretraining, PretrainingState

# Steps that may be in flight at once: enough to overlap the dispatch of one with another.
AHEAD = 2

Order = Int[np.ndarray, "steps batch"]


class Resident:
    """A small data set, decoded once, that stays on the device.

    Args:
        dataset: the images.
        pretraining: whose size, filter and devices are taken.
        natural: how the images' missing regions are found; None if they have none.
        progress: shows a bar, if given.

    Raises:
        UnreadableImageError: an image cannot be decoded.
    """

    def __init__(
        self,
        dataset: Dataset,
        pretraining: Pretraining,
        natural: NaturalMasks | None = None,
        progress: Progress | None = None,
    ):
        bar = progress and progress.add_task("decoding", total=len(dataset))
        decoded = []
        for batch in batches(
            dataset,
            image_size=pretraining.config.image_size,
            preprocessing=pretraining.preprocessing,
            batch_size=1024,
            natural=natural,
        ):
            decoded.append(_channels(batch))
            if progress is not None and bar is not None:
                progress.update(bar, advance=len(batch.labels))
        self._images = pretraining.place(np.concatenate(decoded))

    def __len__(self) -> int:
        return len(self._images)

    def __call__(self, order: Order) -> Iterator[tuple[Array, Int[np.ndarray, " batch"]]]:
        """Yields all images with the rows of each step."""
        return ((self._images, rows) for rows in order)


class Streamed:
    """A large data set, decoded in the order in which its images are needed.

    Args:
        dataset: the images.
        pretraining: whose size, filter and devices are taken.
        natural: how the images' missing regions are found; None if they have none.
    """

    def __init__(
        self,
        dataset: Dataset,
        pretraining: Pretraining,
        natural: NaturalMasks | None = None,
    ):
        self._dataset = dataset
        self._pretraining = pretraining
        self._natural = natural

    def __len__(self) -> int:
        return len(self._dataset)

    def __call__(self, order: Order) -> Iterator[tuple[Array, Int[np.ndarray, " batch"]]]:
        """Yields only the images of each step."""
        batch_size = order.shape[1]
        rows = np.arange(batch_size, dtype=np.int32)
        for batch in batches(
            self._dataset,
            image_size=self._pretraining.config.image_size,
            preprocessing=self._pretraining.preprocessing,
            batch_size=batch_size,
            rows=order.reshape(-1),
            natural=self._natural,
        ):
            yield self._pretraining.place(_channels(batch)), rows


def _channels(batch: Batch) -> UInt8[np.ndarray, "batch side side channels"]:
    """The images; if pixels may be missing, with one more channel that is 0 where they are."""
    if batch.missing is None:
        return batch.images
    there = np.where(batch.missing, 0, 255).astype(np.uint8)
    return np.concatenate([batch.images, there[..., None]], axis=3)


def pretrain(
    pretraining: Pretraining,
    source: Resident | Streamed,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    checkpoints: str | os.PathLike,
    log: MetricsLog,
    learning_rate: optax.Schedule,
    checkpoint_every: int = 1,
    after_checkpoint: Callable[[int, MAE], None] | None = None,
    progress: Progress | None = None,
) -> MAE:
    """Pre-trains to the end, resuming from the last checkpoint if there is one.

    Args:
        pretraining: model, optimiser and step.
        source: the images, `Resident` or `Streamed`.
        epochs: how often every image is seen.
        batch_size: images in a step, over all devices.
        seed: decides order, views and masks.
        checkpoints: directory of the checkpoints; the last two are kept.
        log: takes one line of metrics per epoch: "epoch", "step", "images_seen", "loss" (mean of
            the epoch), "learning_rate" (of its last step), "images_per_second", "seconds".
        learning_rate: the optimiser's schedule, for the log.
        checkpoint_every: epochs between checkpoints; the last epoch has one in any case.
        after_checkpoint: called with epoch and model after each checkpoint, and again when a run
            resumes from one: the earlier run may have been killed before its call finished.
        progress: shows a bar, if given.

    Returns:
        The pre-trained model.

    Raises:
        ValueError: the batch is larger than the data, or the checkpoints belong to another
            training, such as one with another optimiser. A schedule that depends on the last step
            makes another optimiser of a longer training.
        CheckpointError: the last checkpoint cannot be read.
        FloatingPointError: the loss or a parameter is not finite; the last good checkpoint is kept.
    """
    shape = {"examples": len(source), "workers": 1, "batch_size": batch_size}
    order_of = functools.partial(worker_order, seed, **shape, pools=None)
    order_of(first_step=0, steps=0)  # raises at once if the batch size is wrong
    state = pretraining.init(seed)
    of = {
        "images": len(source),
        "batch_size": batch_size,
        "seed": seed,
        **optimizer_fingerprint(pretraining.optimizer, state.params),
    }
    with Checkpoints(checkpoints, metric=None, keep=2, of=of) as saved:
        done = saved.last or 0
        if done:
            state = saved.restore(state, done)
            if after_checkpoint is not None:
                after_checkpoint(done, pretraining.model(state))
        log.rewind(done)
        total = steps_until(epochs, **shape)
        bar = progress and progress.add_task(
            "pre-training, steps", total=total, completed=steps_until(done, **shape)
        )

        def report(loss: float) -> None:
            if progress is not None and bar is not None:
                progress.update(bar, advance=1, description=f"pre-training, loss {loss:.4f}")

        for epoch in range(done + 1, epochs + 1):
            start = time.perf_counter()
            first, last = steps_until(epoch - 1, **shape), steps_until(epoch, **shape)
            order = order_of(first_step=first, steps=last - first)[0]
            try:
                state, losses = _epoch(pretraining, state, source(order), report)
            except FloatingPointError as error:
                kept = f"the checkpoint of epoch {done} is kept" if done else "nothing is saved yet"
                raise FloatingPointError(
                    f"{error} of epoch {epoch}; {kept}; a lower learning rate or a longer warm-up "
                    "may help"
                ) from None
            seconds = time.perf_counter() - start
            log.append(
                {
                    "epoch": epoch,
                    "step": last,
                    "images_seen": last * batch_size,
                    "loss": float(np.mean(losses)),
                    "learning_rate": float(np.asarray(learning_rate(last - 1))),
                    "images_per_second": round(order.size / seconds, 1),
                    "seconds": round(seconds, 3),
                }
            )
            if epoch % checkpoint_every == 0 or epoch == epochs:
                saved.save(epoch, state, {})
                done = epoch
                if after_checkpoint is not None:
                    after_checkpoint(epoch, pretraining.model(state))
    return pretraining.model(state)


def _epoch(
    pretraining: Pretraining,
    state: PretrainingState,
    images: Iterator[tuple[Array, Int[np.ndarray, " batch"]]],
    report: Callable[[float], None],
) -> tuple[PretrainingState, list[float]]:
    """Takes the steps of an epoch; a loss is checked while later steps are already running."""
    pending: collections.deque = collections.deque()
    losses = []

    def look() -> None:
        loss = float(pending.popleft())
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} in step {len(losses) + 1}")
        losses.append(loss)
        report(loss)

    for pixels, rows in images:
        state, loss = pretraining.step(state, pixels, rows)
        pending.append(loss)
        if len(pending) > AHEAD:
            look()
    while pending:
        look()
    if not _all_finite(state.params):
        raise FloatingPointError(f"a parameter is not finite after step {len(losses)}")
    return state, losses


@jax.jit
def _all_finite(params: Any) -> Array:
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))
