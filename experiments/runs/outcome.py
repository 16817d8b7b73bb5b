"""What a result says of a training that has ended."""

from typing import Any

from experiments.command.options import StrategyOptions
from experiments.runs.plan import Training
from experiments.runs.splits import Split
from jist import costs
from jist.strategies import participants
from jist.tasks import Task


def bytes_by_paper(
    how: StrategyOptions, batch_size: int, widths: tuple[int, ...], last: dict[str, Any]
) -> int | None:
    """Bytes a worker has received by the formulas of VLDB 2022, §2.3; None if no formula fits."""
    match how.strategy:
        case "ist" if how.replicas == 1:
            share = participants(how.workers, how.participation) / how.workers
            return round(costs.ist_bytes_paper(widths, how.workers, 1) * last["round"] * share)
        case "data_parallel":
            steps = last["examples_seen"] // (how.workers * batch_size)
            return costs.data_parallel_bytes_paper(widths) * steps
        case "centralized":
            return 0
    return None


def masks_seen(split: Split, training: Training) -> tuple[str, float]:
    """The name of the masks in results, and the share of patches that they remove.

    For natural masks and masked data sets both are read from the features; clips and vectors have
    none.
    """
    if "masks" not in split.attributes:  # no images
        return "none", 0.0
    masks = split.attributes["masks"]
    if "missing_share" not in split.attributes:
        return training.mask, training.mask_ratio
    share = masks["ratio"] if masks["name"] == "fixed" else split.attributes["missing_share"]
    return masks["name"], round(share, 4)


def missing_seen(split: Split) -> dict[str, float]:
    """The share of the training images' pixels that is missing, under natural masks."""
    share = split.attributes.get("missing_pixels")
    return {} if share is None else {"missing_pixels": round(share, 4)}


def other_metrics(last: dict[str, Any], task: Task) -> dict[str, Any]:
    """Further metrics of the last epoch on the test examples."""
    known = ("test_loss", f"test_{task.best}")
    return {
        f"last_{name}": value
        for name, value in last.items()
        if name.startswith("test_") and name not in known
    }


def chosen(history: list[dict[str, Any]], task: Task) -> dict[str, Any]:
    """The task's metric in the last epoch of a training and in its best ones.

    The paper prints the best accuracy on the test images, so its epoch is chosen on the images that
    measure it. The epoch chosen by held-out training images does not have this bias.
    """
    pick = max if task.higher_is_better else min
    test, validation = f"test_{task.best}", f"validation_{task.best}"
    best, last = pick(history, key=lambda metrics: metrics[test]), history[-1]
    found = {
        "metric": task.best,
        f"best_{test}": best[test],
        "best_epoch": best["epoch"],
        f"last_{test}": last[test],
        f"{test}_per_epoch": [metrics[test] for metrics in history],
    }
    if all(validation in metrics for metrics in history):
        by_validation = pick(history, key=lambda metrics: metrics[validation])
        found |= {
            f"best_{validation}": by_validation[validation],
            "best_validation_epoch": by_validation["epoch"],
            f"{test}_at_best_validation": by_validation[test],
        }
    return found
