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
from experiments.runs.directory import write_json
from experiments.runs.end_to_end import build_task
from experiments.runs.finetuning import restore_finetuned
from jist.evaluation import evaluate
from jist.finetuning import MaskedImages


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
    finetune, model, tests = restore_finetuned(options.run_dir, options.data_dir)
    task = build_task(finetune)
    found = {}
    for ratio in options.ratios:
        images = MaskedImages(tests, model.encoder, ratio=ratio, seed=finetune.seed)
        found[f"{ratio:g}"] = evaluate(model, images.fixed, task)
        print(f"ratio {ratio:g}: {found[f'{ratio:g}']['test_accuracy']:.2%}")
    file = options.run_dir / "ratios.json"
    write_json(file, {"trained_at": finetune.mask_ratio, "ratios": found})
    print(f"written: {file}")


if __name__ == "__main__":
    run(main, RatioOptions, __doc__ or "")
