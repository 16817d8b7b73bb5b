"""Any change of an optimiser or a loss shows in its fingerprint, and nothing else does."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jist.fingerprint import loss_fingerprint, optimizer_fingerprint

PARAMS = {"kernel": jax.ShapeDtypeStruct((3, 4), jnp.float32), "bias": jnp.zeros(4)}


def digest(optimizer):
    ((name, value),) = optimizer_fingerprint(optimizer, PARAMS).items()
    assert re.fullmatch(r"optimizer \(by JAX \S+ and Optax \S+\)", name)
    return value


def closure(factor):
    table = jnp.asarray([0.1, factor])  # an array that a program holds, not a number in its text
    return optax.scale_by_schedule(lambda step: table[jnp.minimum(step, 1)])


def jitted_closure(factor):
    table = jnp.asarray([0.1, factor])
    return optax.scale_by_schedule(jax.jit(lambda step: table[jnp.minimum(step, 1)]))


def masked(decay_biases):
    mask = {"kernel": True, "bias": decay_biases}
    return optax.adamw(1e-3, mask=mask)


NEXT = float(np.nextafter(np.float32(1e-3), np.float32(1)))
PAIRS = {
    "rate": (lambda: optax.adam(1e-3), lambda: optax.adam(NEXT)),
    "momentum": (lambda: optax.sgd(0.1), lambda: optax.sgd(0.1, momentum=0.9)),
    "decay": (lambda: optax.adamw(1e-3), lambda: optax.adamw(1e-3, weight_decay=0.1)),
    "order": (
        lambda: optax.chain(optax.clip(1.0), optax.scale(-0.1)),
        lambda: optax.chain(optax.scale(-0.1), optax.clip(1.0)),
    ),
    "schedule": (
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 100)),
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 101)),
    ),
    "closure": (lambda: closure(0.2), lambda: closure(0.3)),
    "jitted closure": (lambda: jitted_closure(0.2), lambda: jitted_closure(0.3)),
    "mask": (lambda: masked(True), lambda: masked(False)),
    "state": (
        lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
        lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.2),
    ),
    "noise": (lambda: optax.noisy_sgd(0.1, key=1), lambda: optax.noisy_sgd(0.1, key=2)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_one_is_like_itself_and_unlike_the_other(name):
    one, other = PAIRS[name]
    assert digest(one()) == digest(one()) != digest(other())


def loss_digest(loss):
    x = jax.ShapeDtypeStruct((8, 3), jnp.float32)
    ((name, value),) = loss_fingerprint(loss, PARAMS, x).items()
    assert re.fullmatch(r"network and loss \(by JAX \S+ and Flax \S+ on cpu\)", name)
    return value


def network(activation, scale=1.0):
    table = jnp.asarray([scale])  # held by the program

    def loss(params, x):
        return (activation(x @ params["kernel"] + params["bias"]) * table).mean()

    return loss


def test_a_loss_is_like_itself_and_unlike_another_or_one_of_another_network():
    one = loss_digest(network(jax.nn.gelu))
    assert one == loss_digest(network(jax.nn.gelu))
    others = network(jax.nn.relu), network(jax.nn.gelu, 2.0)
    assert one not in map(loss_digest, others)


def test_both_are_the_same_in_every_process():
    program = (
        "import optax, jax, jax.numpy as jnp; import jist.fingerprint as f;"
        "params = {'kernel': jnp.zeros((3, 4)), 'bias': jnp.zeros(4)};"
        "chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3));"
        "loss = lambda p, x: (jax.nn.relu(x @ p['kernel'] + p['bias']) * jnp.ones(1)).mean();"
        "print(*f.optimizer_fingerprint(chain, params).values(),"
        " *f.loss_fingerprint(loss, params, jnp.zeros((8, 3))).values())"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))

    def loss(params, x):  # relu has a gradient of its own
        return (jax.nn.relu(x @ params["kernel"] + params["bias"]) * jnp.ones(1)).mean()

    assert told.stdout.split() == [digest(chain), loss_digest(loss)], told.stderr
