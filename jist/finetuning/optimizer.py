"""AdamW for fine-tuning, where layers near the input learn more slowly; SGD from scratch.

Clark et al., ELECTRA (arXiv 2003.10555), Appendix A.1, call it layer-wise learning-rate decay; He
et al. (arXiv 2111.06377), Appendix A.2, fine-tune their encoders with it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def adamw_by_depth(
    learning_rate: float,
    *,
    depth: int,
    layer_decay: float,
    steps: int,
    warmup_steps: int,
    weight_decay: float = 0.05,
) -> optax.GradientTransformation:
    """AdamW for a `jist.models.Classifier`, with betas 0.9 and 0.999.

    The learning rate is reached by a linear warm-up and falls to zero along half a cosine. Block i
    of d has `layer_decay ** (d - i)` of it, counted from 0; embedding and class token have
    `layer_decay ** (d + 1)`; the last LayerNorm and the head have all of it. Blocks that are dealt
    whole have `layer_decay ** (d / 2)`: a worker's optimiser does not know which they are. Matrices
    alone decay, in proportion to their learning rate.

    Args:
        learning_rate: of the head, at its highest.
        depth: blocks d of the encoder.
        layer_decay: in (0, 1]; 1 for one learning rate.
        steps: length of the schedule, in a worker's steps.
        warmup_steps: how many of them warm up.
        weight_decay: decay of matrices.

    Raises:
        ValueError: a number outside its range.
    """
    schedule = _cosine(learning_rate, steps, warmup_steps)
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must lie in (0, 1], got {layer_decay}")
    adamw = optax.adamw(schedule, weight_decay=weight_decay, mask=_matrices)

    def scaled(updates: Any, _: Any) -> Any:
        def leaf(path: tuple, update: Any) -> Any:
            return update * layer_decay ** _height([key.key for key in path], depth)

        return jax.tree_util.tree_map_with_path(leaf, updates)

    return optax.chain(adamw, optax.stateless(scaled))


def momentum_sgd(
    learning_rate: float, *, steps: int, warmup_steps: int, weight_decay: float = 5e-4
) -> optax.GradientTransformation:
    """SGD with a momentum of 0.9, for networks of convolutions from scratch.

    He et al. (arXiv 1512.03385), §3.4; with Nesterov's momentum, and a learning rate that is
    reached by a linear warm-up and falls to zero along half a cosine. Matrices and kernels decay.

    Args:
        learning_rate: at its highest.
        steps: length of the schedule, in a worker's steps.
        warmup_steps: how many of them warm up.
        weight_decay: added to the gradient, times the parameter.

    Raises:
        ValueError: warm-up steps outside [0, steps).
    """
    schedule = _cosine(learning_rate, steps, warmup_steps)
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_matrices),
        optax.sgd(schedule, momentum=0.9, nesterov=True),
    )


def _cosine(learning_rate: float, steps: int, warmup_steps: int) -> optax.Schedule:
    if not 0 <= warmup_steps < steps:
        raise ValueError(f"warmup_steps must lie in [0, {steps}), got {warmup_steps}")
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, steps)


def _matrices(params: Any) -> Any:
    """Which parameters decay."""
    return jax.tree_util.tree_map_with_path(_is_matrix, params)


def _is_matrix(path: tuple, leaf: Any) -> bool:
    stacked = any(key.key == "each" for key in path)  # of a `jist.models.Stack`
    return jnp.ndim(leaf) > 1 + stacked


def _height(path: list[Any], depth: int) -> int | float:
    """How many layers lie above a parameter: 0 of the head, depth + 1 of the embedding."""
    match path:
        case ["encoder", "blocks", "each", *_]:
            return depth / 2
        case ["encoder", "blocks", int(number), *_]:
            return depth - number
        case ["encoder", "embed" | "cls", *_]:
            return depth + 1
    return 0
