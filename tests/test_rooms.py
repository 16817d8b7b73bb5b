"""The rooms of DESIGN: what each may import, read from the source without importing anything."""

import ast
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("jist", "experiments", "conversion")
    for path in sorted((ROOT / package).rglob("*.py"))
}


@functools.cache
def tree(module):
    return ast.parse(FILES[module].read_text())


# From top to bottom: a room imports only of those below it. A new room takes its place here.
JIST = (
    "trainer",
    "within_epoch",
    "trained",
    "evaluation",
    "tasks",
    "finetuning",
    "pretraining",
    "strategies",
    "export",
    "durations",
    "costs",
    "masked_images",
    "features",
    "data",
    "checkpoint",
    "recovery",
    "metrics",
    "events",
    "store",
    "digests",
    "fingerprint",
    "staging",
    "placement",
    "ragged",
    "reasons",
    "probabilities",
    "label_probabilities",
    "ist",
    "masking",
    "models",
)
EXPERIMENTS = ("convergence", "scaling", "network", "bench", "figures", "runs", "command")
SCRIPTS = {
    module
    for module in FILES
    if module.startswith("experiments.") and module.split(".")[1] not in EXPERIMENTS
}
OF_FILES = {"gzip", "io", "json", "os", "pathlib", "pickle", "safetensors", "shutil", "tempfile"}


def imports(module):
    """Names of everything that a module imports, in functions too: modules and their attributes."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(module):
    """Our own modules among them: of `from jist.ist import cut`, `jist.ist`."""
    for name in imports(module):
        while name and name not in FILES:
            name = name.rpartition(".")[0]
        if name:
            yield name


def room(module):
    """`jist.models` of `jist.models.vit`; a package's own `__init__` is a room by itself."""
    return ".".join(module.split(".")[:2])


def of_room(name):
    return [module for module in FILES if room(module) == name]


def test_no_room_of_jist_imports_upwards():
    """The top `__init__`, which hands on the public names, is the only module outside the rooms."""
    rooms = {room(module).removeprefix("jist.") for module in FILES if module.startswith("jist.")}
    assert rooms == set(JIST)
    for height, name in enumerate(JIST):
        below = {f"jist.{other}" for other in JIST[height:]}
        for module in of_room(f"jist.{name}"):
            assert {room(other) for other in imported_modules(module)} <= below, module


@pytest.mark.parametrize("name", ["ist", "masking", "models"])
def test_the_ground_floor_imports_nothing_of_the_other_rooms(name):
    """So `jist.ist` knows no model, and a model can be taken out of the house as it is."""
    for module in of_room(f"jist.{name}"):
        assert {room(other) for other in imported_modules(module)} <= {f"jist.{name}"}, module


def test_no_room_of_experiments_imports_upwards_and_no_script_a_script():
    rooms = {path.name for path in (ROOT / "experiments").iterdir() if list(path.glob("*.py"))}
    assert rooms == set(EXPERIMENTS)
    assert len(SCRIPTS) > 10
    for module in FILES:
        if not module.startswith("experiments."):
            continue
        own = room(module)
        height = -1 if module in SCRIPTS else EXPERIMENTS.index(own.removeprefix("experiments."))
        below = {f"experiments.{other}" for other in EXPERIMENTS[max(height, 0) :]}
        used = {room(other) for other in imported_modules(module)}
        ours = {other for other in used if other.startswith("experiments")}
        assert ours <= below, module
    # Theorem 1 and the benchmarks know nothing of each other.
    for module in of_room("experiments.convergence"):
        used = {room(other) for other in imported_modules(module)}
        assert not used & {"experiments.bench", "experiments.scaling", "experiments.network"}, (
            module
        )


def test_the_library_knows_neither_experiments_nor_conversion():
    for module in FILES:
        top = {name.partition(".")[0] for name in imports(module)}
        if module.startswith("jist"):
            assert not top & {"experiments", "conversion"}, module
        if module.startswith("conversion"):
            ours = {room(other) for other in imported_modules(module)}
            assert "experiments" not in top, module
            known = {"jist.masking", "jist.models", "jist.staging"}
            assert {other for other in ours if other.startswith("jist")} <= known, module


def test_no_module_imports_itself_in_a_circle():
    """Also within a room, where packages hand on names of modules that may not ask for the package.

    What a function imports when it is called counts as well.
    """
    waiting = {module: set(imported_modules(module)) - {module} for module in FILES}
    while free := {module for module, needs in waiting.items() if not needs & waiting.keys()}:
        waiting = {module: needs for module, needs in waiting.items() if module not in free}
    assert waiting == {}


def test_only_three_modules_of_models_know_files():
    """`storage` and `weights` read and write models, `shipped` says where one lies in the package.

    All others compute: they neither open a file nor import what handles files or paths.
    """
    know = set()
    for module in of_room("jist.models"):
        calls = [node.func for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
        opens = any(isinstance(call, ast.Name) and call.id == "open" for call in calls)
        if opens or OF_FILES & {name.partition(".")[0] for name in imports(module)}:
            know.add(module)
    assert know == {f"jist.models.{name}" for name in ("shipped", "storage", "weights")}


def test_every_room_says_in_one_sentence_what_lives_there():
    folders = {path.parent for path in FILES.values()}
    for folder in sorted(folders):
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, folder
        first, *rest = docstring.splitlines()
        assert first[0].isupper(), folder
        assert first.endswith("."), folder
        assert not re.search(r"[.!?] [A-Z]", first), folder
        assert not rest or rest[0] == "", folder
