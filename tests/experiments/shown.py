"""The commands that documents and docstrings show, and how a test runs one of them.

An option that is given twice counts as it was given last: what makes a command short is put behind.
"""

import ast
import functools
import importlib
import os
import pathlib
import re
import shlex
import sys

import jax

from experiments.command import cli

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "experiments").glob("*.md"),  # those of results are of their commits
    *(ROOT / "experiments").rglob("*.py"),
    *(ROOT / "jist").rglob("*.md"),
]
MANY_DEVICES = "--xla_force_host_platform_device_count=8"
WITHOUT_OPTIONS = ("experiments.command.listing",)
COMMAND = re.compile(r"python -m (experiments(?:\.\w+)+)((?:[^\n`\\]|\\\n)*)")


@functools.cache  # reads every module of the scripts
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
                found.add((script.removeprefix("experiments."), tuple(arguments)))
    return sorted(found)


def in_one_line(text):
    """The text with the commands of its prose, between backticks, in one line each."""
    parts = text.split("```")
    parts[::2] = [re.sub(r"`[^`]*`", lambda m: m[0].replace("\n", " "), p) for p in parts[::2]]
    return "```".join(parts)


def commands_of(script):
    """The arguments of every command that runs a script."""
    found = [arguments for name, arguments in shown() if name == script]
    assert found, f"no document shows {script}"
    return found


def options_of(script):
    """The module that runs, and the class of its options, as its last line names them."""
    script = f"experiments.{script}"
    if (ROOT / script.replace(".", "/")).is_dir():
        script += ".__main__"
    module = importlib.import_module(script)
    (name,) = re.findall(
        r"^    run\(main, (\w+), ", pathlib.Path(module.__file__).read_text(), re.M
    )
    return module, getattr(module, name)


def run_shown(script, words, monkeypatch, main=None):
    """Runs a command in this process, as the command line would.

    Args:
        script: its name below `experiments`.
        words: its arguments, with what makes it short.
        monkeypatch: puts them into `sys.argv`.
        main: takes the options; the script's own by default.
    """
    module, options = options_of(script)
    monkeypatch.setattr(sys, "argv", [script, *words])
    cli.run(main or module.main, options, "")


def run_with_others(script, words, monkeypatch):
    """The same of a script that starts processes, which import what is here, on one device each."""

    def main(options):
        jax.devices()  # of this process, before it looks like one of them
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"].replace(MANY_DEVICES, ""))
        options_of(script)[0].main(options)

    with monkeypatch.context() as monkeypatch:
        run_shown(script, words, monkeypatch, main)
