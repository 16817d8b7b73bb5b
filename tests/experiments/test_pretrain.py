"""From images to a shipped encoder: pre-training, probing, shipping, as a user would."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file

import experiments.pretrain
import experiments.probe
import experiments.ship
import jist.models.shipped
from experiments.command.cpu import has_matrix_unit
from experiments.command.errors import UsageError
from experiments.runs.pretraining import SIZES, PretrainOptions, trained_mae
from experiments.runs.probing import ProbeOptions
from experiments.ship import ShipOptions
from jist.data import load_dataset
from jist.masked_images import write_masked
from jist.masking import FixedMask
from jist.models import (
    MAE,
    DecoderConfig,
    MAEEncoder,
    Preprocessing,
    ViTConfig,
    load_encoder,
    load_mae,
    save_encoder,
    save_mae,
    shipped_encoders,
)
from jist.models.storage import tensors

NANO = (ViTConfig(8, 4, dim=16, depth=1, heads=2, mlp_dim=32), DecoderConfig(16, 1, 2, 32))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("pretrain")


@pytest.fixture(scope="module")
def options(directory):
    return PretrainOptions(
        epochs=2, batch_size=256, mask_ratio=0.5, base_lr=1e-3, run_dir=directory / "pretrain"
    )


@pytest.fixture(scope="module")
def pretrained(options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "nano", NANO)
        experiments.pretrain.main(options)
    return options.run_dir


def test_a_run_leaves_an_encoder_a_picture_and_metrics(pretrained):
    assert load_encoder(pretrained / "encoder").config == NANO[0]
    assert load_mae(pretrained / "encoder").decoder.config == NANO[1]
    assert (pretrained / "reconstructions" / "epoch-0002.png").stat().st_size > 1000
    lines = [json.loads(line) for line in (pretrained / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(line["images_per_second"] > 0 for line in lines)
    config = json.loads((pretrained / "config.json").read_text())
    assert config["dtype"] == ("bfloat16" if has_matrix_unit() else "float32")  # not "auto"


def test_images_with_holes_are_pretrained_on_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "nano", NANO)
    losses = []
    for name, resident_gb in (("resident", 4.0), ("streamed", 0.0)):
        run_dir = tmp_path / name
        options = PretrainOptions(
            epochs=1,
            batch_size=256,
            mask_ratio=0.5,
            dtype="float32",  # compiled in less time
            simulate_clouds=0.2,
            max_missing=0.5,
            resident_gb=resident_gb,
            run_dir=run_dir,
        )
        experiments.pretrain.main(options)
        assert (run_dir / "reconstructions" / "epoch-0001.png").stat().st_size > 1000
        losses.append(json.loads((run_dir / "metrics.jsonl").read_text())["loss"])
        assert json.loads((run_dir / "config.json").read_text())["simulate_clouds"] == 0.2
    assert losses[0] == losses[1] > 0


def test_unlabelled_images_and_visible_patches_are_enough(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "nano", NANO)
    generator = np.random.default_rng(0)
    for name in "abc":
        pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    small = {"epochs": 1, "batch_size": 3, "picture_every": 0, "mask_ratio": 0.5}
    small["dtype"] = "float32"
    photos = PretrainOptions(dataset=f"images:{tmp_path}", run_dir=tmp_path / "run", **small)
    experiments.pretrain.main(photos)  # a batch of all three: none is held out
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text())["loss"] > 0

    encoder = MAEEncoder(NANO[0], rngs=nnx.Rngs(0))
    dataset = load_dataset(f"images:{tmp_path}", "train")
    write_masked(dataset, tmp_path / "m/train", masks=FixedMask(4, 0.25, 0), encoder=encoder)
    masked = PretrainOptions(dataset=f"masked:{tmp_path}/m", run_dir=tmp_path / "masked", **small)
    with pytest.raises(ValueError, match="visible patches only: .* on it needs --natural-masks"):
        experiments.pretrain.main(masked)
    masked = dataclasses.replace(masked, natural_masks=True)
    with pytest.raises(UsageError, match="holds patches of 4 pixels, .* takes patches of 2"):
        experiments.pretrain.main(dataclasses.replace(masked, patch_size=2))
    experiments.pretrain.main(masked)
    assert json.loads((tmp_path / "masked/metrics.jsonl").read_text())["loss"] > 0


def test_a_trained_encoder_goes_on_and_gets_a_decoder(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "nano", NANO)
    before = MAE(*NANO, rngs=nnx.Rngs(3))
    save_mae(before, tmp_path / "whole")
    save_encoder(before.encoder, tmp_path / "alone")
    for value in range(3):
        Image.new("RGB", (12, 8), (80 * value, 9, 50)).save(tmp_path / f"{value}.png")
    options = PretrainOptions(
        dataset=f"images:{tmp_path}",
        encoder=str(tmp_path / "alone"),
        epochs=1,
        batch_size=3,
        mask_ratio=0.5,
        base_lr=1e-12,  # which leaves everything as it was
        dtype="float32",
        resize="squash",
        picture_every=0,
        run_dir=tmp_path / "run",
    )
    experiments.pretrain.main(options)
    after = load_mae(tmp_path / "run" / "encoder")
    assert (after.encoder.config, after.decoder.config) == NANO
    assert after.encoder.preprocessing.resize == "squash"
    for name, array in tensors(before.encoder).items():
        np.testing.assert_allclose(tensors(after.encoder)[name], array, atol=1e-6)
    noted = json.loads((tmp_path / "run" / "encoder" / "config.json").read_text())["source"]
    assert noted["began_with"] == str(tmp_path / "alone")

    found = trained_mae(dataclasses.replace(options, encoder=str(tmp_path / "whole")))
    for part in ("encoder", "decoder"):
        for name, array in tensors(getattr(before, part)).items():
            np.testing.assert_array_equal(tensors(getattr(found, part))[name], array)
    # It is the encoder that counts, not its name.
    save_encoder(MAEEncoder(NANO[0], rngs=nnx.Rngs(4)), tmp_path / "alone", overwrite=True)
    with pytest.raises(ValueError, match="encoder"):
        experiments.pretrain.main(options)


def test_images_need_the_bands_of_the_encoder(tmp_path):
    shape = dataclasses.replace(NANO[0], channels=2)
    known = Preprocessing((0.5, 0.5), (0.2, 0.2), bands=("B3", "B4"), scale=((0.0, 10.0),) * 2)
    save_encoder(MAEEncoder(shape, preprocessing=known, rngs=nnx.Rngs(0)), tmp_path / "e")
    options = PretrainOptions(
        dataset="digits", encoder=str(tmp_path / "e"), dtype="float32", run_dir=tmp_path / "run"
    )
    with pytest.raises(ValueError, match="bands are read of image files"):
        experiments.pretrain.main(options)
    write_masked(
        load_dataset("digits", "test"),
        tmp_path / "m/train",
        masks=FixedMask(4, 0.5, 0),
        encoder=MAEEncoder(NANO[0], rngs=nnx.Rngs(0)),
    )
    masked = {"dataset": f"masked:{tmp_path}/m", "natural_masks": True}
    with pytest.raises(ValueError, match="takes 2 channels, and images of .* have 3"):
        experiments.pretrain.main(dataclasses.replace(options, **masked))


@pytest.mark.parametrize(
    ("every", "checkpoint_every", "epochs"),
    [(0, 1, []), (1, 1, [1, 2, 3, 4, 5]), (2, 1, [2, 4, 5]), (3, 2, [4, 5]), (25, 5, [5])],
)
def test_pictures_come_with_the_checkpoint_after_they_are_due(every, checkpoint_every, epochs):
    options = PretrainOptions(epochs=5, checkpoint_every=checkpoint_every, picture_every=every)
    saved = [epoch for epoch in range(1, 6) if epoch % checkpoint_every == 0 or epoch == 5]
    due = [epoch for epoch in saved if experiments.pretrain.picture_is_due(options, epoch)]
    assert due == epochs


def test_another_configuration_is_refused(pretrained, options):
    with pytest.raises(ValueError, match=r"mask_ratio is 0.5 there and 0.75 here"):
        experiments.pretrain.main(dataclasses.replace(options, mask_ratio=0.75))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "giant"}, "encoder must be one of .*'nano'.* got 'giant'"),
        ({"encoder": "mae-nano-cifar10", "image_size": 8}, "image_size=8: .* trained already"),
        ({"dtype": "float8"}, "dtype must be one of .* got 'float8'"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0"),
        ({"picture_every": -1}, "picture_every must be at least 0, got -1"),
        ({"patch_size": 5}, "image_size must be a multiple of patch_size"),
        ({"max_missing": 0.1}, "--max-missing needs --natural-masks or --simulate-clouds"),
    ],
)
def test_bad_options_are_told(options, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        experiments.pretrain.main(dataclasses.replace(options, run_dir=tmp_path, **change))


def test_it_is_probed_and_shipped(pretrained, directory, monkeypatch, capsys):
    probe = ProbeOptions(
        encoder=str(pretrained / "encoder"),
        ratios=(0.5,),
        seeds=(0, 1),
        epochs=1,
        run_dir=directory / "probe",
    )
    experiments.probe.main(probe)
    results = json.loads((probe.run_dir / "summary.json").read_text())["results"]
    assert {(r["features"], r["head"], r["seed"]) for r in results} == {
        (kind, head, seed)
        for kind, head in (("cls", "linear"), ("cls", "mlp"), ("patch mean", "linear"))
        for seed in (0, 1)
    }
    # Of 360 test images and ten classes: by chance 0.1, with a deviation of 0.016.
    assert all(0.2 < r["last_test_accuracy"] <= 1 for r in results)
    table = capsys.readouterr().out.split("Test accuracy")[1]
    monkeypatch.setattr(experiments.probe, "encode", None)
    experiments.probe.main(probe)  # finds its work done
    assert capsys.readouterr().out.split("Test accuracy")[1] == table

    monkeypatch.setattr(jist.models.shipped, "DIRECTORY", directory)
    monkeypatch.setattr(experiments.ship, "DIRECTORY", directory)
    ship = ShipOptions(
        name="mae-test-digits",
        pretrain_dir=pretrained,
        probe_dir=probe.run_dir,
        dataset="folder:digits",
        data="Digits",
        hardware="a test",
    )
    other = shutil.copytree(probe.run_dir, directory / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"encoder_sha256": "0"}))
    with pytest.raises(ValueError, match="probe_dir must hold the probe of the encoder in pretrai"):
        experiments.ship.main(dataclasses.replace(ship, probe_dir=other))
    # An epoch without a checkpoint is not part of the encoder's training.
    log = pretrained / "metrics.jsonl"
    last = json.loads(log.read_text().splitlines()[-1])
    with log.open("a") as file:
        file.write(json.dumps(last | {"epoch": 3}) + "\n")
    experiments.ship.main(ship)
    assert "mae-test-digits" in shipped_encoders()
    arrays = load_file(directory / "mae-test-digits" / "encoder.safetensors")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    whole, shipped = load_encoder(pretrained / "encoder"), load_encoder("mae-test-digits")
    np.testing.assert_allclose(
        shipped.blocks[0].mlp_in.kernel[...], whole.blocks[0].mlp_in.kernel[...], rtol=1e-3
    )
    text = (directory / "mae-test-digits" / "README.md").read_text()
    assert "--dataset folder:digits --mask-ratio 0.5 --epochs 2 --base-lr 0.001" in text
    assert (
        "2 seeds (`python -m experiments.probe --dataset folder:digits --encoder mae-test-digits "
        "--ratios 0.5 --seeds 0 1 --epochs 1`)"
    ) in text
    assert "2 epochs" in text
    assert (directory / "mae-test-digits" / "loss.png").is_file()


def test_the_card_says_the_command_that_was_run(tmp_path):
    """Not one made up from the options: of those that a configuration leaves out it says none."""
    words = ["experiments.pretrain", "--dataset", "folder:/here", "--no-debug", "--run-dir", "r"]
    (tmp_path / "config.json").write_text(json.dumps({"epochs": 3, "command": words}))
    said = experiments.ship.command("pretrain", PretrainOptions, tmp_path, dataset="folder:data")
    assert said == "python -m experiments.pretrain --dataset folder:data --no-debug"
