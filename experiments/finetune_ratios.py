r"""A fine-tuned network tested at masking ratios other than the one that it was trained with.

    python -m experiments.finetune_ratios --run-dir runs/ft --ratios 0 0.25 0.5 0.75 0.9

Reads the run directory of `experiments.finetune`, restores its last epoch, and measures the test
images under fixed masks of each ratio: what one network loses as patches go missing, and gains
where more of them arrive than it was trained for. Writes `ratios.json` beside the run's results.

Expected for five ratios and 10,000 test images, on 2 CPU cores with AMX: a minute.
"""

import dataclasses
import pathlib

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.runs.directory import read_part, without_notes, write_json
from experiments.runs.finetuning import (
    FinetuneOptions,
    build_classifier,
    build_finetuning,
    build_task,
)
from experiments.runs.images import dataset_of
from jist import trainer
from jist.evaluation import evaluate
from jist.finetuning import MaskedImages
from jist.models import Classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatioOptions(Options):
    """Options of the test."""

    run_dir: pathlib.Path = pathlib.Path("runs/finetune")
    """The run directory of experiments.finetune."""
    ratios: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9)
    """Masking ratios, each in [0, 1)."""
    data_dir: pathlib.Path | None = None
    """Where TFDS keeps its prepared data sets, or the extracted folder of resisc45 or aid."""


def main(options: RatioOptions) -> None:
    """Restores, tests, prints and writes."""
    finetune = read_options(options)
    task = build_task(finetune)
    tests = dataset_of(finetune.images, "test")
    trained_on = read_part(options.run_dir, "summary.json")["results"][0]["train_examples"]
    model = build_classifier(finetune, len(tests.class_names))
    strategy = build_finetuning(finetune, model, task, trained_on)
    checkpoints = options.run_dir / "checkpoints"
    model = trainer.restore_model(strategy, checkpoints, "last", task=task)
    assert isinstance(model, Classifier)
    found = {}
    for ratio in options.ratios:
        images = MaskedImages(tests, model.encoder, ratio=ratio, seed=finetune.seed)
        found[f"{ratio:g}"] = evaluate(model, images.fixed, task)
        print(f"ratio {ratio:g}: {found[f'{ratio:g}']['test_accuracy']:.2%}")
    file = options.run_dir / "ratios.json"
    write_json(file, {"trained_at": finetune.mask_ratio, "ratios": found})
    print(f"written: {file}")


def read_options(options: RatioOptions) -> FinetuneOptions:
    """The options of the run.

    Raises:
        ValueError: it is no run of experiments.finetune.
    """
    config = without_notes(read_part(options.run_dir, "config.json"))
    if config.pop("experiment") != "finetune":
        raise UsageError(f"run_dir={options.run_dir} is no run of experiments.finetune")
    config |= {"neurons": tuple(config["neurons"]), "data_dir": options.data_dir}
    return FinetuneOptions(**config, run_dir=options.run_dir)


if __name__ == "__main__":
    run(main, RatioOptions, __doc__ or "")
