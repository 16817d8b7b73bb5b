"""The names of a ResNet-50's tensors in each kind of source, mapped to jist's.

torchvision's naming is also that of NVIDIA's older DeepLearningExamples files; their newer models
say `layers.0` for `layer1`. Hugging Face has its own.
"""

from collections.abc import Callable

from conversion.layouts import CONVOLUTION
from conversion.names import Naming, Rule
from jist.models.resnet import STAGES


def _convolution(jist: str, source: str) -> Rule:
    return Rule(f"{jist}.kernel", (f"{source}.weight",), CONVOLUTION)


def _norm(jist: str, source: str) -> tuple[Rule, ...]:
    fields = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return tuple(Rule(f"{jist}.{ours}", (f"{source}.{its}",)) for ours, its in fields.items())


def _rules(
    stem: tuple[str, str],
    block: Callable[[int, int], str],
    convolution: Callable[[int], str],
    normalization: Callable[[int], str],
    shortcut: tuple[str, str],
) -> tuple[Rule, ...]:
    rules = [_convolution("conv", stem[0]), *_norm("norm", stem[1])]
    place = 0
    for stage, (_, depth) in enumerate(STAGES):
        for i in range(depth):
            ours, its = f"blocks.{place}.", f"{block(stage, i)}."
            for n in (1, 2, 3):
                rules.append(_convolution(f"{ours}conv{n}", its + convolution(n)))
                rules.extend(_norm(f"{ours}norm{n}", its + normalization(n)))
            if i == 0:
                rules.append(_convolution(f"{ours}shortcut_conv", its + shortcut[0]))
                rules.extend(_norm(f"{ours}shortcut_norm", its + shortcut[1]))
            place += 1
    return tuple(rules)


def _torchvision(name: str, block: Callable[[int, int], str]) -> Naming:
    return Naming(
        name=name,
        family="torchvision",
        encoder=_rules(
            ("conv1", "bn1"),
            block,
            lambda n: f"conv{n}",
            lambda n: f"bn{n}",
            ("downsample.0", "downsample.1"),
        ),
        extra=r"fc\..*|.*\.num_batches_tracked",
    )


def _huggingface(name: str, prefix: str) -> Naming:
    return Naming(
        name=name,
        family="huggingface",
        encoder=_rules(
            (
                f"{prefix}embedder.embedder.convolution",
                f"{prefix}embedder.embedder.normalization",
            ),
            lambda stage, i: f"{prefix}encoder.stages.{stage}.layers.{i}",
            lambda n: f"layer.{n - 1}.convolution",
            lambda n: f"layer.{n - 1}.normalization",
            ("shortcut.convolution", "shortcut.normalization"),
        ),
        extra=r"classifier\..*|.*\.num_batches_tracked",
    )


RESNET_NAMINGS = (
    _torchvision("torchvision", lambda stage, i: f"layer{stage + 1}.{i}"),
    _torchvision("nvidia", lambda stage, i: f"layers.{stage}.{i}"),
    _huggingface("huggingface-resnet", "resnet."),
    _huggingface("huggingface-resnet-bare", ""),
)
