"""Every command that a document or a docstring shows is one that its script takes."""

import ast
import importlib
import pathlib
import re
import shlex
import sys

import pytest

from experiments.command import allowed, cli

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    ROOT / "experiments" / "README.md",  # those of results are of their commits
    *(ROOT / "experiments").rglob("*.py"),
    *(ROOT / "jist").rglob("*.md"),
]
WITHOUT_OPTIONS = ("experiments.command.listing",)
COMMAND = re.compile(r"python -m (experiments(?:\.\w+)+)((?:[^\n`\\]|\\\n)*)")


def shown():
    """(script, arguments) of every command, those behind `experiments.launch` included."""
    found = set()
    for document in DOCUMENTS:
        text = document.read_text()
        if document.suffix == ".py":
            text = ast.get_docstring(ast.parse(text)) or ""
        for script, rest in COMMAND.findall(in_one_line(text)):
            if "{" in rest or "NAME" in script:  # a pattern
                continue
            arguments = shlex.split(rest.replace("\\\n", " ").replace(" ...", ""), comments=True)
            if script == "experiments.launch":
                script, *arguments = arguments[arguments.index("--") + 1 :]
            if "--help" not in arguments and script not in WITHOUT_OPTIONS:
                found.add((script, tuple(arguments)))
    return sorted(found)


def in_one_line(text):
    """The text with the commands of its prose, between backticks, in one line each."""
    parts = text.split("```")
    parts[::2] = [re.sub(r"`[^`]*`", lambda m: m[0].replace("\n", " "), p) for p in parts[::2]]
    return "```".join(parts)


def options_of(script):
    """The module that runs, and the class of its options, as its last line names them."""
    if (ROOT / script.replace(".", "/")).is_dir():
        script += ".__main__"
    module = importlib.import_module(script)
    (name,) = re.findall(
        r"^    run\(main, (\w+), ", pathlib.Path(module.__file__).read_text(), re.M
    )
    return getattr(module, name)


@pytest.mark.parametrize(("script", "arguments"), shown())
def test_every_command_that_is_shown_is_taken(script, arguments, monkeypatch):
    """All but the work itself: the options exist, are of their types, and are allowed."""
    taken = []
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    for what_is_read in ("READ", "READ_DIRECTORIES"):  # it need not be there
        monkeypatch.setattr(allowed, what_is_read, ())
    cli.run(taken.append, options_of(script), "")
    assert len(taken) == 1


def test_every_script_is_shown_somewhere():
    scripts = {f"experiments.{path.stem}" for path in (ROOT / "experiments").glob("[a-z]*.py")}
    assert scripts - {script for script, _ in shown()} <= {"experiments.launch"}
