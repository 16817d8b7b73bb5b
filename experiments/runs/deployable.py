"""A trained run as what is exported of it, and some examples to compare programs on."""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.runs.directory import features_of
from experiments.runs.images import ImageInputs, progress_bar
from experiments.runs.inputs import Inputs
from experiments.runs.many_labels import ManyLabelInputs
from experiments.runs.network_images import NetworkInputs
from experiments.runs.trained import TrainedRun
from jist.data import DataError, Dataset, batches
from jist.evaluation import predict
from jist.export import Deployed, architecture, folded_layers
from jist.features import cls_vectors
from jist.label_probabilities import Scaling
from jist.masking import FixedMask, patches_kept
from jist.models import MLP, Classifier, ImageClassifier, SparseMLP
from jist.probabilities import log_probabilities
from jist.ragged import take

TEST = "test examples"
CHECKED = 100  # examples on which a program is compared with jist


@dataclasses.dataclass(frozen=True)
class Deployable:
    """A restored run, with what jist finds for some examples.

    Attributes:
        deployed: what is exported.
        config: what is said of it.
        ratio: share of the patches that the examples lack.
        examples: what it is compared on: test examples, or random images where these are gone.
        arguments: of the program, for the examples.
        probabilities: what jist finds for them [N, C].
    """

    deployed: Deployed
    config: dict[str, Any]
    ratio: float
    examples: str
    arguments: list[np.ndarray]
    probabilities: np.ndarray


def has_rows_or_labels(inputs: Inputs | NetworkInputs) -> bool:
    """Whether a network takes sparse rows or ranks many labels, which few formats hold."""
    if isinstance(inputs, NetworkInputs):
        return False
    return inputs.sparse_rows or isinstance(inputs, ManyLabelInputs)


def deployable(
    run_dir: pathlib.Path,
    opened: TrainedRun,
    training: str,
    *,
    checkpoint: str,
    ratio: float,
    weights: str,
) -> Deployable:
    """A head on frozen features, or a network that was trained end to end.

    Args:
        run_dir: the run directory.
        opened: what `open_run` finds in it.
        training: which of its trainings.
        checkpoint: "last" or "best".
        ratio: share of the patches that the examples lack.
        weights: as what they are stored, of `jist.export.WEIGHTS`.

    """
    restored = opened.restore(training, checkpoint)
    model, class_names, temperature, _ = restored
    inputs, pool = opened.inputs, opened.images.pool
    trained = {"temperature": temperature or 1.0, "weights": weights}
    if isinstance(model, ImageClassifier):
        assert isinstance(inputs, NetworkInputs)
        network = ImageClassifier(  # without the views of training
            model.network, preprocessing=model.preprocessing, rngs=nnx.Rngs(0)
        )
        network.eval()
        deployed = Deployed([], **trained, network=network, image_size=inputs.image_size)
    elif isinstance(model, Classifier):
        model.encoder.eval()
        layers = folded_layers(model.head)
        deployed = Deployed(layers, **trained, encoder=model.encoder, pool=model.pooling)
    else:
        assert isinstance(model, MLP)
        encoder = inputs.encoder if isinstance(inputs, ImageInputs) else None
        if encoder is not None:
            encoder.eval()
        rows = {}
        if isinstance(model, SparseMLP):
            rows = {"sparse": True, "row_length": model.row_length}
        if isinstance(inputs, ManyLabelInputs):
            squared = inputs.options.multilabel_loss == "squared" and temperature is None
            output = "clipped" if squared else "sigmoid"
            rows |= {"output": output, "offset": restored.offset}
        deployed = Deployed(folded_layers(model), **trained, **rows, encoder=encoder, pool=pool)
    examples, arguments, features = some_examples(inputs, deployed, ratio, run_dir)
    logits = np.asarray(predict(model, features))
    if deployed.output == "softmax":
        probabilities = np.exp(log_probabilities(logits, temperature or 1.0))
    else:
        scaling = restored.scaling or Scaling(1.0, 0.0)
        clipped = deployed.output == "clipped"
        probabilities = np.clip(logits, 0, 1) if clipped else scaling.probabilities(logits)
    config = described(deployed, class_names, ratio, opened.max_missing)
    noted = {"run": training, "checkpoint": checkpoint, "dataset": opened.images.dataset}
    return Deployable(deployed, config | noted, ratio, examples, arguments, probabilities)


def some_examples(
    inputs: Inputs | NetworkInputs, deployed: Deployed, ratio: float, run_dir: pathlib.Path
) -> tuple[str, list[np.ndarray], Any]:
    """What they are, the program's arguments for them, and what jist's network is called with."""
    if not isinstance(inputs, ImageInputs | NetworkInputs):
        with progress_bar() as progress:
            split = inputs.splits(ratio, features_of(run_dir), progress)["test"]
        x = split.examples(np.arange(len(split)) < CHECKED)["x"]
        if deployed.sparse:
            x = take(x, np.arange(min(CHECKED, len(split))))
            return TEST, [np.asarray(x[name]) for name in ("indices", "values")], x
        return TEST, [np.asarray(x)], jnp.asarray(x)
    try:
        name, (images, ids) = TEST, first_images(inputs.examples("test"), deployed)
    except (DataError, ValueError):  # a network may leave where its data have not come
        name, (images, ids) = "random images", random_images(deployed)
    encoder = deployed.encoder
    if encoder is None:
        assert isinstance(inputs, NetworkInputs)
        return name, [images], inputs.given(images, None)
    mask = FixedMask(encoder.config.patches, ratio, inputs.options.seed)
    keep = np.asarray(mask(jnp.asarray(ids)))
    arguments = [images, keep] if deployed.sees_patches else [images]
    if isinstance(inputs, NetworkInputs):
        return name, arguments, inputs.given(images, keep)
    encode = nnx.jit(cls_vectors, static_argnames="pool")
    given = jnp.asarray(images), jnp.asarray(keep)
    return name, arguments, encode(encoder, *given, pool=inputs.options.pool)


def first_images(dataset: Dataset, deployed: Deployed) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and ids of the first images of a data set."""
    assert deployed.preprocessing is not None
    found = batches(
        dataset,
        image_size=deployed.side,
        preprocessing=deployed.preprocessing,
        batch_size=CHECKED,
    )
    first = next(iter(found))
    return first.images, first.example_ids


def random_images(deployed: Deployed) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and ids of as many images of noise."""
    assert deployed.preprocessing is not None
    shape = (CHECKED, deployed.side, deployed.side, len(deployed.preprocessing.mean))
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return images, np.arange(CHECKED, dtype=np.uint32)


def described(
    deployed: Deployed, classes: list[str], ratio: float, max_missing: float
) -> dict[str, Any]:
    """What a program that uses the export must know."""
    known = {
        "classes": classes,
        "temperature": deployed.temperature,
        "layers": [list(kernel.shape) for kernel, _ in deployed.layers],
        "activation": "relu",
        "patches": 0,
    }
    encoder, preprocessing = deployed.encoder, deployed.preprocessing
    if preprocessing is None:
        labels = {}
        if deployed.output != "softmax":
            labels = {"output": deployed.output, "offset": deployed.offset}
        rows = {"row_length": deployed.row_length} if deployed.sparse else {}
        kind = {"features": len(deployed.layers[0][0]), "sparse": deployed.sparse}
        return known | kind | rows | labels
    images = {
        "image_size": deployed.side,
        "preprocessing": {"resize": "crop"} | preprocessing.as_json(),
    }
    if encoder is None:
        assert deployed.network is not None
        return known | images | {"network": architecture(deployed.network.network)}
    patches = encoder.config.patches if deployed.sees_patches else 0
    return known | {
        "patch_size": encoder.config.patch_size,
        "patches": patches,
        "visible": patches_kept(patches, ratio) if patches else 0,
        "max_missing": max_missing,
        "pool": deployed.pool,
        **images,
    }
