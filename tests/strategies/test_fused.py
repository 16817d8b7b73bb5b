"""Steps of an output layer that never hold its gradient, beside those that do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist.models import MLP, SparseMLP
from jist.ragged import Ragged
from jist.strategies import IST, Centralized, DataParallel, FusedOutput, stochastically_rounded
from jist.tasks import classification, multilabel

FEATURES, WIDTH, LABELS, N, CHUNK = 12, 5, 11, 10, 4  # the last chunk overlaps the one before
DRAW = np.random.default_rng(0)
LENGTHS = DRAW.integers(0, 4, N)
INDICES = np.concatenate([DRAW.permutation(FEATURES)[:n] for n in LENGTHS]).astype(np.int32)
VALUES = DRAW.normal(size=len(INDICES)).astype(np.float32)
OF = np.stack([DRAW.permutation(LABELS)[:3] for _ in range(N)]).astype(np.int32)
OF[::2, 2] = -1
EXAMPLES = {"x": Ragged.of(LENGTHS, {"indices": INDICES, "values": VALUES}), "y": OF}
OPTIMIZERS = {
    "sgd": optax.sgd(0.3),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adamw": optax.adamw(1e-2, weight_decay=0.3),
}


def trained(optimizer, kind=Centralized, workers=1, loss="sigmoid", rounds=2, **options):
    model = SparseMLP((FEATURES, WIDTH, LABELS), rngs=nnx.Rngs(0), **options)
    task = multilabel(loss=loss, chunk=CHUNK)
    strategy = kind(model, optimizer, workers=workers, local_steps=3, loss=task.loss)
    order = np.random.default_rng(1).integers(0, N, (rounds, workers, 3, 6)).astype(np.int32)
    state, losses = strategy.init(0), []
    for rows in order:
        state, metrics = strategy.round(state, EXAMPLES, rows)
        losses.append(np.asarray(metrics["loss"]))
    return {"params": state.params, "opt_state": state.opt_state, "losses": losses}


def assert_close(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), found, wanted)


@pytest.mark.parametrize(
    ("name", "loss"), [("sgd", "sigmoid"), ("momentum", "squared"), ("adamw", "sigmoid")]
)
def test_steps_are_those_of_the_optimiser_alone(name, loss):
    """Adam's count goes up once a step, not once a chunk."""
    own = (trained(of, loss=loss) for of in (FusedOutput(OPTIMIZERS[name]), OPTIMIZERS[name]))
    assert_close(*own)


def test_subnetworks_of_unequal_width_keep_their_padding():
    """Five neurons of two workers, with masks of random streams."""
    own = (
        trained(of, IST, workers=2, dropout=0.3, entry_dropout=0.2)
        for of in (FusedOutput(optax.adam(1e-2)), optax.adam(1e-2))
    )
    assert_close(*own)


def test_narrow_weights_are_rounded_at_random():
    """Each to one of its neighbours; which one is another draw than of the whole layer."""
    optimizer = stochastically_rounded(optax.sgd(0.3), 0)
    fused, whole = (
        trained(of, output_dtype=jnp.bfloat16, rounds=1)
        for of in (FusedOutput(optimizer), optimizer)
    )
    kernels = [of["params"]["layers"][1]["kernel"] for of in (fused, whole)]
    assert {of.dtype for of in kernels} == {jnp.dtype(jnp.bfloat16)}
    # Three steps of rounding, each by less than a unit in the last of 8 bits.
    np.testing.assert_allclose(*map(np.float32, kernels), rtol=2**-5, atol=1e-3)


def test_no_gradient_of_the_layer_is_held():
    widths, batch = (40, 64, 20_000), 4
    model = SparseMLP(widths, rngs=nnx.Rngs(0))
    loss, needed = multilabel(chunk=500).loss, {}
    for optimizer in (optax.sgd(0.1), FusedOutput(optax.sgd(0.1))):
        strategy = Centralized(model, optimizer, local_steps=1, loss=loss)
        memory = strategy.worker_step(EXAMPLES, batch).memory_analysis()
        needed[type(optimizer)] = memory.temp_size_in_bytes
    layer = 4 * widths[1] * widths[2]
    assert needed[FusedOutput] < layer / 10
    assert needed[optax.GradientTransformationExtraArgs] > layer


def test_what_has_no_chunks_is_refused():
    fused = FusedOutput(optax.sgd(0.1))
    with pytest.raises(ValueError, match="DataParallel sends whole gradients, which FusedOutput"):
        trained(fused, DataParallel)
    with pytest.raises(ValueError, match="one of the losses sigmoid, squared, got 'softmax'"):
        trained(fused, loss="softmax")
    with pytest.raises(ValueError, match="loss of all labels, got a model that draws some"):
        trained(fused, negatives=3)
    model = MLP((4, 5, 3), rngs=nnx.Rngs(0))
    strategy = Centralized(model, fused, local_steps=1, loss=classification().loss)
    examples = {"x": np.zeros((2, 4), np.float32), "y": np.zeros(2, np.int32)}
    with pytest.raises(ValueError, match="FusedOutput needs a loss over chunks of labels, got"):
        strategy.round(strategy.init(0), examples, np.zeros((1, 1, 2), np.int32))
