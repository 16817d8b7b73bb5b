"""Files beside weights are checked field by field, and weights before anything is built."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jist.models import load_encoder
from jist.models.shipped import locate


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    directory = tmp_path_factory.mktemp("encoder") / "e"
    shutil.copytree(locate("mae-nano-cifar10"), directory)
    return directory


def changed(config, *path, to):
    whole = inner = json.loads(json.dumps(config))
    for name in path[:-1]:
        inner = inner[name]
    if to is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("path", "to", "message"),
    [
        (("encoder",), KeyError, r"encoder must be a JSON object, got None"),
        (("encoder",), [], r"encoder must be a JSON object, got \[\]"),
        (("encoder", "depth"), KeyError, r"encoder\.depth is missing"),
        (("encoder", "depth"), "12", r"encoder\.depth must be int, got '12'"),
        (("encoder", "depth"), True, r"encoder\.depth must be int, got True"),
        (("encoder", "depth"), 0, r"encoder: depth must be positive, got 0"),
        (("encoder", "depth"), 10**6, r"tensors, too few for a depth of 1000000"),
        (("encoder", "dept"), 1, r"encoder\.dept is no field of ViTConfig"),
        (("preprocessing", "mean"), [0.5, None, 0.5], r"preprocessing\.mean must be float, got N"),
        (("preprocessing", "std"), KeyError, r"preprocessing\.std is missing"),
    ],
)
def test_a_field_that_is_not_as_it_must_be_is_named(shipped, tmp_path, path, to, message):
    shutil.copytree(shipped, tmp_path / "e")
    file = tmp_path / "e" / "config.json"
    file.write_text(changed(json.loads(file.read_text()), *path, to=to))
    with pytest.raises(ValueError, match=f"{tmp_path}/e/.*{message}"):
        load_encoder(tmp_path / "e")


@pytest.mark.parametrize("text", [b"[1]", b"null", b'{"a": ', b'{"a": "\xff"}'])
def test_a_config_that_is_no_json_object_is_named(shipped, tmp_path, text):
    shutil.copytree(shipped, tmp_path / "e")
    (tmp_path / "e" / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=f"{tmp_path}/e/config.json is damaged"):
        load_encoder(tmp_path / "e")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda array: np.full_like(array, np.nan), "not finite: cls"),
        (lambda array: np.full_like(array, np.inf), "not finite: cls"),
        (lambda array: array.astype(np.int32), "no floating-point numbers: cls is int32"),
    ],
)
def test_weights_that_are_no_finite_floats_are_refused(shipped, tmp_path, harm, message):
    shutil.copytree(shipped, tmp_path / "e")
    arrays = load_file(tmp_path / "e" / "encoder.safetensors")
    (name,) = (name for name in arrays if "cls" in name)
    save_file(arrays | {name: harm(arrays[name])}, tmp_path / "e" / "encoder.safetensors")
    with pytest.raises(ValueError, match=message):
        load_encoder(tmp_path / "e")
