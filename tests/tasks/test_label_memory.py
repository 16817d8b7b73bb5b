"""The memory of a step with many labels, by the formula and by the program that XLA compiles."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from jist import costs
from jist.models import SparseMLP
from jist.strategies import FusedOutput
from jist.strategies.local import LocalTraining
from jist.tasks import multilabel

pytestmark = pytest.mark.usefixtures("fully_optimised")


@pytest.mark.parametrize(
    ("widths", "batch", "longest", "chunk", "optimizer", "moments"),
    [
        ((3_000, 128, 40_000), 128, 200, 2048, optax.sgd(0.1), 0),
        ((2_000, 256, 9_000), 32, 2000, 1024, optax.adam(0.1), 2),
        ((1_000, 128, 40_000), 128, 200, 2048, FusedOutput(optax.sgd(0.1)), 0),
        ((2_000, 128, 20_000), 32, 200, 1024, FusedOutput(optax.adam(0.1)), 2),
    ],
)
def test_a_step_needs_what_the_formula_says(widths, batch, longest, chunk, optimizer, moments):
    model = SparseMLP(widths, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    training = LocalTraining(graphdef, optimizer, multilabel(chunk=chunk).loss)
    examples = {
        "x": {
            "indices": jnp.zeros((batch, longest), jnp.int32),
            "values": jnp.ones((batch, longest)),
        },
        "y": jnp.zeros((batch, 1), jnp.int32),
    }

    def step(params, opt_state, rows):
        return training.steps(params, rest, opt_state, examples, rows)

    opt_state = jax.eval_shape(optimizer.init, params)
    shapes = jax.eval_shape(lambda: (params, opt_state, jnp.zeros((1, batch), jnp.int32)))
    program = jax.jit(step, donate_argnums=(0, 1)).lower(*shapes).compile()
    memory = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    fused = isinstance(optimizer, FusedOutput)
    expected = costs.label_step_bytes(widths, batch, longest, chunk, moments=moments, fused=fused)
    # The logits of all labels at once, B × L, would be 20 MB of the first case's 66, and be seen.
    assert held == pytest.approx(expected, rel=0.03)
