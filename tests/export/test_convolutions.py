"""Networks of convolutions give in PyTorch, under torchvision's names, what they give here."""

import jax.numpy as jnp
import numpy as np
import pytest
from filled import filled
from flax import nnx

from jist.export import architecture, torch_tensors
from jist.models import MLP, VGG12, ResNet18

torch = pytest.importorskip("torch", reason="PyTorch, of the extra `convert`, is the oracle")
from torch_networks import torch_network  # noqa: E402


def deviation(shape):
    """Of convolutions so large that outputs depend on the images."""
    return 0.5 if len(shape) >= 4 else 0.1


@pytest.mark.parametrize(
    ("small", "neurons"), [(True, ("channels",)), (False, ("blocks", "channels"))]
)
def test_a_resnet_is_that_of_torchvision(small, neurons):
    given = {"small": small, "neurons": neurons, "width": 2}
    network = filled(lambda: ResNet18(3, **given, rngs=nnx.Rngs(0)), deviation=deviation)
    network.eval()
    said = architecture(network)
    assert (said["width"], said["stem"]["maxpool"]) == (2, not small)
    check(network, said, size=40)


def test_a_vgg_is_that_of_torchvision():
    """The dense part sees four places, whose order is another in PyTorch."""
    given = {"hidden": (8, 6), "width": 2, "steps": ((1,), (2, 2), (4,))}
    network = filled(lambda: VGG12(16, 3, **given, rngs=nnx.Rngs(0)), deviation=deviation)
    network.eval()
    said = architecture(network)
    assert said["cfg"] == [2, "M", 4, 4, "M", 8, "M"]
    check(network, said, size=16, hidden=(8, 6))


def check(network, said, size, hidden=()):
    images = np.random.default_rng(1).normal(size=(4, size, size, 3)).astype(np.float32)
    tensors = {name: torch.from_numpy(array) for name, array in torch_tensors(network).items()}
    theirs = torch_network(said, size, 3, hidden)
    theirs.load_state_dict(tensors)  # every name, and no other
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    found = nnx.jit(lambda network, x: network(x))(network, jnp.asarray(images))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert np.ptp(wanted, axis=0).min() > 1e-2


def test_another_network_is_refused():
    for function in (architecture, torch_tensors):
        with pytest.raises(ValueError, match="must be a ResNet18 or a VGG12, got MLP"):
            function(MLP((3, 4, 2), rngs=nnx.Rngs(0)))
