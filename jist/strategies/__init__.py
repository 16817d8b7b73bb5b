"""How n workers train one model; one interface, so that a baseline is swapped by one word."""

from jist.placement import workers_mesh as workers_mesh
from jist.strategies.centralized import Centralized as Centralized
from jist.strategies.data_parallel import DataParallel as DataParallel
from jist.strategies.ensemble import Ensemble as Ensemble
from jist.strategies.ist import IST as IST
from jist.strategies.local import softmax_cross_entropy as softmax_cross_entropy
from jist.strategies.local_sgd import LocalSGD as LocalSGD
from jist.strategies.strategy import State as State
from jist.strategies.strategy import Strategy as Strategy
