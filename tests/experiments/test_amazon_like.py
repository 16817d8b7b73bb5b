"""Synthetic examples of Amazon-670k's shape: text, size, and what is planted in them."""

import numpy as np
import pytest

from experiments import amazon_like
from experiments.amazon_like import AmazonLikeOptions
from jist.data.sparse import load_xc, synthetic
from jist.data.sparse.synthetic import AmazonLike


def test_the_text_holds_the_examples_that_the_seed_gives(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(synthetic, "BLOCK", 40)
    monkeypatch.setattr(amazon_like, "BLOCK", 40)
    options = AmazonLikeOptions(out=tmp_path, scale=1e-3, examples_scale=2e-4, seed=3)
    amazon_like.main(options)
    assert "98 synthetic examples" in capsys.readouterr().out
    read = load_xc(tmp_path, "train")
    made = AmazonLike(136, 670, seed=3).examples("train", 98)
    assert (read.feature_count, read.label_count, len(read)) == (136, 670, 98)
    assert read.describe()["examples_sha256"] == made.describe()["examples_sha256"]
    other = AmazonLike(136, 670, seed=4).examples("train", 98)
    assert other.describe()["examples_sha256"] != made.describe()["examples_sha256"]
    assert len(load_xc(tmp_path, "test")) == 31
    with pytest.raises(ValueError, match=r"must hold no train.txt yet"):
        amazon_like.main(options)
    with pytest.raises(ValueError, match=r"scale must lie in \(0, 1\], got 2"):
        amazon_like.main(AmazonLikeOptions(out=tmp_path, scale=2.0))


def test_the_shape_is_amazons():
    block = AmazonLike().block("train", 0)
    features, labels = np.diff(block.features.offsets), np.diff(block.labels.offsets)
    assert features.mean() == pytest.approx(synthetic.FEATURES_PER_EXAMPLE, rel=0.02)
    assert labels.mean() == pytest.approx(synthetic.LABELS_PER_EXAMPLE, rel=0.02)
    assert (labels.min(), labels.max()) == (1, synthetic.MOST_LABELS)


def test_labels_can_be_told_from_features_by_counting():
    """Naive Bayes on unseen examples, far better than the frequencies of labels."""
    source = AmazonLike(500, 200, seed=0)
    train, test = source.examples("train", 3000), source.examples("test", 300)

    def hot(rows, indices, width):
        array = np.zeros((len(rows), width))
        array[np.repeat(np.arange(len(rows)), np.diff(rows.offsets)), indices] = 1
        return array

    (x, y), (to, true) = (
        (
            hot(some.features, some.features.entries["indices"], 500),
            hot(some.labels, some.labels.entries, 200),
        )
        for some in (train, test)
    )
    scores = to @ np.log((x.T @ y + 1) / (y.sum(0) + 2)) + np.log(y.sum(0) + 1)
    found = true[np.arange(300), scores.argmax(1)].mean()
    frequent = true[:, y.sum(0).argmax()].mean()
    assert found > 5 * frequent
