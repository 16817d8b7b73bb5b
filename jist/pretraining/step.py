"""One step of masked-autoencoder pre-training, on any number of devices.

He et al., Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377): each image of a
batch is cropped and mirrored at random, most of its patches are dropped, the encoder sees the rest,
and a light decoder predicts the missing ones. A step is one compiled program; the batch is split
over the devices, and the result does not depend on their number (up to float rounding).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key, UInt8

from jist.masking import are_visible, patches_kept, random_keep, random_keep_of_visible
from jist.models import MAE
from jist.placement import at_once, place
from jist.pretraining.augment import random_view


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PretrainingState:
    """The state that a pre-training step updates.

    Attributes:
        params: nested dict of arrays, the parameters of encoder and decoder.
        opt_state: the optimiser's state.
        step: number of steps done, i32 [].
        key: PRNG key; step t draws from `fold_in(key, t)`.
    """

    # Not annotated as arrays: JAX also uses shapes, shardings and placeholders here.
    params: Any
    opt_state: Any
    step: Any
    key: Any


def adamw(
    base_lr: float, batch_size: int, *, steps: int, warmup_steps: int, weight_decay: float = 0.05
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser of He et al. (Appendix A.1) and its learning rate.

    AdamW with betas 0.9 and 0.95; the learning rate `base_lr * batch_size / 256` is reached by a
    linear warm-up and falls to zero along half a cosine; biases, norms and tokens do not decay.

    Args:
        base_lr: learning rate for a batch of 256.
        batch_size: images in a step, over all devices.
        steps: length of the schedule.
        warmup_steps: how many of them warm up.
        weight_decay: decay of matrices.

    Raises:
        ValueError: the warm-up is not shorter than the schedule.
    """
    if not 0 <= warmup_steps < steps:
        raise ValueError(f"warmup_steps must lie in [0, {steps}), got {warmup_steps}")
    learning_rate = optax.warmup_cosine_decay_schedule(
        0.0, base_lr * batch_size / 256, warmup_steps, steps
    )
    optimizer = optax.adamw(
        learning_rate,
        b1=0.9,
        b2=0.95,
        weight_decay=weight_decay,
        mask=lambda params: jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params),
    )
    return optimizer, learning_rate


class Pretraining:
    """Pre-trains a masked autoencoder.

    Args:
        mae: the model with its initial values; these are not changed.
        optimizer: its optimiser.
        mask_ratio: share of the patches that is removed, in (0, 1).
        max_missing: share of a patch that may be missing of images that lack pixels, in [0, 1).
        crop_area: least and largest area of a random crop, as shares of the image.
        accumulate: parts in which a batch is computed one after the other, to save memory. The
            result does not depend on it (up to float rounding). By default the fastest number: one,
            except on CPUs.
        mesh: devices, along one axis named "batch"; all by default.

    Raises:
        ValueError: a ratio that keeps no patch or all of them, shares outside their ranges,
            `accumulate` not positive, a mesh with another axis.
    """

    def __init__(
        self,
        mae: MAE,
        optimizer: optax.GradientTransformation,
        *,
        mask_ratio: float = 0.75,
        max_missing: float = 0.0,
        crop_area: tuple[float, float] = (0.2, 1.0),
        accumulate: int | None = None,
        mesh: Mesh | None = None,
    ):
        patches = mae.encoder.config.patches
        kept = patches_kept(patches, mask_ratio)
        if kept == patches:
            raise ValueError(f"mask_ratio must leave out at least one patch, got {mask_ratio}")
        if not 0 <= max_missing < 1:
            raise ValueError(f"max_missing must lie in [0, 1), got {max_missing}")
        if not 0 < crop_area[0] <= crop_area[1] <= 1:
            raise ValueError(f"crop_area must satisfy 0 < least <= largest <= 1, got {crop_area}")
        if accumulate is not None and accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {accumulate}")
        self.mesh = Mesh(np.array(jax.devices()), ("batch",)) if mesh is None else mesh
        if self.mesh.axis_names != ("batch",):
            raise ValueError(f'mesh must have one axis, "batch", got {self.mesh.axis_names}')
        self.mask_ratio = mask_ratio
        self.max_missing = max_missing
        self.crop_area = crop_area
        self._accumulate = accumulate
        self._tokens = 1 + kept
        self.config = mae.encoder.config
        self.preprocessing = mae.encoder.preprocessing
        self.optimizer = optimizer
        self._graphdef, params, rest = nnx.split(mae, nnx.Param, ...)
        self._params = nnx.to_pure_dict(params)
        self.replicated = NamedSharding(self.mesh, P())
        self._rest = jax.device_put(rest, self.replicated)
        self._step = jax.jit(self._whole_step, donate_argnums=0)
        self._sums = jax.shard_map(
            self._device_sums,
            mesh=self.mesh,
            in_specs=(P(), P(), P(), P(None, "batch"), P(None, "batch")),
            out_specs=P(),
            # Otherwise the gradient of each part would be summed over the devices separately.
            check_vma=False,
        )

    def init(self, seed: int) -> PretrainingState:
        """The state before the first step: the model's own values, a key from `seed`."""
        return self._first_state(self._params, jax.random.key(seed))

    @functools.cached_property
    def _first_state(self) -> Callable[[Any, Key[Array, ""]], PretrainingState]:
        """Makes a state of parameters and a key; compiled once, however often one is asked for."""

        def start(params: Any, key: Array) -> PretrainingState:
            # Copied, because a step donates its state and the model's arrays must outlive it.
            params = jax.tree.map(jnp.copy, params)
            return PretrainingState(params, self.optimizer.init(params), jnp.int32(0), key)

        return jax.jit(start, out_shardings=self.replicated)

    def step(
        self,
        state: PretrainingState,
        images: UInt8[Array, "images side side channels"],
        rows: Int[np.ndarray, " batch"],
    ) -> tuple[PretrainingState, Float[Array, ""]]:
        """One step of the optimiser.

        Args:
            state: the state before; its buffers are reused.
            images: pixels [N, S, S, C] on every device (see `place`), as the encoder takes them; or
                [N, S, S, C + 1], whose last channel is 0 where a pixel is missing. Missing pixels
                are neither encoded nor predicted.
            rows: which of them make up the batch [B].

        Returns:
            The state after, and the loss of the batch before the step.

        Raises:
            ValueError: the batch is not divisible by the devices times `accumulate`.
        """
        devices, parts = self.mesh.size, self._accumulate or 1
        if len(rows) % (devices * parts):
            raise ValueError(
                f"the batch must be a multiple of devices x accumulate = {devices} x {parts}, "
                f"got {len(rows)}"
            )
        if self._accumulate is None:
            own = len(rows) // devices
            parts = own // at_once(own, self._tokens)
        rows = rows.reshape(parts, -1)
        split = NamedSharding(self.mesh, P(None, "batch"))
        return self._step(state, images, place(rows, split))

    def place(self, images: UInt8[np.ndarray, "images side side channels"]) -> Array:
        """Places images on every device, as `step` takes them."""
        return place(images, self.replicated)

    def model(self, state: PretrainingState) -> MAE:
        """The masked autoencoder with the parameters of a state."""
        return nnx.merge(self._graphdef, state.params, self._rest)

    def _whole_step(
        self, state: PretrainingState, images: Array, rows: Int[Array, "parts batch"]
    ) -> tuple[PretrainingState, Float[Array, ""]]:
        # A key for each image, so that nothing depends on the parts.
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), rows.size)
        keys = keys.reshape(rows.shape)
        (error, predicted), gradients = self._sums(state.params, self._rest, images, rows, keys)
        loss, gradients = jax.tree.map(
            lambda leaf: leaf / jnp.maximum(predicted, 1), (error, gradients)
        )
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return PretrainingState(params, opt_state, state.step + 1, state.key), loss

    def _device_sums(
        self, params: Any, rest: Any, images: Array, rows: Int[Array, "parts batch"], keys: Array
    ) -> tuple[tuple[Array, Array], Any]:
        """Squared error, number of predicted patches and gradient, summed over the whole batch.

        `rest` holds the model's variables that are not trained; `rows` and `keys` are those of one
        device.
        """
        error_and_gradient = jax.value_and_grad(self._squared_error, has_aux=True)
        sums = error_and_gradient(params, rest, images, rows[0], keys[0])
        if len(rows) > 1:
            sums, _ = jax.lax.scan(
                lambda sums, part: (
                    jax.tree.map(jnp.add, sums, error_and_gradient(params, rest, images, *part)),
                    None,
                ),
                sums,
                (rows[1:], keys[1:]),
            )
        return jax.lax.psum(sums, "batch")

    def _squared_error(
        self, params: Any, rest: Any, images: Array, rows: Int[Array, " batch"], keys: Array
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        mae = nnx.merge(self._graphdef, params, rest)
        views, *masks = self._masked_views(images, rows, keys)
        return mae.squared_error(self.preprocessing.normalize(views), *masks)

    def _masked_views(
        self, images: Array, rows: Int[Array, " batch"], keys: Array
    ) -> tuple[Array, ...]:
        """Augmented images, one key each, and their masks as `MAE.squared_error` takes them."""

        def one(image: Array, key: Array) -> tuple[Array, ...]:
            view_key, mask_key = jax.random.split(key)
            channels = self.config.channels
            border = self.preprocessing.border
            view = random_view(view_key, image, self.crop_area, channels, border)
            if view.shape[2] == channels:
                return view, random_keep(mask_key, 1, self.config.patches, self.mask_ratio)[0]
            missing = view[None, :, :, channels] == 0
            visible = are_visible(missing, self.config.patch_size, self.max_missing)
            keep, valid = random_keep_of_visible(mask_key, visible, self.mask_ratio)
            return view[:, :, :channels], keep[0], valid[0], visible[0]

        return jax.vmap(one)(images[rows], keys)
