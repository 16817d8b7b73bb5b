"""The accuracy after every round, computed once for all links.

What a training learns does not depend on the link, so it is learned in one process: workers are a
logical axis of jist. The nodes' losses must be those of the curve, or the cell is refused.
"""

import pathlib
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.bench.mlp_work import arrays
from experiments.network.training import Training
from experiments.runs.directory import read_json, write_json
from jist.evaluation import evaluate
from jist.models import calibrate
from jist.trainer import calibration_subset

# After so many rounds the parameters are kept, for those of PyTorch to be compared with.
CHECK_ROUNDS = 2
# How far losses of the first round may lie apart, relative. In later rounds rounding has grown: at
# high rates local SGD is chaotic, and differences grow a hundredfold in a round.
LOSS_TOLERANCE = 1e-3
CALIBRATION = 2048


def curve(
    training: Training, test: dict[str, np.ndarray], target: float, file: pathlib.Path
) -> dict[str, Any]:
    """Loss and test accuracy after every round, until an accuracy is reached or the epochs end.

    Args:
        training: what is trained.
        test: the test examples.
        target: accuracy after which nothing more is trained.
        file: where the curve is kept; what is there is taken. Beside it, as `.npz`, the parameters
            at the start and after `CHECK_ROUNDS` of the default network.

    Returns:
        {"losses", "accuracies", "steps" (of a round), "bytes_received" (by a worker in a round, as
        jist counts them), "flops" (of a worker's matrix products in a round)}.
    """
    if file.exists():
        return read_json(file)
    found, kept = learned(training, test, target)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file.with_suffix(".npz"), allow_pickle=False, **kept)
    write_json(file, found)
    return found


def learned(
    training: Training,
    test: dict[str, np.ndarray],
    target: float,
    *,
    most_rounds: int | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `curve` returns, and the parameters that it keeps.

    Args:
        training: what is trained.
        test: the examples on which accuracy is read.
        target: accuracy after which nothing more is trained.
        most_rounds: at most so many rounds are trained; by default those of the epochs.
    """
    strategy = training.strategy
    examples = {name: jax.device_put(array) for name, array in training.examples.items()}
    state = strategy.init(training.seed)
    kept = _parameters(strategy.model(state), "start")
    losses, accuracies = [], []
    sample = calibration_subset(training.examples, CALIBRATION, training.seed)["x"]
    most = min(training.most_rounds, most_rounds or training.most_rounds)
    for number in range(most):
        state, metrics = strategy.round(state, examples, training.order(number))
        losses.append(float(np.mean(np.asarray(metrics["loss"]))))
        model = strategy.model(state)
        if number + 1 == CHECK_ROUNDS:
            kept |= _parameters(model, "after")
        calibrate(model, sample)
        accuracies.append(evaluate(model, test)["test_accuracy"])
        if accuracies[-1] >= target and number + 1 >= CHECK_ROUNDS:
            break
    steps = training.how.local_steps
    found = {
        "losses": losses,
        "accuracies": accuracies,
        "steps": steps,
        "bytes_received": strategy.bytes_received(1, steps),
        "flops": steps * strategy.flops_per_step(examples, training.batch_size),
    }
    return found, kept


def check_losses(ours: list[float], theirs: list[float], whose: str) -> float:
    """The relative difference between the losses of the first round.

    Args:
        ours: those of the curve.
        theirs: those of the nodes.
        whose: the cell, for the message.

    Raises:
        RuntimeError: it is more than `LOSS_TOLERANCE`.
    """
    apart = abs(theirs[0] / ours[0] - 1)
    if not apart <= LOSS_TOLERANCE:  # NaN is further apart than anything
        raise RuntimeError(
            f"the losses of {whose} are {apart:.2g} off those of the same training in one process, "
            "so its times say nothing"
        )
    return apart


def _parameters(model: nnx.Module, name: str) -> dict[str, np.ndarray]:
    found = arrays(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    return {f"{name}{number}": np.array(array) for number, array in enumerate(found)}


def read_parameters(file: pathlib.Path, name: str) -> list[np.ndarray]:
    """Parameters that a curve has kept, "start" or "after": kernels [in, out], the last bias."""
    with np.load(file.with_suffix(".npz")) as kept:
        count = sum(key.startswith(name) for key in kept.files)
        return [kept[f"{name}{number}"] for number in range(count)]
