"""A classification run: examples -> features -> trained heads -> results.

Under `jax.distributed` every process trains; only the first extracts features, prints and writes,
on a file system that all share.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from rich.progress import Progress

from experiments.command.errors import UsageError
from experiments.runs.bands import in_full
from experiments.runs.calibration import Truth, results_of, spared_count, spared_rows, truth_of
from experiments.runs.directory import RunDirectory
from experiments.runs.heads import say_exchange, validation_rows, worker_pools
from experiments.runs.images import RANDOM_ENCODERS, progress_bar
from experiments.runs.inputs import Inputs, open_inputs
from experiments.runs.label_truth import label_truth_of
from experiments.runs.many_labels import ManyLabelInputs
from experiments.runs.outcome import (
    bytes_by_paper,
    chosen,
    masks_seen,
    missing_seen,
    other_metrics,
)
from experiments.runs.plan import Plan, Training
from experiments.runs.remarks import say_batch, say_once
from experiments.runs.restored import strategy_of
from experiments.runs.splits import Split
from jist import features, trainer
from jist.evaluation import predict
from jist.metrics import MetricsLog
from jist.tasks import Examples
from jist.trained import Calibrated


def run_plan(
    plan: Plan,
    run_dir: pathlib.Path,
    *,
    features_dir: pathlib.Path | None = None,
    devices: int | None = None,
    checkpoint_every: int | None = None,
) -> list[dict[str, Any]]:
    """Runs the trainings of a plan that have no result yet.

    A plan with more epochs than the existing run extends its trainings. Until a training is
    extended to the end, its result is that of the shorter one.

    Args:
        plan: the trainings and their options.
        run_dir: the run directory; made, or resumed.
        features_dir: where features are kept; `run_dir/features` by default.
        devices: devices that share the workers; by default the most that are there.
        checkpoint_every: rounds between checkpoints within an epoch; none by default.

    Returns:
        All results of the plan, in its order.
    """
    plan, inputs = resolved(plan)
    run = RunDirectory(
        run_dir, plan.config(), growing=("head.epochs",), data_dir=plan.images.data_dir
    )
    first = jax.process_index() == 0
    there = run.results()
    todo = [training for training in plan.trainings if not plan.is_done(training, there)]
    if not todo:
        if first:
            print(f"nothing to do: {run_dir} holds the results of all its trainings")
    else:
        check_trainings(plan, todo, inputs, devices)
        run.pin(inputs.pinned)
        features_dir = features_dir or run_dir / "features"
        run.note_features(features_dir)
        if first and inputs.facts["encoder"] in RANDOM_ENCODERS:
            print(
                "the encoder is randomly initialised, not pre-trained: accuracies show that the "
                "system works, not what it can do"
            )
        if first and plan.images.simulate_clouds is not None:
            print("the clouds are simulated: results are marked so")
        with progress_bar() as progress:
            for ratio in dict.fromkeys(training.mask_ratio for training in todo):
                splits = inputs.splits(ratio, features_dir, progress)
                for training in todo:
                    if training.mask_ratio == ratio:
                        result = train_head(
                            *(run, splits, plan, training, inputs, progress, devices),
                            checkpoint_every=checkpoint_every,
                        )
                        run.add_result(result, splits["train"].attributes["class_names"])
    results = run.results()
    return [results[training.name] for training in plan.trainings]


def resolved(plan: Plan) -> tuple[Plan, Inputs]:
    """The plan with everything that its data decide, and the data.

    Validation examples that the data bring choose the epoch and fit the temperature, so that no
    training examples are held out.

    Raises:
        UsageError: training examples are asked for, too; or as `in_full` and `open_inputs`.
    """
    images = in_full(plan.images)
    inputs = open_inputs(images)
    if isinstance(inputs, ManyLabelInputs) and images.multilabel_loss == "squared":
        say_once(
            "outputs of squared errors, cut to [0, 1], stand for probabilities: nothing is fitted"
        )
        plan = dataclasses.replace(plan, head=dataclasses.replace(plan.head, calibration=0))
    if "validation" not in inputs.split_names:
        return dataclasses.replace(plan, images=images), inputs
    if plan.head.validation:
        raise UsageError(
            f"--validation {plan.head.validation:g} holds out training examples, and "
            f"{images.dataset} brings a validation split: leave --validation out to use that"
        )
    say_once(
        f"{images.dataset} brings a validation split: it chooses the best epoch"
        " and fits the temperature"
    )
    head = dataclasses.replace(plan.head, calibration=0)
    return dataclasses.replace(plan, images=images, head=head, own_validation=True), inputs


def check_trainings(
    plan: Plan, trainings: list[Training], inputs: Inputs, devices: int | None
) -> None:
    """Checks the options of trainings before any feature is computed.

    Raises:
        ValueError: as `build_strategy`, `HeadOptions.batch_of` and `worker_pools`; a random mask
            where nothing can be masked.
        DataError: the data set is not there, or is none.
    """
    count, labels = inputs.train_labels
    for training in trainings:
        how, head = training.how, plan.head_of(training)
        if head.lazy_rows and not inputs.sparse_rows:
            raise UsageError(f"--lazy-rows needs sparse rows; {plan.images.dataset} holds none")
        if head.fused_output:
            check_fused(inputs, plan)
        strategy_of(inputs, inputs.outputs, plan, training, devices)
        left = count if head.validation else count - spared_count(count, head.calibration)
        head.batch_of(how.workers, round(left * (1 - head.validation)))
        worker_pools(how, labels, plan.images.seed)
        inputs.renewed(training.mask, training.mask_ratio)


def check_fused(inputs: Inputs, plan: Plan) -> None:
    """Raises where the output layer cannot take its step a chunk of labels at a time."""
    if not isinstance(inputs, ManyLabelInputs):
        raise UsageError(f"--fused-output needs many labels; {plan.images.dataset} has classes")
    options = inputs.options
    for name, value, wrong in (
        ("negatives", options.negatives, options.negatives > 0),
        ("multilabel-loss", options.multilabel_loss, options.multilabel_loss == "softmax"),
    ):
        if wrong:
            raise UsageError(f"--fused-output cannot be used with --{name} {value}")


def truth_on(tests: Any, found: Calibrated, workers: int, inputs: Inputs) -> Truth:
    """How true the probabilities of a trained network are on its test examples."""
    if isinstance(inputs, ManyLabelInputs):
        return label_truth_of(found.model, tests, found.scaling, inputs.options.multilabel_loss)
    logits, of = np.asarray(predict(found.model, tests["x"])), np.asarray(tests["y"])
    return truth_of(logits, of, workers, found.temperature)


def train_head(
    run: RunDirectory,
    splits: Mapping[str, Split],
    plan: Plan,
    training: Training,
    inputs: Inputs,
    progress: Progress,
    devices: int | None,
    *,
    checkpoint_every: int | None = None,
) -> dict[str, Any]:
    """Trains one head, or resumes training it, and returns its result.

    Random masks and augmentation apply to training examples only; evaluation uses the stored
    features.
    """
    how, head, seed = training.how, plan.head_of(training), plan.images.seed
    strategy = strategy_of(inputs, inputs.outputs, plan, training, devices)
    own = splits["validation"] if plan.own_validation else None
    validation = validation_rows(splits["train"], head.validation, seed)
    spared = spared_rows(splits["train"], head, seed)
    held = validation | spared
    fixed, count = splits["train"].examples(~held), int((~held).sum())
    batch_size = head.batch_of(how.workers, count)
    say_batch(batch_size, head.batch_size, how.workers, count)
    head = dataclasses.replace(head, batch_size=batch_size)
    say_exchange(how, strategy)
    labels, streamed = splits["train"].label, splits["train"].streamed
    if streamed and jax.process_index() == 0:
        size = 4e-9 * sum(map(len, splits.values())) * inputs.dim
        print(f"{size:.1f} GB of features stay on disk: more than --resident-gb")
    train: Examples | trainer.Renewed = fixed
    renewed = inputs.renewed(training.mask, training.mask_ratio)
    if renewed is not None:
        train = trainer.Renewed(fixed, lambda epoch: {**fixed, "x": renewed(epoch)[~held]})
    mask, ratio = masks_seen(splits["train"], training)
    examples = {
        name: splits["train"].examples(rows) if rows.any() else None
        for name, rows in (("validation", validation), ("spared", spared))
    }
    if own is not None:
        examples["validation"] = own.examples()
    temperature_examples = examples["validation"] or examples["spared"]
    run.note_devices(training.name, strategy.mesh.size, head.epochs)
    tags = {"strategy": how.strategy, "workers": how.workers, "ratio": ratio}
    with MetricsLog(run.path, training.name, tags) as log:
        history = trainer.train(
            strategy,
            train,
            splits["test"].examples(),
            epochs=head.epochs,
            batch_size=batch_size,
            seed=seed,
            checkpoints=run.path / "checkpoints" / training.name,
            log=log,
            task=inputs.task,
            validation_examples=examples["validation"],
            temperature_examples=temperature_examples,
            block=features.CHUNK if streamed else None,
            checkpoint_every=checkpoint_every,
            pools=worker_pools(how, None if labels is None else labels[~held], seed),
            progress=progress,
            description=f"{how.strategy}, {how.workers} worker(s)"
            + ("" if mask == "none" else f", {mask} masks, ratio {ratio:g}"),
        )
    found = trainer.restore_calibrated(
        strategy,
        run.path / "checkpoints" / training.name,
        "last",
        task=inputs.task,
        validation=plan.validated,
    )
    truth = truth_on(splits["test"].examples(), found, how.workers, inputs)
    last = history[-1]
    widths = (inputs.dim, *head.hidden, inputs.outputs)
    return {
        "run": training.name,
        "dataset": plan.images.dataset,
        **inputs.facts,
        "feature_dim": inputs.dim,
        "mask": mask,
        "ratio": ratio,
        **missing_seen(splits["train"]),
        "max_missing": plan.images.max_missing,
        "no_data": plan.images.no_data,
        **dataclasses.asdict(how),
        "exchange": strategy.exchange,
        **{name: of for name, of in dataclasses.asdict(head).items() if name != "preset"},
        "seed": seed,
        "streamed": streamed,
        "train_examples": count,
        "validation_examples": int(validation.sum()) if own is None else len(own),
        "own_validation": plan.own_validation,
        "calibration_examples": int(spared.sum()),
        "test_examples": len(splits["test"]),
        "empty_examples": sum(len(s.attributes.get("empty", ())) for s in splits.values()),
        **chosen(history, inputs.task),
        "last_test_loss": last["test_loss"],
        **results_of(truth),
        **other_metrics(last, inputs.task),
        "rounds": last["round"],
        "examples_seen": last["examples_seen"],
        "parameters_per_worker": strategy.parameters_per_worker,
        "bytes_received_per_worker": last["bytes_received_per_worker"],
        "flops_per_worker": last["flops_per_worker"],
        "bytes_received_per_worker_paper": bytes_by_paper(how, batch_size, widths, last),
        "training_seconds": round(sum(metrics["seconds"] for metrics in history), 3),
    }
