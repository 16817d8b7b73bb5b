"""From a source to a directory of jist, tensor by tensor."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import nnx

from conversion import VERSION, published
from conversion.errors import ConversionError, some
from conversion.names import Rule
from conversion.overrides import Overrides
from conversion.plan import Plan, make_plan
from conversion.source import Source, open_source
from conversion.time_steps import one_step
from conversion.wavelengths import for_wavelengths
from conversion.writer import blank, write_safetensors
from jist.models import MAE, DecoderConfig, MAEEncoder, Preprocessing, ResNet50, weights
from jist.models.abstract import abstract
from jist.models.storage import staged, tensors, write_arrays

Report = Callable[[str], None]


def convert(
    name: str,
    destination: pathlib.Path,
    overrides: Overrides,
    *,
    overwrite: bool = False,
    verify: Callable[[Source, Plan, pathlib.Path], None] | None = None,
    report: Report = print,
) -> None:
    """Converts a source.

    Args:
        name: file, directory or Hugging Face id.
        destination: the directory to write, whole or not at all.
        overrides: sizes and preprocessing given by the user.
        overwrite: whether a destination of the same kind is replaced.
        verify: called with the source, its plan and the finished directory, before the directory
            is renamed; raises if the outputs do not agree.
        report: receives the report, line by line.

    Raises:
        ConversionError: the source cannot be converted.
        FileExistsError: the destination exists.
    """
    source = for_wavelengths(one_step(open_source(name)), overrides.wavelengths)
    plan = make_plan(source, overrides)
    with staged(destination, overwrite=overwrite) as staging:
        sha, md5 = published.digests(source.files)
        report(f"source   {name}: {source.kind}, {plan.naming.name} names, SHA-256 {sha}")
        for line in _describe(source, plan, overrides) + published.remarks(name, plan, md5):
            report(line)
        _write_parts(source, plan, staging)
        _write_extra(source, plan, staging)
        config = _config(plan) | {"source": _provenance(source, plan, name, sha)}
        (staging / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if verify is not None:
            verify(source, plan, staging)
    report(f"wrote    {destination}")


def expected_shapes(plan: Plan) -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of the tensors of every part, from the modules of jist themselves."""

    def shapes(module: nnx.Module) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in tensors(module).items()}

    config = plan.encoder
    if config is None:
        return {"encoder": shapes(abstract(ResNet50))}
    if plan.decoder is None:
        return {"encoder": shapes(abstract(MAEEncoder, config))}
    sizes = {key: value for key, value in plan.decoder.items() if key != "normalize_pixels"}
    try:
        # The number of heads changes no shape; if unknown, any number will do.
        decoder = DecoderConfig(**sizes | {"heads": sizes["heads"] or 1})
    except ValueError as error:
        raise ConversionError(f"decoder: {error}") from None
    mae = abstract(MAE, config, decoder)
    return {"encoder": shapes(mae.encoder), "decoder": shapes(mae.decoder)}


def _write_parts(source: Source, plan: Plan, directory: pathlib.Path) -> None:
    for part, shapes in expected_shapes(plan).items():
        rules = {rule.jist: rule for rule in plan.rules[part]}
        assert rules.keys() == shapes.keys(), rules.keys() ^ shapes.keys()
        _check_shapes(source, rules, shapes)
        arrays = _arrays(source, [(rules[name], shape) for name, shape in shapes.items()])
        blanks = {name: blank(shape) for name, shape in shapes.items()}
        write_safetensors(directory / f"{part}.safetensors", blanks, arrays)


def _check_shapes(
    source: Source, rules: dict[str, Rule], shapes: dict[str, tuple[int, ...]]
) -> None:
    """Compares shapes by converting back, on arrays that take no memory."""
    faults = []
    for name, rule in rules.items():
        for theirs, expected in rule.to_source(blank(shapes[name])):
            found = source.tensors[theirs]
            if found.shape != expected.shape:
                faults.append(f"{theirs} is {list(found.shape)}, expected {list(expected.shape)}")
            elif "float" not in found.dtype:
                faults.append(f"{theirs} holds {found.dtype}, expected floating-point numbers")
    if faults:
        raise ConversionError(f"{source.files[0]} does not fit together: {some(faults)}")


def _arrays(
    source: Source, wanted: list[tuple[Rule, tuple[int, ...]]]
) -> Iterator[tuple[str, np.ndarray]]:
    for rule, shape in wanted:
        parts = [np.asarray(source.tensors[name].read(), np.float32) for name in rule.source]
        for name, part in zip(rule.source, parts, strict=True):
            if not np.isfinite(part).all():
                count = int(np.sum(~np.isfinite(part)))
                raise ConversionError(
                    f"{name} holds {count} numbers that are NaN or infinite in float32"
                )
        array = rule.layout.to_jist(parts)
        assert array.shape == shape
        yield rule.jist, array


def _write_extra(source: Source, plan: Plan, directory: pathlib.Path) -> None:
    if plan.extra:
        arrays = {name: source.tensors[name].read() for name in plan.extra}
        for name, array in arrays.items():
            # NumPy itself has no bfloat16, and the file wants its numbers in order.
            dtype = np.float32 if array.dtype.name == "bfloat16" else array.dtype
            arrays[name] = np.array(array, dtype, order="C")
        write_arrays(arrays, directory / "extra.safetensors")


def _config(plan: Plan) -> dict[str, Any]:
    preprocessing = {"preprocessing": plan.preprocessing.as_json()}
    if plan.encoder is None:
        return {"format": weights.RESNET_FORMAT, "version": weights.VERSION} | preprocessing
    config: dict[str, Any] = {
        "format": weights.FORMAT,
        "version": weights.VERSION,
        "encoder": plan.encoder.as_json(),
    }
    return config | preprocessing | ({"decoder": plan.decoder} if plan.decoder else {})


def _provenance(source: Source, plan: Plan, name: str, sha: str) -> dict[str, Any]:
    return {
        "format": plan.naming.family,
        "naming": plan.naming.name,
        "name": pathlib.Path(name).name if pathlib.Path(name).exists() else name,
        **({} if source.revision is None else {"revision": source.revision}),
        "kind": source.kind,
        "files": [file.name for file in source.files],
        "sha256": sha,
        "dtypes": sorted({source.tensors[name].dtype for name in _used(plan)}),
        "config": source.config,
        "preprocessor": source.preprocessor,
        "conversion_version": VERSION,
    }


def _used(plan: Plan) -> list[str]:
    return [name for rules in plan.rules.values() for rule in rules for name in rule.source]


def _describe(source: Source, plan: Plan, overrides: Overrides) -> list[str]:
    lines = []
    if plan.encoder is None:
        lines.append("encoder  ResNet-50 v1.5, 2048 features")
    else:
        e = plan.encoder
        bands = "" if e.channels == 3 else f"{e.channels} channels, "
        lines.append(
            f"encoder  {e.image_size} px, {bands}patch {e.patch_size}, {e.dim} wide, "
            f"{e.depth} deep, {e.heads} heads, MLP {e.mlp_dim}, LayerNorm eps {e.layer_norm_eps:g}"
        )
    if plan.decoder:
        d = plan.decoder
        lines.append(
            f"decoder  {d['dim']} wide, {d['depth']} deep, {d['heads'] or 'unknown'} heads, "
            f"MLP {d['mlp_dim']}, {'normalised' if d['normalize_pixels'] else 'plain'} pixels"
        )
        if d["heads"] is None:
            lines.append(
                "warning: no tensor shows the decoder's heads, so it is written but cannot be "
                "rebuilt; --decoder-heads says how many"
            )
    lines.append(_describe_pixels(source, plan.preprocessing, overrides))
    lines += _describe_resizing(source.preprocessor or {}, plan.preprocessing.resize)
    lines += _describe_extra(source, plan)
    other = sorted({source.tensors[name].dtype for name in _used(plan)} - {"float32"})
    if other:
        lines.append(f"note     tensors in {', '.join(other)} are converted to float32")
    return lines


def _describe_pixels(source: Source, wanted: Preprocessing, overrides: Overrides) -> str:
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (wanted.mean, wanted.std))
    said = source.preprocessor or (source.config or {}).get("pretrained_cfg")
    how = "as its files say" if said else "assumed: no file beside it says how"
    given = [f"--{name}" for name in ("mean", "std") if getattr(overrides, name)]
    how = f"{' and '.join(given)} as given, the rest {how}" if given else how
    resized = wanted.interpolation + ("" if wanted.resize == "crop" else f", {wanted.resize}")
    return f"pixels   less {mean}, over {std}, {resized}; {how}"


def _describe_resizing(said: Mapping[str, Any], resize: str = "crop") -> list[str]:
    """What an image processor does to the shape of images and jist does not."""
    lines, size, crop = [], said.get("size"), said.get("crop_size")
    if said.get("do_pad") or not said.get("do_resize", True):
        lines.append(f"do_pad={said.get('do_pad')}, do_resize={said.get('do_resize')}")
    if isinstance(size, dict) and "shortest_edge" in size and said.get("do_center_crop"):
        edge, kept = size["shortest_edge"], min(crop.values()) if isinstance(crop, dict) else crop
        if kept != edge:
            lines.append(f"shorter side {edge}, central crop {kept}")
    elif isinstance(size, dict) and size.keys() >= {"height", "width"} and resize != "squash":
        lines.append("images that are not square are squashed (--resize squash)")
    return [
        f"note     preprocessor_config.json: {line}; not followed: jist {_DONE[resize]}"
        for line in lines
    ]


_DONE = {
    "crop": "scales the shorter side to the encoder's size and cuts the centre",
    "squash": "scales both sides to the encoder's size",
    "pad": "scales the longer side to the encoder's size and pads the other",
}


def _describe_extra(source: Source, plan: Plan) -> list[str]:
    lines = []
    names = set(plan.extra)
    if "head.1.weight" in names:
        lines.append(f"head     of a linear probe: {_classes(source, 'head.1.weight')}")
    for name in ("head.weight", "classifier.weight", "classifier.1.weight", "fc.weight"):
        if name in names:
            lines.append(f"head     of a fine-tuned classifier: {_classes(source, name)}")
    if lines:
        lines.append("         heads are kept in extra.safetensors, and not used")
    if plan.naming.name == "facebook-average":
        lines.append(
            "warning: this classifier averages the patch tokens; its LayerNorm (fc_norm) becomes "
            "the encoder's last one, but CLS was not trained for it"
        )
    return lines


def _classes(source: Source, name: str) -> str:
    return f"{source.tensors[name].shape[0]} classes ({name})"
