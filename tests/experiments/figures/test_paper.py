"""The paper's formulas give the numbers that it prints."""

import pytest

from experiments.figures import paper
from jist import costs


@pytest.mark.parametrize("dataset", paper.DATASETS, ids=lambda dataset: dataset.name)
def test_sizes_of_table_4_to_the_last_printed_digit(dataset):
    rows = [
        paper.as_printed(costs.dataset_bytes_paper(dataset.image_size, ratio, dataset.train))
        for ratio in paper.RATIOS
    ]
    assert tuple(rows) == dataset.masked_gigabytes
    size = costs.cls_bytes_paper(paper.FEATURES, dataset.train)
    digits = len(dataset.cls_gigabytes.split(".")[1])
    assert paper.as_printed(size, digits) == dataset.cls_gigabytes


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("cifar10", "CIFAR10"),
        ("folder:data/cifar10", "CIFAR10"),
        ("folder:/images/AID/", "AID"),
        ("resisc45", "RESISC45"),
        ("folder:small_cifar10", "CIFAR10"),
        ("digits", None),
        ("folder:data/cifar100", None),
    ],
)
def test_data_sets_are_recognised_by_name(name, found):
    dataset = paper.find(name)
    assert (dataset and dataset.name) == found
