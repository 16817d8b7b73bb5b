import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jist.models import LinearProbe


def test_a_probe_is_a_standardised_linear_map():
    probe = LinearProbe(6, 3, rngs=nnx.Rngs(0))
    probe.linear.bias[...] = np.arange(3.0)
    x = np.asarray(5 + 2 * jax.random.normal(jax.random.key(1), (16, 6)), np.float64)
    standardised = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    expected = standardised @ np.float64(probe.linear.kernel[...]) + np.arange(3)
    np.testing.assert_allclose(probe(jnp.asarray(x, jnp.float32)), expected, atol=1e-5)


def test_a_probe_starts_as_in_the_paper():
    """He et al., Appendix A.1: a deviation of 0.01; 12,000 numbers tell it to within 2%."""
    linear = LinearProbe(400, 30, rngs=nnx.Rngs(0)).linear
    assert abs(np.std(linear.kernel[...]) / 0.01 - 1) < 0.03
    assert not np.any(linear.bias[...])
