"""Any change of an optimiser shows in its fingerprint, and nothing else does."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jist.fingerprint import optimizer_fingerprint

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


def test_it_is_the_same_in_every_process():
    program = (
        "import optax, jax, jax.numpy as jnp; from jist.fingerprint import optimizer_fingerprint;"
        "chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3));"
        "print(*optimizer_fingerprint(chain, {'kernel': jnp.zeros((3, 4)), 'bias': jnp.zeros(4)})"
        ".values())"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    assert told.stdout.strip() == digest(chain), told.stderr
