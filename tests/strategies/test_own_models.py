"""Models that are not jist's: dropout, batch normalisation, schedules, under every strategy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jist
import jist.ist
from jist.strategies import IST, Centralized, DataParallel, Ensemble, LocalSGD, workers_mesh

STRATEGIES = (Centralized, DataParallel, LocalSGD, Ensemble, IST)
X = np.random.default_rng(0).standard_normal((24, 3)).astype(np.float32)
Y = np.arange(24, dtype=np.int32) % 2
ROWS = np.random.default_rng(1).permutation(24).reshape(4, 1, 6).astype(np.int32)


class Noise(nnx.Module):
    """A parameter whose gradient is whatever the random stream gives."""

    def __init__(self, width, rngs):
        self.w = nnx.Param(jnp.zeros(width), neurons=("hidden",))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(jnp.broadcast_to(self.w, (len(x), *self.w.shape)))


def summed(model, batch):
    return jnp.sum(model(batch["x"]).mean(0))


def order(workers, steps):
    """As many steps of six examples as asked for [workers, steps, 6]."""
    number = np.arange(workers * steps).reshape(workers, steps) % len(ROWS)
    return ROWS[number, 0]


def trained(strategy, rounds, steps, *, examples=None):
    state = strategy.init(0)
    for _ in range(rounds):
        state, _ = strategy.round(
            state, examples or {"x": X, "y": Y}, order(strategy.workers, steps)
        )
    return state


@pytest.mark.parametrize("kind", STRATEGIES)
def test_random_streams_are_new_in_every_step_and_on_every_worker(kind):
    """With SGD of rate 1 the parameter is minus the sum of all masks that were drawn."""
    workers = 1 if kind is Centralized else 2

    def after(rounds, steps, devices=1, seed=0):
        model = Noise(64, nnx.Rngs(seed))
        given = {"mesh": workers_mesh(workers, devices), "loss": summed, "local_steps": steps}
        return trained(kind(model, optax.sgd(1.0), workers=workers, **given), rounds, steps)

    one, two = (np.asarray(after(rounds, 1).params["w"]) for rounds in (1, 2))
    masks = -one, one - two
    # A mask of 6 examples: multiples of 2 / 6 whose mean is 1, with a deviation of 1 / √6 a neuron.
    for mask in masks:
        units = mask * 3 * (1 if kind in (Centralized, IST, Ensemble) else workers)
        np.testing.assert_allclose(units, np.round(units), atol=1e-4)
        assert abs(mask.mean() - 1) < 0.25
    assert np.abs(masks[0] - masks[1]).max() > 0.3
    if kind is Ensemble:  # [workers, part]: each drew its own
        assert np.abs(one[0] - one[1]).max() > 0.3
    # Two steps of a round draw two masks, and neither depends on the devices.
    both = np.asarray(after(1, 2).params["w"])
    assert np.abs(both - 2 * one).max() > 0.3
    devices = np.asarray(after(2, 1, devices=workers).params["w"])
    np.testing.assert_allclose(devices, two, atol=1e-6)


class Normalised(nnx.Module):
    """A hidden layer with Flax's own batch normalisation."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(
            3, 8, rngs=rngs, use_bias=False, kernel_metadata={"neurons": (None, "hidden")}
        )
        self.norm = nnx.BatchNorm(
            8,
            rngs=rngs,
            scale_metadata={"neurons": ("hidden",)},
            bias_metadata={"neurons": ("hidden",)},
        )
        self.out = nnx.Linear(8, 2, rngs=rngs, kernel_metadata={"neurons": ("hidden", None)})

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.hidden(x))))


def by_hand(params, x):
    """The logits where batch normalisation takes the statistics of all examples."""
    z = x @ params["hidden"]["kernel"]
    z = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) * params["norm"]["scale"]
    return (
        np.maximum(z + params["norm"]["bias"], 0) @ params["out"]["kernel"] + params["out"]["bias"]
    )


@pytest.mark.parametrize(
    ("kind", "workers"),
    [(Centralized, 1), *((kind, workers) for kind in STRATEGIES[1:] for workers in (1, 2, 4))],
)
def test_batch_normalisation_is_deployed_with_measured_statistics(kind, workers):
    """Its running averages move in training by a hundredth a step, if at all."""
    strategy = kind(Normalised(nnx.Rngs(0)), optax.sgd(0.1), workers=workers, local_steps=2)
    model = strategy.model(trained(strategy, 2, 2))
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert np.abs(params["norm"]["bias"]).max() > 1e-3  # it was trained
    jist.calibrate(model, X)
    np.testing.assert_allclose(model(X), by_hand(params, X), atol=1e-4)
    assert model.norm.momentum != 0, "the model's own momentum is back"


def test_batch_normalisation_trains_as_pytorchs():
    torch = pytest.importorskip("torch", reason="an independent implementation")
    model = Normalised(nnx.Rngs(0))
    start = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    strategy = Centralized(model, optax.sgd(0.1), local_steps=4)
    found = trained(strategy, 1, 4).params
    theirs = {
        "hidden": torch.nn.Linear(3, 8, bias=False),
        "norm": torch.nn.BatchNorm1d(8),
        "out": torch.nn.Linear(8, 2),
    }
    with torch.no_grad():
        theirs["hidden"].weight.copy_(torch.tensor(start["hidden"]["kernel"].T))
        theirs["out"].weight.copy_(torch.tensor(start["out"]["kernel"].T))
        theirs["out"].bias.zero_()
    network = torch.nn.Sequential(theirs["hidden"], theirs["norm"], torch.nn.ReLU(), theirs["out"])
    sgd = torch.optim.SGD(network.parameters(), 0.1)
    for rows in order(1, 4)[0]:
        sgd.zero_grad()
        logits = network(torch.tensor(X[rows]))
        torch.nn.functional.cross_entropy(logits, torch.tensor(Y[rows]).long()).backward()
        sgd.step()
    for name, ours in (("norm", "scale"), ("norm", "bias"), ("out", "bias")):
        attribute = "weight" if ours == "scale" else "bias"
        expected = getattr(theirs[name], attribute).detach().numpy()
        np.testing.assert_allclose(found[name][ours], expected, atol=1e-5)
    expected = theirs["hidden"].weight.detach().numpy().T
    np.testing.assert_allclose(found["hidden"]["kernel"], expected, atol=1e-5)


def test_dropout_is_off_where_statistics_are_measured():
    class Dropped(Normalised):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return super().__call__(self.dropout(x))

    model = Dropped(nnx.Rngs(0))
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    jist.calibrate(model, X)
    np.testing.assert_allclose(model(X), by_hand(params, X), atol=1e-4)


def test_running_averages_that_cannot_be_measured_are_named():
    class Own(nnx.Module):
        def __init__(self):
            self.average = nnx.BatchStat(jnp.zeros(3))

        def __call__(self, x):
            return x - self.average

    with pytest.raises(ValueError, match=r"running average average belongs to no nnx\.BatchNorm"):
        jist.calibrate(Own(), X)


@pytest.mark.parametrize("kind", [IST, LocalSGD])
def test_a_schedule_goes_on_where_the_optimiser_is_made_anew(kind):
    """The rate falls to a tenth at the third step, the first of the second round."""

    def rate(step):
        return jnp.where(step < 2, 1.0, 0.1)

    def after(rounds):
        strategy = kind(
            Noise(4, nnx.Rngs(0)),
            optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(rate)),
            workers=2,
            local_steps=2,
            optimizer_state="reset",
            loss=lambda model, batch: jnp.sum(model.w[...]),
        )
        return np.asarray(trained(strategy, rounds, 2).params["w"])

    # The gradient is 1; momentum, which belongs to the parameter, is made anew: 1, then 1.9.
    np.testing.assert_allclose(after(1), -2.9, rtol=1e-6)
    np.testing.assert_allclose(after(2), -2.9 - 0.29, rtol=1e-6)


def test_adams_count_belongs_to_its_moments():
    """Else its bias would be corrected as that of moments that are old."""
    adam = IST(
        Noise(4, nnx.Rngs(0)),
        optax.adam(0.1),
        workers=2,
        local_steps=1,
        optimizer_state="reset",
        loss=summed,
    )
    assert jax.tree.leaves(adam.init(0).opt_state) == []
    warm = optax.warmup_constant_schedule(0.0, 0.1, 10)
    scheduled = IST(
        Noise(4, nnx.Rngs(0)),
        optax.adam(warm),
        workers=2,
        local_steps=1,
        optimizer_state="reset",
        loss=summed,
    )
    (count,) = trained(scheduled, 3, 1).opt_state
    assert int(count) == 3


class Flattened(nnx.Module):
    """A convolution whose channels are partitioned, flattened into a dense layer."""

    def __init__(self, rngs, channels=4):
        self.conv = nnx.Conv(
            1,
            channels,
            (3, 3),
            rngs=rngs,
            kernel_metadata={"neurons": (None, None, None, "channels")},
            bias_metadata={"neurons": ("channels",)},
        )
        self.out = nnx.Linear(
            16 * channels, 2, rngs=rngs, kernel_metadata={"neurons": ((16, "channels"), None)}
        )

    def __call__(self, x):
        maps = nnx.relu(self.conv(x))
        return self.out(maps.reshape(len(maps), -1))


PICTURES = np.random.default_rng(2).standard_normal((24, 4, 4, 1)).astype(np.float32)


@pytest.mark.parametrize("kind", [IST, Ensemble])
def test_channels_travel_with_what_flattening_makes_of_them(kind):
    """A channel that is trained alone is trained as in a network that has no other."""
    examples = {"x": PICTURES, "y": Y}
    whole = Flattened(nnx.Rngs(0))
    strategy = kind(whole, optax.sgd(0.1), workers=4, local_steps=2)
    assert strategy.parameters_per_worker == (9 + 1) + (16 * 2 + 2)
    network = strategy.model(trained(strategy, 1, 2, examples=examples))
    parts = jist.ist.partition(jax.random.fold_in(jax.random.key(0), 0), {"channels": 4}, 4)
    for worker, (channel,) in enumerate(np.asarray(parts["channels"])):
        alone = Flattened(nnx.Rngs(0), channels=1)
        alone.conv.kernel[...] = whole.conv.kernel[...][..., channel : channel + 1]
        alone.conv.bias[...] = whole.conv.bias[...][channel : channel + 1]
        alone.out.kernel[...] = whole.out.kernel[...][channel::4]
        central = Centralized(alone, optax.sgd(0.1), local_steps=2)
        state, _ = central.round(central.init(0), examples, order(4, 2)[worker : worker + 1])
        expected = central.model(state)
        np.testing.assert_allclose(
            network.out.kernel[...][channel::4], expected.out.kernel[...], atol=1e-6
        )
        np.testing.assert_allclose(
            network.conv.kernel[...][..., channel], expected.conv.kernel[...][..., 0], atol=1e-6
        )


def test_flattened_channels_travel_sharded_as_they_do_replicated():
    examples = {"x": PICTURES, "y": Y}

    def after(exchange):
        strategy = IST(
            Flattened(nnx.Rngs(0)),
            optax.sgd(0.1, 0.9),
            workers=2,
            local_steps=2,
            partition="stratified",
            exchange=exchange,
            mesh=workers_mesh(2, 2),
        )
        return trained(strategy, 2, 2, examples=examples).params

    with pytest.raises(ValueError, match="needs an axis along which each neuron stands once"):
        after("sharded")


def test_a_model_that_cannot_be_cut_is_refused_before_it_is_trained():
    model = Normalised(nnx.Rngs(0))
    model.out.kernel.set_metadata(neurons=("other", None))
    strategy = IST(model, optax.sgd(0.1), workers=2, local_steps=2)
    with pytest.raises(ValueError, match="the model cannot be cut along the neurons"):
        strategy.round(strategy.init(0), {"x": X, "y": Y}, order(2, 2))
    with pytest.raises(ValueError, match="the model cannot be cut along the neurons"):
        strategy.flops_per_step({"x": X, "y": Y}, 6)
