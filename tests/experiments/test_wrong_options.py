"""Every option of every script with values that it cannot have: told at once, in one line."""

import dataclasses
import importlib
import math
import os
import pathlib
import re
import sys
import typing

import pytest

import experiments.bench.pretrain
from experiments.command import allowed, cli, errors, listing

NUMBERS = (-1.0, 0.0, math.nan, math.inf, 1e12)


def scripts():
    """(module, class of its options) of every script."""
    for script in listing.scripts():
        file = listing.ROOT / script.path
        found = re.findall(r"^    run\(main, (\w+), ", file.read_text(), re.M)
        if found and script.module.startswith("experiments"):
            name = ".".join(script.path.with_suffix("").parts)
            module = importlib.import_module(name)
            yield module, getattr(module, *found)


SCRIPTS = {module.__name__.removesuffix(".__main__"): (module, of) for module, of in scripts()}


def fields(options, within=""):
    """(option as it is typed, field, its type without `| None` and `tuple`), nested ones too."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        kind = hints[field.name]
        if not field.init or "Suppress" in str(field.type):
            continue
        typed = f"{within}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(kind):
            yield from fields(kind, f"{typed}.")
            continue
        kinds = {k for k in (typing.get_args(kind) or (kind,)) if k not in (type(None), ...)}
        yield f"--{typed}", field, kinds.pop()


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs a script up to its work: exit code, or None if it would begin, and its message."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "make_cores_devices", lambda: None)
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")  # nobody can read it, root neither
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))

    def needed(options):
        for option, field, kind in fields(options):
            if field.default is field.default_factory is dataclasses.MISSING:
                yield option, field, "directory" if kind is pathlib.Path else "x"

    def typed(options, option, *arguments):
        given = [word for name, _, value in needed(options) for word in (name, value)]
        monkeypatch.setattr(sys, "argv", ["script", *given, option, *arguments])
        code = None
        try:
            cli.run(lambda _: None, options, "")
        except SystemExit as stopped:
            code = stopped.code
        out, err = capsys.readouterr()
        assert out == ""
        return code, err

    def made(options, field, value):
        """The same without the command line, which takes the most time to read."""
        owner = options
        if field.name not in {own.name for own in dataclasses.fields(options)}:
            owner = experiments.bench.pretrain.PretrainOptions  # of a script, in another's
        given = {own.name: several(own, of) for _, own, of in needed(owner)}
        try:
            allowed.check_options(owner(**given | {field.name: several(field, value)}))
        except ValueError as error:
            return 2, f"error: {errors.message_of(error)}\n"
        return None, ""

    yield typed, made
    assert sorted(tmp_path.rglob("*")) == before, "something was written"


def several(field, value):
    return (value,) if "tuple" in str(field.type) and not isinstance(value, tuple) else value


def assert_told(code, err, option, given):
    name = option.removeprefix("--").split(".")[-1]
    assert code in (1, 2), f"{option} {given} is taken"
    assert err.count("\n") == 1, err
    assert len(err) <= errors.LONGEST + len("error: \n"), err
    assert err.startswith("error: "), err
    assert name in err.replace("_", "-"), err


@pytest.mark.parametrize("script", SCRIPTS)
def test_numbers_that_an_option_cannot_have_are_told(script, call):
    typed, made = call
    _, options = SCRIPTS[script]
    for option, field, kind in fields(options):
        if kind not in (int, float):
            continue
        assert_told(*typed(options, f"{option}=nan"), option, "nan")
        own = f"{options.__name__}.{field.name}"
        taken = allowed.NUMBERS.get(own) or allowed.NUMBERS[field.name]
        for given in NUMBERS if kind is float else (-1, 0, 10**12):
            code, err = made(options, field, given)
            if given in taken:  # another option may be at odds with it
                assert math.isfinite(given)
                assert code is None or field.name in err.replace("-", "_"), err
            else:
                assert_told(code, err, option, given)


@pytest.mark.parametrize("script", SCRIPTS)
def test_paths_that_an_option_cannot_have_are_told(script, call):
    typed, made = call
    _, options = SCRIPTS[script]
    for option, field, kind in fields(options):
        if kind is not pathlib.Path:
            continue
        read = field.name in (*allowed.READ, *allowed.READ_DIRECTORIES)
        of_file = not read and allowed._is_file(field)
        assert_told(*typed(options, option, "file/below"), option, "file/below")
        wrong = ["loop", "n" * 300, "gs://bucket/x"]
        wrong += ["missing"] if read else []
        wrong += ["directory", "pipe", "/dev/null"] if of_file else []
        wrong += [] if of_file or field.name in allowed.READ else ["file"]
        for given in wrong:
            assert_told(*made(options, field, pathlib.Path(given)), option, given)
        right = pathlib.Path("directory", "" if read else "new")
        assert made(options, field, right) == (None, "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_lists_that_name_nothing_are_told(script, call):
    typed, _ = call
    _, options = SCRIPTS[script]
    for option, field, _ in fields(options):
        if "tuple" not in str(field.type):
            continue
        code, err = typed(options, option)
        if f"{options.__name__}.{field.name}" in allowed.MAY_BE_EMPTY:
            assert code is None
        else:
            assert_told(code, err, option, "nothing")


@pytest.mark.parametrize("script", SCRIPTS)
def test_lists_that_name_something_twice_are_told(script, call):
    _, made = call
    _, options = SCRIPTS[script]
    for option, field, kind in fields(options):
        if "tuple" not in str(field.type) or not isinstance(field.default, tuple):
            continue
        if not field.default and kind is str:  # which words are allowed is another question
            continue
        some = field.default or (kind("directory") if kind is pathlib.Path else kind(1),)
        code, err = made(options, field, (*some, some[0]))
        if field.name in allowed.MAY_REPEAT:
            assert code is None or (f"{option} " in err and "has no effect" in err), err
        else:
            assert_told(code, err, option, some[0])
            assert f"got {some[0]} twice" in err


def test_only_what_jist_refuses_of_its_arguments_is_a_wrong_option():
    from jist.masking import patches_kept

    with pytest.raises(cli.UsageError, match=r"ratio must lie in \[0, 1\)"), errors.of_options():
        patches_kept(64, 2.0)
    with pytest.raises(ValueError, match="literal") as told, errors.of_options():
        int("x")
    assert not isinstance(told.value, cli.UsageError)
