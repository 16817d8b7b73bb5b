"""How large a data set of masked images is, at each ratio: the paper's formula and true bytes."""

import dataclasses

from experiments.figures.paper import FEATURES, IMAGE_SIZE, PATCHES, RATIOS, PaperDataset
from experiments.figures.summaries import Method, Table
from jist import costs

FIXED = Method("centralized", 1, "fixed")


@dataclasses.dataclass(frozen=True)
class SizeRow:
    """One column of Table 4.

    Attributes:
        ratio: masking ratio.
        examples: number of training images.
        formula_bytes: masked images by the paper's formula.
        true_bytes: kept patches, one byte a channel, and their indices; images larger than the
            encoder's input count at the size of that input.
        cls_bytes: CLS vectors; the formula gives their true size.
        accuracy: best test accuracy of centralised training with fixed masks, in [0, 1]; mean over
            the seeds, None where there is none.
    """

    ratio: float
    examples: int
    formula_bytes: float
    true_bytes: int
    cls_bytes: int
    accuracy: float | None = None


def printed_rows(dataset: PaperDataset) -> list[SizeRow]:
    """The rows of one of the paper's data sets, through its encoder, with its accuracies."""
    return [
        SizeRow(
            ratio=ratio,
            examples=dataset.train,
            formula_bytes=costs.dataset_bytes_paper(dataset.image_size, ratio, dataset.train),
            true_bytes=costs.masked_bytes(
                min(dataset.image_size, IMAGE_SIZE), PATCHES, ratio, dataset.train
            ),
            cls_bytes=costs.cls_bytes_paper(FEATURES, dataset.train),
            accuracy=accuracy,
        )
        for ratio, accuracy in zip(RATIOS, dataset.accuracy, strict=True)
    ]


def measured_rows(table: Table, known: PaperDataset | None) -> list[SizeRow]:
    """The rows of some results, with the accuracy of centralised training on fixed masks.

    Args:
        table: the results of one study; every ratio in it has a row.
        known: the paper's data set, whose image size enters the formula; None takes the encoder's.
    """
    cells = [(ratio, cell) for line in table.values() for ratio, cell in line.items()]
    shape = cells[0][1].results[0]
    examples, side = shape["train_examples"], shape["image_size"]
    patches = (side // shape["patch_size"]) ** 2
    original = known.image_size if known else side
    fixed = table.get(FIXED, {})
    return [
        SizeRow(
            ratio=ratio,
            examples=examples,
            formula_bytes=costs.dataset_bytes_paper(original, ratio, examples),
            true_bytes=costs.masked_bytes(min(original, side), patches, ratio, examples),
            cls_bytes=costs.cls_bytes_paper(shape["feature_dim"], examples),
            accuracy=fixed[ratio].mean("best_test_accuracy") if ratio in fixed else None,
        )
        for ratio in sorted({ratio for ratio, _ in cells})
    ]
