"""Networks, losses and metrics that are not jist's, through the trainer, as a user writes them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jist import trainer
from jist.data import worker_order
from jist.evaluation import evaluate
from jist.metrics import MetricsLog
from jist.strategies import IST, Centralized, DataParallel, Ensemble, LocalSGD
from jist.tasks import Task, classification, regression

GENERATOR = np.random.default_rng(3)
X = GENERATOR.standard_normal((64, 3)).astype(np.float32)
CLASSES = (X @ np.array([1.0, -2.0, 0.5]) > 0).astype(np.int32)


def dense(inputs, outputs, rngs, axes):
    """A dense layer that names its neurons: into the layer, or out of it."""
    given = {"kernel_metadata": {"neurons": axes}}
    given |= {"bias_metadata": {"neurons": axes[1:]}} if axes[1] else {}
    return nnx.Linear(inputs, outputs, rngs=rngs, **given)


class Dropped(nnx.Module):
    """LayerNorm of the inputs, and dropout of the hidden layer."""

    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(3, rngs=rngs)
        self.hidden = dense(3, 8, rngs, (None, "hidden"))
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.out = dense(8, 2, rngs, ("hidden", None))

    def __call__(self, x):
        return self.out(self.dropout(nnx.relu(self.hidden(self.norm(x)))))


class Batched(nnx.Module):
    """Batch normalisation in place of both."""

    def __init__(self, rngs):
        self.hidden = dense(3, 8, rngs, (None, "hidden"))
        self.out = dense(8, 2, rngs, ("hidden", None))
        named = {"scale_metadata": {"neurons": ("hidden",)}}
        named |= {"bias_metadata": {"neurons": ("hidden",)}}
        self.batch_norm = nnx.BatchNorm(8, rngs=rngs, **named)

    def __call__(self, x):
        return self.out(nnx.relu(self.batch_norm(self.hidden(x))))


class Convolved(nnx.Module):
    """A convolution, flattened into a dense layer; its channels are the neurons."""

    def __init__(self, rngs):
        named = {"kernel_metadata": {"neurons": (None, None, "channels")}}
        named |= {"bias_metadata": {"neurons": ("channels",)}}
        self.conv = nnx.Conv(1, 4, (3,), rngs=rngs, **named)
        self.out = dense(12, 2, rngs, ((3, "channels"), None))

    def __call__(self, x):
        return self.out(nnx.relu(self.conv(x[:, :, None])).reshape(len(x), -1))


class Fitted(nnx.Module):
    """One number for each example."""

    def __init__(self, rngs):
        self.hidden = dense(3, 8, rngs, (None, "hidden"))
        self.out = dense(8, 1, rngs, ("hidden", None))

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))[:, 0]


class TwoHeads(nnx.Module):
    """A class and a number from one hidden layer."""

    def __init__(self, rngs):
        self.hidden = dense(3, 8, rngs, (None, "hidden"))
        self.label = dense(8, 2, rngs, ("hidden", None))
        self.value = dense(8, 1, rngs, ("hidden", None))

    def __call__(self, x):
        h = nnx.relu(self.hidden(x))
        return self.label(h), self.value(h)[:, 0]


def two_losses(model, batch):
    logits, value = model(batch["x"])
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return entropy.mean() + 0.5 * jnp.mean((value - batch["value"]) ** 2)


def counts(model, batch):
    found, true = model(batch["x"])[0].argmax(-1) == 1, batch["label"] == 1
    return {"both": (found & true).sum(), "found": found.sum(), "true": true.sum()}


def f1(sums):
    return {"f1": 2 * sums["both"] / max(1, sums["found"] + sums["true"])}


LABELLED = {"x": X, "y": CLASSES}
NUMBERED = {"x": X, "y": X[:, 0] - X[:, 1]}
BOTH = {"x": X, "label": CLASSES, "value": X[:, 0]}
NETWORKS = {
    "layer norm and dropout": (Dropped, classification(), LABELLED),
    "batch norm": (Batched, classification(), LABELLED),
    "convolution": (Convolved, classification(), LABELLED),
    "regression": (Fitted, regression(), NUMBERED),
    "two heads": (TwoHeads, Task(two_losses, counts, f1, best="f1"), BOTH),
}
METHODS = [
    (Centralized, 1),
    *((kind, n) for kind in (DataParallel, LocalSGD, Ensemble, IST) for n in (1, 2, 4)),
]


def build(name, kind, workers, optimizer):
    network, task, examples = NETWORKS[name]
    given = {"workers": workers, "local_steps": 8, "loss": task.loss}
    return kind(network(nnx.Rngs(0)), optimizer, **given), task, examples


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("kind", "workers"), METHODS)
def test_every_strategy_trains_it(name, kind, workers):
    momentum = optax.sgd(0.03, momentum=0.9)  # compiled in less time than Adam
    strategy, _, examples = build(name, kind, workers, momentum)
    state, losses = strategy.init(0), []
    for step in range(0, 40, 8):
        order = worker_order(
            0, examples=64, workers=workers, batch_size=8, first_step=step, steps=8
        )
        state, metrics = strategy.round(state, examples, order)
        losses.append(float(metrics["loss"].mean()))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", ["regression", "two heads"])
def test_it_is_trained_as_by_pytorch(name):
    torch = pytest.importorskip("torch", reason="an independent implementation")
    network, task, examples = NETWORKS[name]
    model = network(nnx.Rngs(0))
    start = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    heads = ("out",) if name == "regression" else ("label", "value")
    layers = {}
    for layer in ("hidden", *heads):
        kernel = start[layer]["kernel"]
        layers[layer] = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            layers[layer].weight.copy_(torch.tensor(kernel.T))
            layers[layer].bias.copy_(torch.tensor(start[layer]["bias"]))
    order = worker_order(0, examples=64, workers=1, batch_size=8, first_step=0, steps=5)
    strategy = Centralized(model, optax.sgd(0.1), local_steps=5, loss=task.loss)
    state, _ = strategy.round(strategy.init(0), examples, order)
    sgd = torch.optim.SGD([p for layer in layers.values() for p in layer.parameters()], 0.1)
    for rows in order[0]:
        batch = {key: torch.tensor(array[rows]) for key, array in examples.items()}
        hidden = torch.relu(layers["hidden"](batch["x"]))
        if name == "regression":
            loss = ((layers["out"](hidden)[:, 0] - batch["y"]) ** 2).mean()
        else:
            label, value = layers["label"](hidden), layers["value"](hidden)[:, 0]
            loss = torch.nn.functional.cross_entropy(label, batch["label"].long())
            loss = loss + 0.5 * ((value - batch["value"]) ** 2).mean()
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    for layer, theirs in layers.items():
        expected = theirs.weight.detach().numpy().T
        np.testing.assert_allclose(state.params[layer]["kernel"], expected, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_resumed_training_ends_with_the_same_bits(name, tmp_path):
    strategy, task, examples = build(name, IST, 2, optax.adam(0.03))

    def train(directory, epochs):
        with MetricsLog(tmp_path / directory, "run") as log:
            return trainer.train(
                strategy,
                examples,
                examples,
                epochs=epochs,
                batch_size=4,
                seed=0,
                checkpoints=tmp_path / directory / "checkpoints",
                log=log,
                task=task,
            )

    def last(directory):
        which = tmp_path / directory / "checkpoints"
        return trainer.restore_model(strategy, which, "last", task=task)

    *_, metrics = train("whole", 3)
    best = f"test_{task.best}"
    assert evaluate(last("whole"), examples, task)[best] == pytest.approx(metrics[best], abs=1e-5)
    train("in two", 1)
    train("in two", 3)
    for one, other in zip(*map(_numbers, (last("whole"), last("in two"))), strict=True):
        np.testing.assert_array_equal(one, other)


def _numbers(model):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))
