"""How n workers train one model; one interface, so that a baseline is swapped by one word."""

from jist.placement import workers_mesh
from jist.strategies.centralized import Centralized
from jist.strategies.data_parallel import DataParallel
from jist.strategies.ensemble import Ensemble
from jist.strategies.ist import IST
from jist.strategies.local import softmax_cross_entropy
from jist.strategies.local_sgd import LocalSGD
from jist.strategies.strategy import State, Strategy

__all__ = [
    "IST",
    "Centralized",
    "DataParallel",
    "Ensemble",
    "LocalSGD",
    "State",
    "Strategy",
    "softmax_cross_entropy",
    "workers_mesh",
]
