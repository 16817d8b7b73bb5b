"""Encoders by their name on the hub, from a cache of it that is made here."""

import concurrent.futures

import numpy as np
import pytest
from flax import nnx

from conversion import hub
from conversion.errors import ConversionError
from conversion.export import export
from experiments.command.errors import UsageError
from experiments.command.options import ImageOptions
from experiments.runs.images import ImageInputs
from jist.models import MAEEncoder, ViTConfig, load_encoder, save_encoder
from jist.models.storage import tensors

CONFIG = ViTConfig(image_size=8, patch_size=2, dim=8, depth=1, heads=2, mlp_dim=16)
COMMIT = "a" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """HF_HOME, and no network; the hub reads its settings when it is imported."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="resolves names")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_ASSETS_CACHE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def published(cache):
    """An encoder that somebody published."""
    encoder = MAEEncoder(CONFIG, rngs=nnx.Rngs(0))
    save_encoder(encoder, cache / "own")
    repository = cache / "hub" / "models--someone--tiny"
    (repository / "snapshots").mkdir(parents=True)
    export(cache / "own", repository / "snapshots" / COMMIT, "huggingface")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return encoder


def test_an_encoder_of_the_hub_is_converted_once(cache, published):
    said = []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = [pool.submit(hub.converted, "hf:someone/tiny", said.append) for _ in range(3)]
        (directory,) = {one.result() for one in asked}
    assert directory == cache / "assets/jist/encoders/someone--tiny"
    assert said == [f"hf:someone/tiny is new here: it is fetched and converted into {directory}"]
    for name, array in tensors(load_encoder(directory)).items():
        np.testing.assert_array_equal(array, tensors(published)[name])
    assert sorted(path.name for path in directory.parent.iterdir() if path.is_dir()) == [
        "someone--tiny"
    ]
    # The run records what it was, and needs the hub no more.
    (cache / "hub").rename(cache / "gone")
    inputs = ImageInputs(ImageOptions(dataset="digits", encoder="hf:someone/tiny"))
    assert inputs.pinned["encoder_revision"] == COMMIT == inputs.facts["encoder_revision"]
    assert inputs.facts["encoder"] == "hf:someone/tiny"
    (cache / "gone").rename(cache / "hub")
    pinned = hub.converted(f"hf:someone/tiny@{COMMIT}", said.append)
    assert pinned.name == f"someone--tiny--{COMMIT}"


def test_without_network_and_cache_it_is_told_what_to_fetch(cache):
    with pytest.raises(ConversionError) as told:
        hub.converted("hf:facebook/vit-mae-base@main", print)
    assert "hf download facebook/vit-mae-base --revision main --local-dir vit-mae-base" in str(
        told.value
    )
    assert len(str(told.value)) < 400
    with pytest.raises(UsageError, match="encoder must be hf:OWNER/NAME or hf:OWNER/NAME@REVIS"):
        ImageInputs(ImageOptions(encoder="hf:vit-mae-base")).pinned  # noqa: B018
