"""What is trained for: the loss, the metrics, and which of them chooses the best epoch.

A task of one's own is a `Task` of two or three functions:

>>> import jax.numpy as jnp
>>> import optax
>>> from jist.tasks import Task
>>> def loss(model, batch):
...     return optax.sigmoid_binary_cross_entropy(model(batch["x"]), batch["y"]).mean()
>>> def counts(model, batch):
...     found, true = model(batch["x"]) > 0, batch["y"] > 0
...     return {"both": jnp.sum(found & true), "found": found.sum(), "true": true.sum()}
>>> def f1(sums):
...     return {"f1": 2 * sums["both"] / (sums["found"] + sums["true"])}
>>> task = Task(loss, counts, f1, best="f1")
"""

from jist.ragged import count
from jist.tasks.classification import classification
from jist.tasks.label_scores import count_scores, thinned
from jist.tasks.multilabel import (
    best_labels,
    inverse_propensities,
    multilabel,
    predict_labels,
    prior_logits,
    prior_outputs,
)
from jist.tasks.regression import regression
from jist.tasks.task import Examples, Task

__all__ = [
    "Examples",
    "Task",
    "best_labels",
    "classification",
    "count",
    "count_scores",
    "inverse_propensities",
    "multilabel",
    "predict_labels",
    "prior_logits",
    "prior_outputs",
    "regression",
    "thinned",
]
