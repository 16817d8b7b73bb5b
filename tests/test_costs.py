import itertools

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from jist import costs
from jist.models import MLP
from jist.strategies import IST, Centralized


def ist(workers, optimizer_state="reset", widths=(768, 1000, 1000, 10), norm="standardize"):
    model = MLP(widths, norm=norm, rngs=nnx.Rngs(0))
    return IST(
        model,
        optax.adam(1e-3),
        workers=workers,
        local_steps=50,
        optimizer_state=optimizer_state,
    )


def test_parameters_of_a_subnet_by_hand():
    # Input and output neurons are on every worker, hidden ones on one: 768·250 + 250·250 + 250·10,
    # and the output's bias.
    assert ist(4).parameters_per_worker == 768 * 250 + 250 * 250 + 250 * 10 + 10
    # Where n does not divide the width, the widest subnet counts: ceil(1000 / 3) = 334.
    assert ist(3).parameters_per_worker == 768 * 334 + 334 * 334 + 334 * 10 + 10


def test_bytes_received_are_the_pieces_of_the_others():
    piece = (768 * 250 + 250 * 250 + 250 * 10 + 10) * 4
    assert ist(4).bytes_received(1, 50) == 3 * piece
    # Adam carries two moments of every parameter, and a counter of four bytes.
    assert ist(4, "carry").bytes_received(1, 50) == 3 * (3 * piece + 4)
    assert ist(1).bytes_received(1, 50) == 0


def test_centralised_training_receives_nothing():
    model = MLP((5, 4, 3), rngs=nnx.Rngs(0))
    strategy = Centralized(model, optax.sgd(0.1), workers=1, local_steps=1)
    assert strategy.bytes_received(1, 50) == 0
    assert strategy.parameters_per_worker == 5 * 4 + 4 * 3 + 3


def test_the_papers_formulas():
    widths = (768, 1000, 1000, 10)
    assert costs.data_parallel_bytes_paper(widths) == 4 * (768_000 + 1_000_000 + 10_000)
    # All four sites together, per step: (768000 + 10000) / J + 1000000 / (4 J), in floats.
    per_site = costs.ist_bytes_paper(widths, workers=4, local_steps=50)
    assert per_site * 4 == pytest.approx(4 * (778_000 / 50 + 1_000_000 / (4 * 50)))
    with pytest.raises(ValueError, match="at least one hidden layer"):
        costs.ist_bytes_paper((768, 10), workers=4, local_steps=50)


def test_a_site_receives_between_one_nth_squared_and_one_nth_of_the_model():
    # VLDB 2022, footnote 3, for the weights.
    for workers in (2, 4, 8):
        widths = (64, 128, 128, 128, 16)
        site = costs.ist_bytes_paper(widths, workers, local_steps=1)
        model = costs.data_parallel_bytes_paper(widths)
        assert model / workers**2 <= site <= model / workers


def test_a_dtype_counts_with_its_own_size():
    tree = {"a": jnp.zeros((2, 3), jnp.bfloat16), "b": jnp.zeros(5)}
    assert costs.size_bytes(tree) == 2 * 3 * 2 + 5 * 4
    assert costs.count(tree) == 11


def test_matrix_products_of_a_step_by_formula():
    """Forward 2 B N M a layer, backward as much for the kernel and again for the layer's input."""
    widths, batch = (8, 12, 9, 3), 16
    examples = {"x": jnp.zeros((20, 8)), "y": jnp.zeros(20, jnp.int32)}
    products = [a * b for a, b in itertools.pairwise(widths)]
    expected = 2 * batch * (3 * sum(products) - products[0])  # no gradient of the images
    whole = Centralized(MLP(widths, rngs=nnx.Rngs(0)), optax.sgd(0.1), workers=1, local_steps=1)
    assert whole.flops_per_step(examples, batch) == expected
    part = ist(3, widths=widths)
    narrow = [8 * 4, 4 * 3, 3 * 3]
    wanted = 2 * batch * (3 * sum(narrow) - narrow[0])
    assert part.flops_per_step(examples, batch) == wanted


def test_of_branches_the_dearest_counts_and_loops_without_a_length_are_refused():
    w, x = jnp.zeros((3, 3)), jnp.zeros((2, 3))

    def branches(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

    assert costs.matmul_flops(branches, x, w) == 2 * (2 * 2 * 9)

    def endless(x, w):
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ w, x)

    with pytest.raises(ValueError, match="products in a while loop"):
        costs.matmul_flops(endless, x, w)
    counted = lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x + 1, x)  # noqa: E731
    assert costs.matmul_flops(counted, x) == 0


def test_loops_and_convolutions_are_counted():
    def repeated(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, length=5)[0]

    assert costs.matmul_flops(repeated, jnp.zeros((2, 3)), jnp.zeros((3, 3))) == 5 * 2 * 2 * 9

    def convolved(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    shapes = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))
    assert costs.matmul_flops(convolved, *shapes) == 2 * (2 * 6 * 6 * 5) * (3 * 3 * 3)


def test_masked_images_by_hand():
    # 32 pixels in patches of 4: 64 patches of 48 bytes; an index of them fits in one byte.
    assert costs.masked_bytes(32, 64, 0.0, 10) == 10 * 64 * 49
    assert costs.masked_bytes(32, 64, 0.75, 10) == 10 * 16 * 49
    # MAE truncates: int(196 · 0.1) = 19 patches of 768 bytes.
    assert costs.masked_bytes(224, 196, 0.9, 3) == 3 * 19 * 769
    # 400 patches need two bytes an index.
    assert costs.masked_bytes(40, 400, 0.5, 1) == 200 * (12 + 2)
    # 98 of the 14 × 14 patches into which ViT-Base cuts 32 pixels are half of them.
    assert costs.masked_bytes(32, 196, 0.5, 1) == 3 * 32 * 32 // 2 + 98
    # The paper's formula takes 4 bytes for a pixel of one channel, so a mask of the same share
    # keeps 3 bytes for its 4.
    assert costs.dataset_bytes_paper(32, 0.5, 10) == pytest.approx(10 * 32 * 32 * 0.5 * 4)
