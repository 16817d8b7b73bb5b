"""Heads in jist and in PyTorch do the same work before anybody times them; turns count right."""

import contextlib
import dataclasses
import functools
import multiprocessing
import pathlib
import platform

import numpy as np
import pytest

from experiments.bench import head, ist, rounds, timing, wide
from experiments.bench.mlp_work import OPTIMIZERS, arrays, make_work
from experiments.bench.rounds import Rounds, compare
from experiments.bench.timing import JIST, Case, Variant
from jist import strategies

WIDTHS = head.QUICK_WIDTHS


@pytest.fixture
def work():
    return make_work(WIDTHS, optimizer="adam", batch=8, examples=96)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, and moves on when told."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_an_epoch_agrees_with_pytorch_and_learns(work):
    pytest.importorskip("torch", reason="the other variant")
    case = head.head_case(work, "cpu", torch_variants=["torch eager"])
    assert case.facts["differences"]["torch eager"]["loss"] < 1e-5
    assert case.facts["differences"]["torch eager"]["parameters"] < 1e-3
    # The timing goes on from there: the same again, 96 examples each.
    losses = {name: [variant.run() for _ in range(3)] for name, variant in case.variants.items()}
    np.testing.assert_allclose(losses["torch eager"], losses[JIST], rtol=1e-3)
    assert losses[JIST][-1] < losses[JIST][0]
    assert {variant.items for variant in case.variants.values()} == {96}


def test_another_network_is_other_work(work, monkeypatch):
    torch_mlp = pytest.importorskip("experiments.bench.torch_mlp", exc_type=ImportError)
    true = torch_mlp.logits
    # One hidden layer less.
    monkeypatch.setattr(torch_mlp, "logits", lambda p, x: true([p[1] @ p[0], *p[2:]], x))
    with pytest.raises(RuntimeError, match="of torch eager and of jist are .* apart, more than"):
        head.head_case(work, "cpu", torch_variants=["torch eager"])


@pytest.mark.parametrize("what", ["loss", "parameters"])
@pytest.mark.parametrize("value", [1.1, np.nan])
def test_results_that_differ_are_told(what, value):
    ours = {"loss": 2.0, "parameters": [np.ones(3), np.ones(1)]}
    theirs = ours | {what: 2 * value if what == "loss" else [np.ones(3), np.full(1, value)]}
    start = [np.zeros(3), np.zeros(1)]
    with pytest.raises(RuntimeError, match=f"{what} of other and of jist are (0.1|nan) apart"):
        compare("other", (*ours.values(),), (*theirs.values(),), start)


def test_one_step_left_out_is_other_work(work):
    """Of the five steps after which rounds are compared, by far more than rounding makes."""
    order = work.order(2, ist.CHECK_STEPS)

    def after(steps):
        strategy = strategies.IST(
            work.model, OPTIMIZERS["adam"], workers=2, local_steps=5, optimizer_state="reset"
        )
        played = Rounds(strategy, work)
        return played(order[:, :steps]), played.arrays()

    ours, theirs = after(ist.CHECK_STEPS), after(ist.CHECK_STEPS - 1)
    with pytest.raises(RuntimeError, match="parameters of other and of jist are 0"):
        compare("other", ours, (ours[0], theirs[1]), work.start)


def test_a_round_agrees_with_pytorch(work):
    pytest.importorskip("torch", reason="the other variant")
    with contextlib.ExitStack() as stack:
        case = ist.round_case(stack, work, "cpu", 2, 4, [ist.SERVER, ist.IN_TURN])
        for difference in case.facts["differences"].values():
            assert difference["parameters"] < 1e-3
        # Further rounds assign anew, so they agree for as long as the partitions do.
        for _ in range(2):
            losses = [variant.run() for variant in case.variants.values()]
            np.testing.assert_allclose(losses, losses[0], rtol=1e-3)
        assert {variant.items for variant in case.variants.values()} == {2 * 4 * 8}


def test_processes_train_in_every_way_as_jist_does(work):
    torch_mlp = pytest.importorskip("experiments.bench.torch_mlp", exc_type=ImportError)
    from experiments.bench.torch_workers import TorchWorkers

    order, given = work.order(2, 3), (work.start, work.x, work.y)
    # One worker has the even neurons, the other the odd ones.
    parts = [np.arange(width).reshape(-1, 2).T for width in WIDTHS[1:-1]]
    in_turn = torch_mlp.TorchSubnets(*given, optimizer="adam", device="cpu")
    with TorchWorkers(2, *given, optimizer="adam") as torch:
        one_process = in_turn(parts, order), in_turn.arrays()
        two = torch.ist(parts, order), torch.arrays()
        assert compare("two", one_process, two, work.start)["parameters"] < 1e-5
        for strategy, play in (
            (functools.partial(strategies.LocalSGD, optimizer_state="reset"), torch.local_sgd),
            (strategies.DataParallel, torch.data_parallel),
        ):
            start = torch.arrays()  # where the way before has led
            for layer, kernel in zip(work.model.layers, start[:-1], strict=True):
                layer.kernel[...] = kernel
            work.model.layers[-1].bias[...] = start[-1]
            optimizer = OPTIMIZERS[work.optimizer]
            jist = Rounds(strategy(work.model, optimizer, workers=2, local_steps=3), work)
            ours = jist(order), jist.arrays()
            assert compare("torch", ours, (play(order), torch.arrays()), start)["loss"] < 1e-5
        wrong = "a PyTorch process failed while told 'local_sgd': IndexError"
        with pytest.raises(RuntimeError, match=wrong):
            torch.local_sgd(order + len(work.x))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's malloc")
def test_processes_keep_the_memory_that_they_free():
    pytest.importorskip("torch", reason="the other variant")
    from experiments.bench.torch_workers import TorchWorkers

    # A gradient of 33.5 MB a step, more than glibc by itself ever keeps.
    work = make_work((2048, 4096, 2), optimizer="sgd", batch=4, examples=8)
    order = work.order(1, 1)
    before = {*multiprocessing.active_children()}
    with TorchWorkers(1, *(work.start, work.x, work.y), optimizer="sgd") as torch:
        (process,) = {*multiprocessing.active_children()} - before
        faults = [page_faults(process.pid)]
        for _ in range(10):
            torch.local_sgd(order)
            faults.append(page_faults(process.pid))
    # The least, because it takes some steps until the heap has its final shape.
    assert min(np.diff(faults)) < 1000  # in place of 8,192 a step


def page_faults(process):
    """How often it touched a page for the first time."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7])


def test_another_deal_is_other_work(work):
    torch_mlp = pytest.importorskip("experiments.bench.torch_mlp", exc_type=ImportError)
    results = []
    for parts in (np.arange(16).reshape(2, 8), np.arange(16).reshape(8, 2).T):
        variant = torch_mlp.TorchSubnets(
            *(work.start, work.x, work.y), optimizer="adam", device="cpu"
        )
        results.append(
            (variant([parts, np.arange(8).reshape(2, 4)], work.order(2, 3)), variant.arrays())
        )
    with pytest.raises(RuntimeError, match="of torch eager, in turn and of jist are .* apart"):
        compare(ist.IN_TURN, *results, work.start)


def test_subnets_need_what_the_formula_says():
    work = make_work((6, 8, 12, 16, 5), optimizer="sgd", batch=4, examples=8)
    # Forward, and twice that backward; of the features no gradient is taken.
    outer, inner, last = 6 * 8, 8 * 12 + 12 * 16, 16 * 5
    for n in (1, 2, 4):
        formula = 2 * (2 * outer / n + 3 * inner / n**2 + 3 * last / n)
        assert wide.subnet_flops(work, n) == formula


def test_the_share_of_the_exchange(clock):
    # 3 seconds of exchange, and 2 for every step.
    def jist(order):
        clock(3 + 2 * order.shape[1])

    share = ist.exchange_share(jist, np.zeros((2, 10, 4), np.int32), [24, 23, 22])
    assert share == pytest.approx(3 / 23)


def test_turns_are_counted(clock):
    durations = {JIST: iter([9, 9, 1, 2, 4]), "other": iter([5, 5, 4, 2, 2])}
    variants = {
        name: Variant(lambda values=values: clock(next(values)), items)
        for (name, values), items in zip(durations.items(), (8, 4), strict=True)
    }
    result = timing.measure(Case("work", "examples/s", variants), repeats=3)
    assert result["variants"][JIST]["first_run_s"] == 9
    assert result["variants"]["other"]["samples_s"] == [4, 2, 2]
    # Items a second of 8 items in 1, 2 and 4 seconds; the other takes half as many a run.
    assert result["variants"][JIST]["items_per_s"] == {"median": 4, "least": 2, "greatest": 8}
    assert result["variants"]["other"]["items_per_s"] == {"median": 2, "least": 1, "greatest": 2}
    # Turn by turn: 8 / 1, 4 / 2 and 2 / 2 items a second.
    assert result["variants"]["other"]["jist_is_faster_by"] == {
        "median": 2,
        "least": 1,
        "greatest": 8,
    }


def test_a_head_that_does_not_compile_is_left_out(work, monkeypatch):
    torch = pytest.importorskip("torch", reason="the other variant")
    monkeypatch.setattr(torch, "compile", fails_to_compile)
    case = head.head_case(work, "cpu")
    assert case.variants.keys() == {JIST, "torch eager"}
    assert case.facts["torch compiled is left out"] == "no C++ compiler"


def fails_to_compile(loss, **options):
    """In place of `torch.compile`, which fails when what it made is first called."""
    from torch._dynamo.exc import TorchDynamoException

    def call(*given):
        raise TorchDynamoException("no C++ compiler")

    return call


def test_without_pytorch_jist_goes_alone(work, monkeypatch):
    monkeypatch.setattr(head, "has_torch", lambda: False)
    assert head.head_case(work, "cpu").variants.keys() == {JIST}


def test_the_first_run_of_every_side_is_the_one_that_is_compared(work, monkeypatch):
    taken = iter([7, 5])  # seconds of jist, which is first, and of the other

    def timed(run):
        return next(taken), run()

    monkeypatch.setattr(rounds, "timed", timed)
    strategy = strategies.Centralized(work.model, OPTIMIZERS["adam"], local_steps=4)
    jist = Rounds(strategy, work)
    same = Rounds(strategy, work)
    others = {"other": lambda: (same, same.arrays)}
    case = rounds.rounds_case(jist, work.order(1, 12), others, check_steps=2)
    assert {name: variant.first_run_s for name, variant in case.variants.items()} == {
        JIST: 7,
        "other": 5,
    }
    row = timing.measure(case, repeats=1)
    assert row["variants"][JIST]["first_run_s"] == 7


def test_the_start_is_what_the_model_holds(work):
    shapes = [array.shape for array in work.start]
    assert shapes == [(12, 16), (16, 8), (8, 5), (5,)]
    assert dataclasses.replace(work, batch=4).order(2, 3).shape == (2, 3, 4)
    assert arrays({"layers": {0: {"kernel": 1}, 1: {"kernel": 2, "bias": 3}}}) == [1, 2, 3]
