"""Images that are not square, cut, squashed or padded, through the scripts."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from experiments import distributed, extract, mask_dataset, predict
from experiments.command.options import ImageOptions
from experiments.runs.finetuning import FinetuneOptions
from experiments.runs.images import build_encoder
from experiments.runs.remarks import say_how_resized, say_once
from jist.data import load_dataset
from jist.features import load
from jist.models import digest, load_encoder

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 64, 3), np.uint8)
OWN = {"encoder": "random-nano", "encode_batch": 16}  # images of 32 pixels, patches of 4


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Images of 64 × 16 pixels, and the same squashed by Pillow, under the same names."""
    root = tmp_path_factory.mktemp("wide")
    for row, pixels in enumerate(PIXELS):
        image = Image.fromarray(pixels)
        for name, of in (("wide", image), ("square", image.resize((32, 32), Image.BICUBIC))):
            path = root / name / "ab"[row % 2] / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            of.save(path)
    return root


def extracted(dataset, out, **options):
    given = OWN | {"mask_ratio": 0.5} | options
    extract.main(extract.ExtractOptions(dataset=dataset, features_dir=out, **given))
    return load(next(out.glob("*-train-*")))


def test_squashed_images_are_those_that_pillow_squashes(wide, tmp_path, capsys):
    squashed = extracted(f"folder:{wide}/wide", tmp_path / "a", resize="squash")
    np.testing.assert_array_equal(
        squashed.cls, extracted(f"folder:{wide}/square", tmp_path / "b").cls
    )
    assert "images of 64 × 16 (the first) are squashed to 32 × 32" in capsys.readouterr().out
    cut = extracted(f"folder:{wide}/wide", tmp_path / "c")
    assert not np.allclose(cut.cls, squashed.cls)

    run_dir = tmp_path / "run"
    small = {"hidden": (8,), "epochs": 1, "workers": 2, "batch_size": 4, "local_steps": 1}
    distributed.main(
        distributed.DistributedOptions(
            dataset=f"folder:{wide}/wide", resize="squash", run_dir=run_dir, **OWN, **small
        )
    )
    found = []
    for name in ("wide", "square"):
        out = tmp_path / f"{name}.jsonl"
        images = (wide / name / "a",)
        predict.main(predict.PredictOptions(run_dir=run_dir, images=images, top_k=2, out=out))
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        found.append([(row["class"], row["probability"]) for row in rows])
    assert found[0] == found[1]


def test_an_encoder_sees_images_of_another_size(wide, tmp_path, capsys):
    whole = load_encoder("mae-nano-cifar10", image_size=16)
    options = ImageOptions(dataset=f"folder:{wide}/wide", image_size=16)
    assert digest(build_encoder(options)) == digest(whole)
    assert FinetuneOptions(image_size=16).images.image_size == 16
    with pytest.raises(ValueError, match="image_size must be a multiple of patch_size"):
        build_encoder(dataclasses.replace(options, image_size=18))

    small, own = tmp_path / "small", tmp_path / "own"
    extracted(f"folder:{wide}/wide", small, image_size=16)
    assert "scaled to 16 × 16" in capsys.readouterr().out
    extracted(f"folder:{wide}/wide", own)
    assert {path.name for path in small.iterdir()}.isdisjoint(path.name for path in own.iterdir())
    # What is masked at that size is encoded at that size.
    mask_dataset.main(
        mask_dataset.MaskDatasetOptions(
            dataset=options.dataset,
            out=tmp_path / "masked",
            encoder="random-nano",
            mask_ratio=0.5,
            image_size=16,
        )
    )
    dataset = f"masked:{tmp_path / 'masked'}"
    with pytest.raises(ValueError, match="16"):
        extracted(dataset, tmp_path / "a", mask_ratio=None)
    again = extracted(dataset, tmp_path / "b", mask_ratio=None, image_size=16)
    np.testing.assert_array_equal(again.cls, load(next(small.glob("*-train-*"))).cls)


def test_padding_is_missing_under_natural_masks_and_stays_so_once_masked(wide, tmp_path):
    natural = {"natural_masks": True, "mask_ratio": None, "resize": "pad"}
    direct = extracted(f"folder:{wide}/wide", tmp_path / "a", **natural)
    # 32 × 8 of 32 × 32 pixels are there: two of eight rows of patches.
    assert direct.attributes["missing_pixels"] == direct.attributes["missing_share"] == 0.75
    masked = mask_dataset.MaskDatasetOptions(
        dataset=f"folder:{wide}/wide", out=tmp_path / "masked", encoder="random-nano", **natural
    )
    mask_dataset.main(masked)
    dataset = f"masked:{tmp_path / 'masked'}"
    again = extracted(dataset, tmp_path / "b", mask_ratio=None)
    np.testing.assert_array_equal(again.cls, direct.cls)
    # Further images are resized as those were.
    assert build_encoder(ImageOptions(dataset=dataset)).preprocessing.resize == "pad"
    with pytest.raises(ValueError, match="is masked already, --resize cannot be used"):
        ImageOptions(dataset=dataset, resize="crop")


@pytest.mark.parametrize(
    ("resize", "said"),
    [
        ("crop", "are cut to the central 16 × 16 and scaled to 32 × 32"),
        ("pad", "are scaled to 32 × 8 and padded to 32 × 32"),
    ],
)
def test_what_happens_to_images_is_said(wide, capsys, resize, said):
    say_once.cache_clear()
    encoder = build_encoder(ImageOptions(encoder="random-nano", resize=resize))
    say_how_resized(load_dataset(f"folder:{wide}/wide", "train"), encoder)
    assert said in capsys.readouterr().out
