"""Kernels in bfloat16 and in 8 bits: programs find what kernels find that NumPy has rounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from conversion.convert import convert
from conversion.export import export
from conversion.overrides import Overrides
from jist.export import Deployed, classify, write_stablehlo, write_tensors
from jist.export.weights import quantized
from jist.features import cls_vectors
from jist.models import MAEEncoder, ViTConfig, load_encoder
from jist.models.storage import tensors

IMAGES = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
KEEP = np.array([[0, 2], [1, 3], [2, 3]], np.int32)


def rounded(kernel, weights):
    """By another way than the program's: bits are cut off, and every column has its own loop."""
    if weights == "bfloat16":
        bits = kernel.view(np.uint32)
        nearest_even = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return (nearest_even & np.uint32(0xFFFF0000)).view(np.float32)
    scales = [max(abs(column).max(), np.float32(1e-30)) / np.float32(127) for column in kernel.T]
    small = [np.round(column / by) * by for column, by in zip(kernel.T, scales, strict=True)]
    return np.ascontiguousarray(np.array(small, np.float32).T)


@pytest.fixture(scope="module")
def deployed():
    generator = np.random.default_rng(1)
    sizes = ((64, 128), (128, 5))
    layers = [
        (generator.normal(size=size).astype(np.float32), np.full(size[1], 0.1, np.float32))
        for size in sizes
    ]
    layers[0][0][:, 3] = 0  # a neuron of zeros has no largest weight
    encoder = MAEEncoder(ViTConfig(8, 4, 64, 1, 2, 256), rngs=nnx.Rngs(0))
    encoder.eval()
    return Deployed(layers, 8.0, encoder)


@pytest.fixture(scope="module")
def plain(deployed, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain")
    write_tensors(deployed, out)
    return out, (out / "encoder" / "encoder.safetensors").stat().st_size


@pytest.mark.parametrize(("weights", "share"), [("bfloat16", 0.55), ("int8", 0.3)])
def test_a_program_is_smaller_and_finds_what_rounded_kernels_find(
    deployed, plain, tmp_path, weights, share
):
    small = Deployed(deployed.layers, 8.0, deployed.encoder, weights=weights)
    write_stablehlo(small, tmp_path)
    directory, encoder_bytes = plain
    whole = encoder_bytes + (directory / "head.safetensors").stat().st_size
    size = (tmp_path / "model.stablehlo").stat().st_size
    assert size < share * whole + 24_000  # of instructions
    call = jax.export.deserialize((tmp_path / "model.stablehlo").read_bytes()).call
    found = np.asarray(call(IMAGES, KEEP))

    arrays = load_file(directory / "encoder" / "encoder.safetensors")
    for name, array in arrays.items():
        arrays[name] = rounded(array, weights) if name.endswith("kernel") else array
    save_file(arrays, tmp_path / "encoder.safetensors")
    (tmp_path / "config.json").write_text((directory / "encoder" / "config.json").read_text())
    encoder = load_encoder(tmp_path)
    x = np.asarray(cls_vectors(encoder, jnp.asarray(IMAGES), jnp.asarray(KEEP)))
    for number, (kernel, bias) in enumerate(deployed.layers):
        x = (np.maximum(x, 0) if number else x) @ rounded(kernel, weights) + bias
    np.testing.assert_allclose(found, softmax(x / 8, axis=1), rtol=1e-4)


def test_bfloat16_arrays_are_half_as_large_and_taken_back(deployed, plain, tmp_path):
    write_tensors(Deployed(deployed.layers, 8.0, deployed.encoder, weights="bfloat16"), tmp_path)
    file = tmp_path / "encoder" / "encoder.safetensors"
    assert file.stat().st_size < 0.55 * plain[1]
    kernel = load_encoder(tmp_path / "encoder").blocks[0].mlp_in.kernel[...]
    expected = rounded(np.asarray(deployed.encoder.blocks[0].mlp_in.kernel[...]), "bfloat16")
    np.testing.assert_array_equal(kernel, expected)
    head = load_file(tmp_path / "head.safetensors")
    assert (head["0.kernel"].dtype, head["0.bias"].dtype) == (jnp.bfloat16, np.float32)


def test_conversion_takes_back_what_is_written(deployed, plain, tmp_path):
    """To Hugging Face's names and from there; encoder and head find what the program finds."""
    directory, _ = plain
    export(directory / "encoder", tmp_path / "hf", "huggingface")
    convert(str(tmp_path / "hf"), tmp_path / "back", Overrides(), report=lambda line: None)
    encoder = load_encoder(tmp_path / "back")
    assert encoder.preprocessing == deployed.encoder.preprocessing
    for name, array in tensors(deployed.encoder).items():
        np.testing.assert_array_equal(tensors(encoder)[name], array)
    head = load_file(directory / "head.safetensors")
    x = np.asarray(cls_vectors(encoder, jnp.asarray(IMAGES), jnp.asarray(KEEP)))
    hidden = np.maximum(x @ head["0.kernel"] + head["0.bias"], 0)
    found = softmax((hidden @ head["1.kernel"] + head["1.bias"]) / 8, axis=1)
    expected = classify(deployed, jnp.asarray(IMAGES), jnp.asarray(KEEP))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4), (3, 3, 5, 4), (2, 3, 3, 5, 4)])
def test_no_weight_moves_by_more_than_half_a_scale(shape):
    """Scales: of every output channel, and of every block where blocks are stacked."""
    kernel = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    small, scales = quantized(kernel)
    assert scales.size == 4 * (shape[0] if len(shape) % 2 else 1)
    assert np.all(np.abs(small * scales - kernel) <= 0.5001 * scales)
    assert np.abs(small).max() == 127
