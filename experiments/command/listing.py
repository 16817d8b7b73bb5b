"""The table of all scripts, made from their docstrings.

    python -m experiments.command.listing

Writes `experiments/README.md`: every script with what it does, its command and its expected time,
and every room with what lives there. A test fails where the file is older than the docstrings.
Expected: a second.
"""

import ast
import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
LISTING = ROOT / "experiments" / "README.md"
GUARD = 'if __name__ == "__main__":'

HEAD = """\
# What can be run

Made from the docstrings by `python -m experiments.command.listing`; change those.

`python -m experiments.NAME --help` lists the options of a script. Scripts that train write a run
directory: `config.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/`; beside these `features/`
(of heads), `summary.json` (of classifiers), `encoder/` (of pre-training and fine-tuning). The same
command with the same `--run-dir` resumes where it stopped. A wrong option ends with exit code 2, a
failure with 1.
Measured results and their commands: [results/README.md](results/README.md).

## Data sets

| `--dataset` | examples |
|---|---|
| `digits` | 1,797 scanned digits of scikit-learn; needs no download |
| `folder:PATH` | one directory per class, `train/`, `test/` and `val/` above, or a split by seed |
| `images:PATH` | all images below a directory, without labels; for pre-training alone |
| `masked:PATH` | what `experiments.mask_dataset` wrote |
| `cifar10` | through TensorFlow Datasets, prepared once with a network (below) |
| `tfds:NAME[/CONFIG]` | any of its sets with one image and one class each, likewise |
| `resisc45`, `aid`, `ucmerced` | the authors' folder; `--data-dir` names it, or one above it |
| `eurosat`, `eurosat-ms` | likewise: colours, or 13 bands of Sentinel-2 (`--scale 0,10000`) |
| `features:PATH` | your vectors: `.npz`, SciPy CSR, `.npy`, `.parquet`, Zarr; or `TRAIN,TEST` |
| `speech:PATH` | WAV or FLAC clips, `<word>/<speaker>_nohash_<k>.wav`; split by lists or speaker |
| `xc:PATH` | the Extreme Classification Repository's text, sparse with many labels |

The last three need no encoder, and take no masks. GeoTIFFs of other bands than colours, of any
number type, are read from `folder:PATH` and `images:PATH` with `--bands` and `--scale`, clouds with
`--quality-band` (`pip install -e '.[geo]'`).

`val/`, of clips `validation_list.txt`, is the validation split: it chooses the epoch and fits the
temperature. Without `test/` it is the test split. RESISC45 and AID are split as in the paper,
27,000 + 4,500 and 8,500 + 1,500, by class and seed, fewer images in the same proportion; of EuroSAT
and UC Merced a fifth is for testing. CIFAR-10 is prepared by

```bash
pip install -e '.[tfds]'
python -c "import tensorflow_datasets as tfds; \\
    tfds.builder('cifar10', file_format='array_record').download_and_prepare()"
```
"""


@dataclasses.dataclass(frozen=True)
class Script:
    """A module that can be run, as its docstring describes it.

    Attributes:
        module: what `python -m` takes.
        path: its file, relative to the repository.
        purpose: the first sentence of the docstring.
        command: the first example of it, without indentation.
        expected: how long that takes, and on what; empty if the docstring does not say.
    """

    module: str
    path: pathlib.PurePosixPath
    purpose: str
    command: str
    expected: str


def scripts(root: pathlib.Path = ROOT) -> list[Script]:
    """The scripts `experiments.NAME`, then those inside rooms whose docstring shows a command.

    Raises:
        ValueError: a script at the top shows no command, or has no docstring.
    """
    top = [*root.glob("experiments/*.py"), *root.glob("experiments/*/__main__.py")]
    below = [*root.glob("experiments/*/*.py"), *root.glob("conversion/__main__.py")]
    shown = [file for file in below if file not in top and _runs(file) and _commands(file)]
    return [
        _script(root, file)
        for files in (filter(_runs, top), shown)
        for file in sorted(files, key=_module)
    ]


def rooms(root: pathlib.Path = ROOT) -> dict[str, str]:
    """Package below `experiments` -> what lives there, the first sentence of its docstring."""
    packages = sorted(root.glob("experiments/*/__init__.py"))
    return {file.parent.name: _paragraphs(file)[0] for file in packages}


def listing(root: pathlib.Path = ROOT) -> str:
    """The text of `experiments/README.md`."""
    found = scripts(root)
    table = ["| script | what it does | expected time |", "|---|---|---|"]
    for script in found:
        link = pathlib.PurePosixPath("..") / script.path
        short = link.relative_to("../experiments") if "experiments" in link.parts else link
        table.append(f"| [`{script.module}`]({short}) | {script.purpose} | {script.expected} |")
    commands = ["```bash", *(f"{script.command}\n" for script in found)]
    commands[-1] = commands[-1].rstrip()
    commands.append("```")
    places = ["| room | what lives there |", "|---|---|"]
    places += [f"| [`{name}/`]({name}) | {purpose} |" for name, purpose in rooms(root).items()]
    places.append("| [`results/`](results/README.md) | Committed measurements, with commands. |")
    sections = [
        ["## Scripts", "", *table],
        ["## Commands", "", *commands],
        ["## Rooms", "", *places],
    ]
    return "\n".join([HEAD, *("\n".join([*section, ""]) for section in sections)])


def _runs(file: pathlib.Path) -> bool:
    return GUARD in file.read_text() and file.name != "__init__.py"


def _module(file: pathlib.Path) -> str:
    """What `python -m` takes, for a file or its path relative to the repository."""
    return ".".join(file.with_suffix("").parts).removesuffix(".__main__")


def _commands(file: pathlib.Path) -> list[str]:
    return [p for p in _paragraphs(file) if p.startswith("    python -m ")]


def _script(root: pathlib.Path, file: pathlib.Path) -> Script:
    path = file.relative_to(root)
    first, *others = _paragraphs(file)
    commands = _commands(file)
    if not commands:
        raise ValueError(f"the docstring of {path} shows no command")
    lines = [line.removeprefix("    ") for line in commands[0].splitlines()]
    prose = " ".join(" ".join(p.split()) for p in others if not p.startswith("    "))
    expected = re.search(r"\bExpected:? (?!result)(.*?)\.(?= |$)", prose)
    return Script(
        module=_module(path),
        path=pathlib.PurePosixPath(path),
        purpose=first,
        command="\n".join(lines),
        expected=expected[1] if expected else "",
    )


def _paragraphs(file: pathlib.Path) -> list[str]:
    """The paragraphs of a module's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text()))
    if not text:
        raise ValueError(f"{file} has no docstring")
    return text.split("\n\n")


def main() -> None:
    """Writes the file."""
    LISTING.write_text(listing())
    print(f"written: {LISTING}")


if __name__ == "__main__":
    main()
