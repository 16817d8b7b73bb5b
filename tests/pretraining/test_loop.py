"""The loop: pre-training learns, resumes bit by bit, and stops at NaN."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh
from sklearn.linear_model import LogisticRegression

from jist.checkpoint import Checkpoints
from jist.data import load_dataset
from jist.metrics import MetricsLog
from jist.models import MAE, DecoderConfig, MAEEncoder, ViTConfig
from jist.pretraining import Pretraining, Resident, Streamed, adamw, loop, pretrain

CONFIG = ViTConfig(8, 2, dim=48, depth=2, heads=2, mlp_dim=96)
BATCH = 64
EPOCHS = 27
STEPS = 606


@functools.cache
def digits():
    return load_dataset("digits", "train")


@functools.cache  # drawing it compiles a program for every shape
def untrained():
    return MAE(CONFIG, DecoderConfig(16, 1, 2, 32), rngs=nnx.Rngs(0))


def build(optimizer):
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    return Pretraining(untrained(), optimizer, mask_ratio=0.5, crop_area=(0.8, 1.0), mesh=mesh)


@functools.cache
def recipe():
    optimizer, learning_rate = adamw(1e-2, BATCH, steps=STEPS, warmup_steps=60)
    pretraining = build(optimizer)
    return pretraining, learning_rate, Resident(digits(), pretraining)


def pretrained(directory, epochs=EPOCHS, **options):
    directory.mkdir(exist_ok=True)
    pretraining, learning_rate, source = recipe()
    with MetricsLog(directory, "pretrain") as log:
        model = pretrain(
            pretraining,
            options.pop("source", source),
            epochs=epochs,
            batch_size=BATCH,
            seed=0,
            checkpoints=directory / "checkpoints",
            log=log,
            learning_rate=learning_rate,
            **options,
        )
        return model, log.rewind(epochs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("whole") / "run", checkpoint_every=EPOCHS)


@pytest.fixture(scope="module")
def beginning(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("beginning") / "run", epochs=3)


def cls_features(encoder):
    encode = nnx.jit(lambda encoder, images: encoder(images, None)[:, 0])
    pixels = np.stack([np.asarray(digits().open(row)) for row in range(1000)])
    return np.asarray(encode(encoder, encoder.preprocessing.normalize(jnp.asarray(pixels))))


def linear_accuracy(features):
    labels = digits().labels[:1000]
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    probe = LogisticRegression(max_iter=300, C=0.1).fit(features[:700], labels[:700])
    return probe.score(features[700:], labels[700:])


def test_it_learns_more_than_the_mean_of_a_patch(whole):
    """Predicting each patch's mean is predicting 0: the error is (p - 1) / p of the unbiased
    variance 1, less where patches are of one colour."""
    model, history = whole
    pixels = jnp.asarray(np.stack([np.asarray(digits().open(i)) for i in range(99)]))
    target = np.asarray(model.target(model.encoder.preprocessing.normalize(pixels)))
    assert history[-1]["loss"] < 0.9 * float(np.mean(target**2))
    assert [line["epoch"] for line in history] == list(range(1, EPOCHS + 1))
    assert history[-1]["images_seen"] >= EPOCHS * len(digits())


def test_its_features_beat_those_of_a_random_encoder(whole):
    random = MAEEncoder(CONFIG, rngs=nnx.Rngs(1))
    ahead = linear_accuracy(cls_features(whole[0].encoder)) - linear_accuracy(cls_features(random))
    assert ahead > 0.05


def test_going_on_is_the_same_as_never_having_stopped(beginning, tmp_path):
    class Killed(Exception):
        pass

    def kill(epoch, model):
        raise Killed

    with pytest.raises(Killed):
        pretrained(tmp_path / "run", epochs=3, checkpoint_every=2, after_checkpoint=kill)
    model, history = pretrained(tmp_path / "run", epochs=3)
    whole, expected = beginning
    jax.tree.map(
        np.testing.assert_array_equal, nnx.state(model, nnx.Param), nnx.state(whole, nnx.Param)
    )
    assert [line["loss"] for line in history] == [line["loss"] for line in expected]


def test_what_follows_the_last_checkpoint_is_made_up_for(beginning, tmp_path):
    def kill(epoch, model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrained(tmp_path / "run", epochs=3, checkpoint_every=3, after_checkpoint=kill)
    calls = []
    model, _ = pretrained(
        tmp_path / "run", epochs=3, after_checkpoint=lambda *call: calls.append(call)
    )
    ((epoch, given),) = calls
    assert epoch == 3
    for other in (model, beginning[0]):
        jax.tree.map(
            np.testing.assert_array_equal, nnx.state(given, nnx.Param), nnx.state(other, nnx.Param)
        )


def test_streamed_images_train_the_same_model(beginning, tmp_path):
    source = Streamed(digits(), recipe()[0])
    _, history = pretrained(tmp_path / "run", source=source, epochs=3)
    assert [line["loss"] for line in history] == [line["loss"] for line in beginning[1]]


def test_an_epoch_is_timed_from_its_start_to_its_end(tmp_path, monkeypatch):
    clock = iter((3.0, 7.0))
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    _, (line,) = pretrained(tmp_path / "run", epochs=1)
    assert line["seconds"] == 4
    assert line["images_per_second"] == line["images_seen"] / 4


@functools.cache
def failing():
    """Plain steps until one that is infinite. Its state says which, so one program does for all."""

    def init(params):
        return jnp.int32(0), jnp.int32(0)

    def update(gradients, state, params=None):
        step, good_steps = state
        rate = jnp.where(step < good_steps, 1e-3, jnp.inf)
        return jax.tree.map(lambda leaf: -rate * leaf, gradients), (step + 1, good_steps)

    return build(optax.GradientTransformation(init, update))


def bad_after(pretraining, good_steps):
    """The state of the optimiser of `failing` before its first step."""
    return jax.device_put((np.int32(0), np.int32(good_steps)), pretraining.replicated)


# Epochs of 23 and 22 steps; no loss of an epoch covers the parameters after its last step.
@pytest.mark.parametrize(
    ("good_steps", "message", "last"),
    [
        (46, "the loss is nan in step 3 of epoch 3; the checkpoint of epoch 2 is kept", 2),
        (44, "a parameter is not finite after step 22 of epoch 2; the checkpoint of epoch 1 is", 1),
        (4, "the loss is nan in step 6 of epoch 1; nothing is saved yet", None),
    ],
)
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path, good_steps, message, last, monkeypatch
):
    pretraining = failing()
    start = dataclasses.replace(pretraining.init(0), opt_state=bad_after(pretraining, good_steps))
    monkeypatch.setattr(pretraining, "init", lambda seed: start)
    with (
        MetricsLog(tmp_path, "pretrain") as log,
        pytest.raises(FloatingPointError, match=message),
    ):
        pretrain(
            pretraining,
            recipe()[2],
            epochs=5,
            batch_size=BATCH,
            seed=0,
            checkpoints=tmp_path / "checkpoints",
            log=log,
            learning_rate=lambda step: 1e-3,
        )
    with Checkpoints(tmp_path / "checkpoints", metric=None, must_exist=True) as saved:
        assert saved.last == last
