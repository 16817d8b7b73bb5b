"""How n workers train one model; one interface, so that a baseline is swapped by one word.

`jist.trainer` is the loop around a strategy; one of your own is short:

>>> import jax, jist, optax
>>> from flax import nnx
>>> from jist.data import worker_order
>>> from jist.models import MLP
>>> from jist.strategies import IST
>>> x = jax.random.normal(jax.random.key(0), (256, 4))
>>> y = (x[:, 0] > 0).astype("int32")
>>> model = MLP((4, 16, 2), rngs=nnx.Rngs(0))
>>> strategy = IST(model, optax.adam(1e-2), workers=2, local_steps=8)
>>> state = strategy.init(seed=0)
>>> for step in range(0, 64, 8):
...     order = worker_order(
...         0, examples=256, workers=2, batch_size=16, first_step=step, steps=8
...     )  # i32 [workers, steps, batch]
...     state, metrics = strategy.round(state, {"x": x, "y": y}, order)
>>> network = strategy.model(state)
>>> jist.calibrate(network, x)  # deployed statistics, of the full network
>>> bool((network(x).argmax(-1) == y).mean() > 0.9)
True
"""

from jist.placement import workers_mesh
from jist.strategies.centralized import Centralized
from jist.strategies.data_parallel import DataParallel
from jist.strategies.diloco import DiLoCo
from jist.strategies.ensemble import Ensemble
from jist.strategies.fused import FusedOutput
from jist.strategies.ist import IST
from jist.strategies.lazy import LazyRows
from jist.strategies.local import softmax_cross_entropy
from jist.strategies.local_sgd import LocalSGD
from jist.strategies.outer import nesterov
from jist.strategies.participation import participants
from jist.strategies.rounding import stochastically_rounded
from jist.strategies.state import State
from jist.strategies.strategy import Strategy

__all__ = [
    "IST",
    "Centralized",
    "DataParallel",
    "DiLoCo",
    "Ensemble",
    "FusedOutput",
    "LazyRows",
    "LocalSGD",
    "State",
    "Strategy",
    "nesterov",
    "participants",
    "softmax_cross_entropy",
    "stochastically_rounded",
    "workers_mesh",
]
