"""GeoTIFFs of bands through the scripts: pre-training, training, prediction, masked stores."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from experiments import distributed, mask_dataset, predict, pretrain
from experiments.command.bands import parse_bands
from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.reconstruct import own_bands
from experiments.runs.bands import bands_of, bands_seen, in_full, of_encoder, resolve
from experiments.runs.images import dataset_of
from experiments.runs.pretraining import SIZES
from experiments.runs.remarks import say_what_is_missing
from experiments.runs.restored import located
from jist.data import load_dataset
from jist.data.images.bands import SENTINEL2_SCL, Bands
from jist.data.images.published import EUROSAT_MS
from jist.models import DecoderConfig, Preprocessing, ViTConfig, read_preprocessing

rasterio = pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
NAMES = ("B2", "B3", "B4", "B8", "SCL")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Two classes of 10 tiles, told apart by the near infrared; of tile i the first i rows of
    patches are clouds."""
    root = tmp_path_factory.mktemp("tiles")
    generator = np.random.default_rng(0)
    for name, infrared in (("crops", 4000), ("soil", 1500)):
        (root / name).mkdir()
        for i in range(10):
            bands = generator.normal(1000, 100, (5, 32, 32))
            bands[3] += infrared
            bands[4] = 4
            bands[4, : 4 * (i % 8)] = 9
            shape = {"driver": "GTiff", "width": 32, "height": 32, "count": 5, "dtype": "uint16"}
            transform = rasterio.Affine(10, 0, 0, 0, -10, 0)
            with rasterio.open(
                root / name / f"{i}.tif", "w", nodata=0, transform=transform, **shape
            ) as file:
                file.write(bands.astype(np.uint16))
                file.descriptions = NAMES
    return root


def test_bands_from_pretraining_to_predictions(tiles, tmp_path, capsys, monkeypatch):
    """The encoder keeps names and scale, so nothing has to be said again but where clouds are."""
    small = ViTConfig(32, 4, 16, 1, 2, 32), DecoderConfig(8, 1, 2, 16)
    monkeypatch.setitem(SIZES, "nano", small)
    asked = {"scale": "auto", "bands": "B3,B4,B8", "quality_band": "SCL"}
    pretrain.main(
        pretrain.PretrainOptions(
            dataset=f"images:{tiles}", **asked, epochs=1, batch_size=8, run_dir=tmp_path / "p"
        )
    )
    assert (tmp_path / "p" / "reconstructions" / "epoch-0001.png").exists()
    own = read_preprocessing(tmp_path / "p" / "encoder")
    assert own.bands == ("B3", "B4", "B8")
    assert own.scale[2][1] > 4500 > own.scale[0][1] > 1100
    distributed.main(
        distributed.DistributedOptions(
            dataset=f"folder:{tiles}",
            encoder=str(tmp_path / "p" / "encoder"),
            quality_band="SCL",
            workers=1,
            epochs=5,
            hidden=(16,),
            run_dir=tmp_path / "r",
        )
    )
    config = json.loads((tmp_path / "r" / "config.json").read_text())["images"]
    assert config["bands"] == "B3,B4,B8"
    assert len(config["scale"].split(",")) == 6
    said = capsys.readouterr().out
    (result,) = json.loads((tmp_path / "r" / "summary.json").read_text())["results"]
    assert result["mask"] == "natural"
    assert f"train: masks: natural, {result['missing_pixels']:.1%} of the pixels" in said
    assert 0.2 < result["missing_pixels"] <= result["ratio"] < 0.6
    predict.main(predict.PredictOptions(run_dir=tmp_path / "r", images=(tiles,), json_lines=True))
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 20
    assert "of 20 in folders of their classes" in said.err


def test_a_masked_store_holds_bands(tiles, tmp_path):
    options = {"encoder": "random-nano", "bands": "B8,B2", "scale": "0,10000"}
    mask_dataset.main(
        mask_dataset.MaskDatasetOptions(
            dataset=f"folder:{tiles}", quality_band="SCL", out=tmp_path / "m", **options
        )
    )
    masked = load_dataset(f"masked:{tmp_path / 'm'}", "train")
    whole = dataset_of(ImageOptions(dataset=f"folder:{tiles}", **options), "train")
    assert masked.channels == whole.channels == 2
    seen = bands_seen(ImageOptions(dataset=f"masked:{tmp_path / 'm'}"))
    assert seen == Bands(("B8", "B2"), ((0.0, 10_000.0),) * 2, SENTINEL2_SCL)
    for index in range(len(masked)):
        pixels, missing = masked.open_with_missing(index)
        shown = np.asarray(whole.decode(index))
        np.testing.assert_array_equal(pixels[~missing], shown[~missing])
        assert missing.mean() == np.asarray(missing[:, 0]).mean() < 1


def test_reconstruction_reads_the_bands_that_the_encoder_keeps():
    bands = own_bands(OWN, pathlib.Path("e"))
    assert (bands.names, bands.scale) == (OWN.bands, OWN.scale)
    assert own_bands(dataclasses.replace(OWN, bands=()), pathlib.Path("e")).names == (1, 2, 3)
    with pytest.raises(UsageError, match="encoder=e takes 3 channels and keeps no scale"):
        own_bands(Preprocessing(), pathlib.Path("e"))


def test_missing_pixels_that_no_option_leaves_out_are_said(tiles, capsys):
    options = ImageOptions(dataset=f"folder:{tiles}", bands="B2,B3,B4", scale="0,10000")
    say_what_is_missing(dataset_of(options, "train"))
    assert capsys.readouterr().out == ""
    clouded = dataclasses.replace(options, quality_band="SCL")
    say_what_is_missing(dataset_of(clouded, "train"))
    assert "% of the pixels are missing" in (said := capsys.readouterr().out)
    assert "shown as black: --natural-masks leaves" in said


def test_a_run_finds_its_encoder_from_another_directory(tmp_path, monkeypatch):
    (tmp_path / "there" / "encoders" / "mine").mkdir(parents=True)
    config = {"working_directory": str(tmp_path / "there")}
    monkeypatch.chdir(tmp_path)
    found = located(config, ImageOptions(encoder="encoders/mine"))
    assert found.encoder == str(tmp_path / "there" / "encoders" / "mine")
    assert located(config, ImageOptions()) == ImageOptions()


def test_pictures_of_bands_are_shown(tiles):
    options = ImageOptions(dataset=f"folder:{tiles}", bands="B2,B3,B4,B8", scale="0,10000")
    assert dataset_of(options, "train").open(0).size == (32, 32)
    assert "bands" in dataset_of(options, "train").describe()


OWN = Preprocessing((0.1,) * 3, (1.0,) * 3, bands=("B02", "B3", "B8"), scale=((0.0, 5.0),) * 3)


def test_what_the_encoder_says_need_not_be_said_again(tiles):
    dataset = load_dataset(f"images:{tiles}", "train")
    assert resolve(ImageOptions(), dataset, OWN) == {"bands": "B02,B3,B8", "scale": "0,5,0,5,0,5"}
    asked = ImageOptions(bands="4,1,2", scale="0,7")
    assert resolve(asked, dataset, OWN) == {"bands": "4,1,2", "scale": "0,7,0,7,0,7"}
    full = dataclasses.replace(ImageOptions(), **resolve(asked, dataset, OWN))
    assert bands_of(full).scale == ((0.0, 7.0),) * 3
    assert of_encoder(("B8", "B2"), OWN) == ("B8", "B02")


@pytest.mark.parametrize(
    ("given", "own", "said"),
    [
        ({"bands": "B9", "scale": "0,1"}, None, "bands: .* no band 'B9'; it has 1 .B2., 2"),
        ({"bands": "B2,B3,B4"}, None, "scale is needed: .* holds uint16"),
        ({"bands": "B2", "scale": "0,1,2,3"}, None, "scale must be a pair.*1 bands, got 2"),
        ({"bands": "B2,B4"}, OWN, "bands B2,B4 .* B4 missing; it has B02, B3, B8"),
        ({"bands": "1,2"}, OWN, r"bands 1,2 are 2, and the encoder takes 3 channels \(B02"),
        ({}, dataclasses.replace(OWN, bands=("B2", "B3", "X")), "bands X of the encoder are not"),
        ({}, dataclasses.replace(OWN, bands=()), "bands must be 3, .* has 5 .B2, B3, B4, B8, SCL"),
        ({"quality_band": "Q", "cloudy": "1"}, None, "no band 'Q'"),
    ],
)
def test_bands_that_do_not_fit_are_told(tiles, given, own, said):
    dataset = load_dataset(f"images:{tiles}", "train")
    with pytest.raises(UsageError, match=said):
        resolve(ImageOptions(**given), dataset, own)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bands": "B2,,B3"}, "bands must name each band once"),
        ({"bands": "B2,B2"}, "bands must name each band once"),
        ({"bands": "B2,B2,B3"}, "or one band three times"),
        ({"scale": "1,0"}, "scale must be auto, or pairs"),
        ({"scale": "nan,1"}, "scale must be auto, or pairs"),
        ({"cloudy": "3"}, "--cloudy needs --quality-band"),
        ({"quality_band": "Q"}, "quality_band=Q: --cloudy must say"),
        ({"dataset": "features:x", "bands": "1"}, "--bands 1 has no effect"),
        ({"dataset": "masked:x", "bands": "1"}, "masked already, --bands cannot"),
    ],
)
def test_options_of_bands_that_cannot_be_meant(given, said):
    with pytest.raises(UsageError, match=said):
        ImageOptions(**given)


def test_bands_need_files():
    with pytest.raises(UsageError, match="dataset=digits: bands are read of image files"):
        in_full(ImageOptions(bands="1"))
    assert in_full(ImageOptions()) == ImageOptions()


def test_bands_of_eurosat_have_names_though_its_files_say_none(tmp_path):
    """B8A comes last in its files, and after B8 in encoders for Sentinel-2."""
    levels = np.arange(13, dtype=np.uint16)[:, None, None] * 500 + np.zeros((8, 8), np.uint16)
    for name in EUROSAT_MS.class_names:
        (tmp_path / name).mkdir()
        for number in range(3):
            kind = {"count": 13, "dtype": "uint16", "width": 8, "height": 8, "driver": "GTiff"}
            kind["transform"] = rasterio.transform.from_origin(0, 8, 1, 1)
            with rasterio.open(tmp_path / name / f"{name}_{number}.tif", "w", **kind) as file:
                file.write(levels)
    own = Preprocessing(
        (0.0,) * 3, (1.0,) * 3, bands=("B8A", "B9", "B1"), scale=((0.0, 6375.0),) * 3
    )
    options = ImageOptions(dataset="eurosat-ms", data_dir=tmp_path)
    images = load_dataset("eurosat-ms", "train", data_dir=tmp_path)
    options = dataclasses.replace(options, **resolve(options, images, own))
    assert options.bands == "B8A,B9,B1"
    assert dataset_of(options, "test").decode(0)[0, 0].tolist() == [240, 160, 0]
    written = bands_of(options)
    assert Bands.of(json.loads(json.dumps(written.describe()))) == written


def test_one_band_is_grey_to_an_encoder_of_colours(tiles):
    pixels = Bands(parse_bands("B8,B8,B8"), ((0, 8000),)).decode(tiles / "crops" / "0.tif")
    assert pixels.shape == (32, 32, 3)
    np.testing.assert_array_equal(pixels[..., :2], pixels[..., 1:])
    assert pixels.std() > 0
