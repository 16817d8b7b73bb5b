r"""Adds a pre-trained encoder to those that come with the package.

    python -m experiments.probe --encoder runs/pretrain-nano/encoder --dataset folder:data/cifar10 \
        --seeds 0 1 2 --run-dir runs/probe-nano
    python -m experiments.ship --name mae-nano-cifar10 --pretrain-dir runs/pretrain-nano \
        --probe-dir runs/probe-nano --dataset folder:data/cifar10 \
        --data "CIFAR-10 as lossy JPEG copies, 50,000 training images" --hardware "2 CPU cores"

Writes `jist/models/encoders/NAME/`, replacing an existing one: `encoder.safetensors` in float16 (at
most 12 MB), `config.json`, and a model card (`README.md` with `loss.png`) whose numbers are read
from the two run directories; the probe must be of this very encoder. The directory is that of the
imported `jist`, so in an editable installation it is the repository's.
`jist.models.load_encoder(NAME)` then finds it. Expected: seconds.
"""

import dataclasses
import pathlib
import shlex
import shutil
from typing import Any

import jax
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from experiments.command.cli import Options, run
from experiments.command.errors import UsageError
from experiments.runs.directory import COMMAND, read_json
from experiments.runs.pretraining import PretrainOptions
from experiments.runs.probing import PROBES, ProbeOptions, mean_and_deviation
from jist.metrics import read_metrics, read_summary
from jist.models import MAEEncoder, digest, load_encoder, save_encoder
from jist.models.shipped import DIRECTORY

LARGEST_MB = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShipOptions(Options):
    """Options of adding an encoder to the package."""

    name: str
    """Name of the encoder: mae-SIZE-DATA."""
    pretrain_dir: pathlib.Path
    """Run directory of `experiments.pretrain`."""
    probe_dir: pathlib.Path
    """Run directory of `experiments.probe` with this encoder."""
    dataset: str
    """The data set as the card's command names it: folder:data/cifar10."""
    data: str
    """Description of the data, and how they differ from the original data set of that name."""
    hardware: str
    """The hardware of the pre-training."""
    note: str = ""
    """A last paragraph of the model card, such as planned work."""


def main(options: ShipOptions) -> None:
    """Writes encoder, model card and loss curve."""
    encoder = load_encoder(options.pretrain_dir / "encoder")
    check_probe(options.probe_dir, encoder)
    epochs = read_epochs(options.pretrain_dir)
    staging = DIRECTORY / f".{options.name}"
    shutil.rmtree(staging, ignore_errors=True)
    source = {"pretrained_on": options.data, "epochs": epochs[-1]["epoch"]}
    save_encoder(encoder, staging, source=source, stored_dtype=np.float16)
    size_mb = (staging / "encoder.safetensors").stat().st_size / 1e6
    if size_mb > LARGEST_MB:
        shutil.rmtree(staging)
        raise UsageError(
            f"pretrain_dir holds an encoder of {size_mb:.1f} MB in float16; at most {LARGEST_MB} "
            "MB are shipped"
        )
    draw_loss(epochs, staging / "loss.png")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(encoder, nnx.Param)))
    facts = {"parameters": parameters, "size_mb": size_mb, "config": encoder.config}
    (staging / "README.md").write_text(card(options, epochs, facts))
    target = DIRECTORY / options.name
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    print(f"written: {target}, {size_mb:.2f} MB")


def check_probe(probe_dir: pathlib.Path, encoder: MAEEncoder) -> None:
    """Checks that the accuracies are those of this encoder.

    Raises:
        ValueError: they belong to another encoder, or to an earlier state of this one.
    """
    probed = read_json(probe_dir / "config.json")
    if probed.get("encoder_sha256") != digest(encoder):
        raise UsageError(
            f"probe_dir must hold the probe of the encoder in pretrain_dir, as it is now; got that "
            f"of another, {probed['encoder']}"
        )


def read_epochs(pretrain_dir: pathlib.Path) -> list[dict[str, Any]]:
    """The metrics of every epoch that the encoder was trained for."""
    done = read_json(pretrain_dir / "encoder" / "config.json")["source"]["epochs"]
    return [epoch for epoch in read_metrics(pretrain_dir) if epoch["epoch"] <= done]


def command(script: str, kind: type[Options], run_dir: pathlib.Path, **given: Any) -> str:
    """The command that filled a run directory: the one that was run, or its options as one.

    Args:
        script: its name.
        kind: its options; what they leave out of the configuration has no part in the result.
        run_dir: the run directory; an old one does not say its command.
        **given: options of other values than they had, such as paths.
    """
    config = read_json(run_dir / "config.json")
    words = config.get(COMMAND, [])[1:] or _options_of(config, kind)
    options: dict[str, list[str]] = {}
    values: list[str] = []
    for word in words:
        if word.startswith("--"):
            options[word] = values = []
        else:
            values.append(word)
    options.pop("--run-dir", None)  # that is the reader's own
    given = {f"--{name.replace('_', '-')}": [str(value)] for name, value in given.items()}
    options = given | options | given  # in front, as a reader looks for them
    shown = [word for option, values in options.items() for word in (option, *values)]
    return shlex.join(["python", "-m", f"experiments.{script}", *shown])


def _options_of(config: dict[str, Any], kind: type[Options]) -> list[str]:
    """The words of the options of a configuration that are not the defaults."""
    words = []
    for field in dataclasses.fields(kind):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        if field.name in config and config[field.name] != default:
            value = config[field.name]
            words.append(f"--{field.name.replace('_', '-')}")
            values = value if isinstance(value, list) else [value]
            words += [] if value is True else [str(item) for item in values]
    return words


def card(options: ShipOptions, epochs: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The model card, in Markdown."""
    config = facts["config"]
    results = read_summary(options.probe_dir / "summary.json")["results"]
    hours = sum(epoch["seconds"] for epoch in epochs) / 3600
    seed = read_json(options.pretrain_dir / "config.json")["seed"]
    seeds = {result["seed"] for result in results}
    dataset = {"dataset": options.dataset}
    pretrain = command("pretrain", PretrainOptions, options.pretrain_dir, **dataset)
    probe = command("probe", ProbeOptions, options.probe_dir, **dataset, encoder=options.name)
    paragraphs = [
        f"# {options.name}",
        f"The encoder of a masked autoencoder (He et al., arXiv 2111.06377): images of "
        f"{config.image_size} pixels, patches of {config.patch_size}, {config.dim} wide, "
        f"{config.depth} blocks, {config.heads} heads, {facts['parameters']:,} parameters, "
        f"{facts['size_mb']:.2f} MB in float16. Its feature is the CLS token.",
        f"**Data.** {options.data}. Pre-training saw no label, and the training split (of seed "
        f"{seed}) alone.",
        f"**Pre-training.** {epochs[-1]['epoch']} epochs, {hours:.1f} hours on {options.hardware}; "
        f"mean loss of the last epoch {epochs[-1]['loss']:.4f}. The command:",
        f"```\n{pretrain}\n```",
        "![Loss of every epoch](loss.png)",
        f"**Accuracy** on the test images in %, last of {results[0]['epochs']} epochs, "
        f"mean ± deviation of {len(seeds)} seed{'s' if len(seeds) > 1 else ''} (`{probe}`): a "
        "linear probe and the MLP of CPAL 2024 on CLS and, to compare, a linear probe on the mean "
        "of the patch tokens.",
        accuracies(results),
        *([options.note] if options.note else []),
    ]
    return "\n\n".join(paragraphs) + "\n"


def accuracies(results: list[dict[str, Any]]) -> str:
    """The table of accuracies by masking ratio, in Markdown."""
    header = ["masking ratio", *(f"{head} on {kind}" for head, kind in PROBES)]
    rows = [
        [f"{ratio:g}", *(mean_and_deviation(results, ratio, kind, head) for head, kind in PROBES)]
        for ratio in sorted({result["ratio"] for result in results})
    ]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw_loss(epochs: list[dict[str, Any]], path: pathlib.Path) -> None:
    """The mean loss of every epoch."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([epoch["epoch"] for epoch in epochs], [epoch["loss"] for epoch in epochs])
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean squared error, normalised pixels")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run(main, ShipOptions, __doc__ or "")
