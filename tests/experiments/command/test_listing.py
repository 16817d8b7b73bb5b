"""The table of scripts says what their docstrings say."""

import pytest

from experiments.command import listing


def test_the_committed_table_is_that_of_the_docstrings():
    assert listing.LISTING.read_text() == listing.listing(), (
        "experiments/README.md is stale: run python -m experiments.command.listing"
    )


def test_every_script_says_how_long_it_takes():
    named = [script for script in listing.scripts() if script.module.count(".") < 2]
    assert len(named) > 20
    assert [script.module for script in named if not script.expected] == []


def test_every_room_of_experiments_is_listed():
    rooms = {path.parent.name for path in listing.ROOT.glob("experiments/*/*.py")}
    assert set(listing.rooms()) == rooms


SCRIPT = r'''
r"""Times.

    python -m experiments.bench --a \
        --b
    python -m other

Long. Expected on 2 CPU
cores: 1.5 hours. More.
"""

if __name__ == "__main__":
    pass
'''


@pytest.fixture
def house(tmp_path):
    """Two rooms and one script, without anything else."""
    for name in ("bench", "runs"):
        (tmp_path / "experiments" / name).mkdir(parents=True)
        (tmp_path / f"experiments/{name}/__init__.py").write_text(
            f'"""What {name} holds.\n\nMore."""'
        )
    (tmp_path / "experiments/bench/__main__.py").write_text(SCRIPT)
    (tmp_path / "experiments/runs/plan.py").write_text('"""No script."""')
    return tmp_path


def test_a_script_is_read_from_its_docstring(house):
    (script,) = listing.scripts(house)
    assert script.module == "experiments.bench"
    assert script.purpose == "Times."
    assert script.expected == "on 2 CPU cores: 1.5 hours"
    assert script.command == "python -m experiments.bench --a \\\n    --b\npython -m other"
    assert listing.rooms(house) == {"bench": "What bench holds.", "runs": "What runs holds."}
    assert "| [`experiments.bench`](bench/__main__.py) | Times. |" in listing.listing(house)


def test_a_script_at_the_top_must_show_its_command(house):
    (house / "experiments/silent.py").write_text(
        f'"""Says nothing."""\n\n{listing.GUARD}\n    pass\n'
    )
    with pytest.raises(ValueError, match=r"experiments/silent.py shows no command"):
        listing.scripts(house)
