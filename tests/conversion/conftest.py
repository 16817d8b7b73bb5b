import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def converted(capsys):
    """Converts, which must succeed, and gives what was printed."""
    from conversion.__main__ import main

    def convert(*arguments):
        status = main([*map(str, arguments)])
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.out

    return convert


@pytest.fixture(scope="session")
def mae():
    """A small masked autoencoder under facebookresearch's names."""
    import checkpoints

    return checkpoints.mae(**checkpoints.SMALL, decoder=checkpoints.DECODER)


@pytest.fixture(scope="session")
def hf_mae():
    """A small ViTMAEForPreTraining, with an epsilon that is nowhere the default."""
    import checkpoints

    transformers = pytest.importorskip("transformers", reason="builds the Hugging Face sources")
    transformers.logging.disable_progress_bar()
    config = transformers.ViTMAEConfig(
        image_size=32,
        patch_size=8,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        layer_norm_eps=1e-5,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=64,
        norm_pix_loss=True,
    )
    return checkpoints.randomize(transformers.ViTMAEForPreTraining(config))


@pytest.fixture(scope="session")
def images():
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, 32, 32, 3)), jnp.float32)


@pytest.fixture(scope="session")
def keep():
    """Half of 16 patches, another half for each image."""
    rng = np.random.default_rng(2)
    return jnp.asarray([np.sort(rng.permutation(16)[:8]) for _ in range(2)], jnp.int32)
