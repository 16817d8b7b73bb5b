"""Table 1, from data on disk."""

import pytest
from PIL import Image

from experiments import table1


def test_what_is_found_stands_beside_the_paper_and_what_is_not_is_told(tmp_path, capsys):
    for name, side in (("Airport", 600), ("Pond", 500)):
        (tmp_path / "AID" / name).mkdir(parents=True)
        for n in range(20):
            Image.new("RGB", (side, side)).save(tmp_path / "AID" / name / f"{n}.png")
    table1.main(table1.Table1Options(datasets=("aid", "resisc45"), data_dir=tmp_path))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["aid", "found", "500×500", "to", "600×600", "34", "6", "2"] in lines
    assert ["paper", "600×600", "8,500", "1,500", "30"] in lines
    assert ["resisc45", "found", "not", "there"] in lines
    assert ["paper", "256×256", "27,000", "4,500", "45"] in lines
    assert any(line[:4] == ["not", "there:", "resisc45", "is"] for line in lines)


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="dataset must be digits, cifar10, resisc45, aid"):
        table1.main(table1.Table1Options(datasets=("mnist",)))
