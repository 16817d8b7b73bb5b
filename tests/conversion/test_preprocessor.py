"""Settings of Hugging Face's image processors: followed exactly, or named as not followed."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from conversion.convert import _describe_resizing
from conversion.errors import ConversionError
from conversion.export import _preprocessor
from conversion.overrides import Overrides
from conversion.preprocessing import read_preprocessing
from conversion.source import Source
from jist.data import resize as resize_image
from jist.models import Preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
PLAIN = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "size": {"height": 16, "width": 16},
}


@pytest.fixture(scope="module")
def processor():
    return pytest.importorskip("transformers", reason="has the image processor").ViTImageProcessor


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": 0.5, "image_std": 0.25},
    ],
)
def test_pixels_are_normalised_as_the_processor_does(change, processor):
    settings = json.loads(json.dumps(PLAIN | change))
    expected = processor(**settings)(PIXELS, return_tensors="np")["pixel_values"][0]
    found = read_preprocessing(Source((), "", {}, None, settings), "bicubic", Overrides())
    ours = np.asarray(found.normalize(jnp.asarray(PIXELS[None])))[0]
    np.testing.assert_allclose(ours, np.moveaxis(expected, 0, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "squashed"),
        ({"size": {"shortest_edge": 73}, "do_center_crop": True, "crop_size": 64}, "crop 64"),
        ({"do_resize": False, "size": None}, "do_resize=False"),
    ],
)
def test_what_is_not_followed_is_named(change, said):
    assert said in "".join(_describe_resizing(PLAIN | change))


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_what_is_exported_resizes_as_jist_does(resize, processor):
    """Transformers scales before it cuts, and so mixes pixels into the edge that jist cuts off."""
    wide = Image.fromarray(PIXELS).resize((54, 36))
    preprocessing = Preprocessing(resize=resize)
    config = {"encoder": {"image_size": 16}, "preprocessing": preprocessing.as_json()}
    settings = _preprocessor(config)
    theirs = processor(**settings)(wide, return_tensors="np")["pixel_values"][0]
    ours = preprocessing.normalize(jnp.asarray(resize_image(wide, 16, preprocessing)[None]))[0]
    edge = 2 if resize == "crop" else 0
    inside = np.s_[:, edge : 16 - edge]
    np.testing.assert_allclose(ours[inside], np.moveaxis(theirs, 0, -1)[inside], atol=0.02)
    assert _describe_resizing(settings, resize) == []
    with pytest.raises(ConversionError, match="no image processor of transformers"):
        _preprocessor({"preprocessing": Preprocessing(resize="pad").as_json()})


def test_a_crop_of_the_shorter_side_is_followed():
    same = {"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": {"height": 64}}
    assert _describe_resizing(same) == []
