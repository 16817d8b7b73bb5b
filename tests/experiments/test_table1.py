"""Table 1, from data on disk."""

import pytest
from PIL import Image

from experiments import table1
from jist.data import load_dataset


def test_what_is_found_stands_beside_the_paper_and_what_is_not_is_told(tmp_path, capsys):
    for name, side in (("Airport", 600), ("Pond", 500)):
        (tmp_path / "AID" / name).mkdir(parents=True)
        for n in range(20):
            Image.new("RGB", (side, side)).save(tmp_path / "AID" / name / f"{n}.png")
    table1.main(table1.Table1Options(datasets=("aid", "resisc45"), data_dir=tmp_path))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["aid", "found", "500×500", "to", "600×600", "34", "6", "2"] in lines
    assert ["paper", "600×600", "8,500", "1,500", "30"] in lines
    assert ["resisc45", "found", "not", "usable"] in lines
    assert ["paper", "256×256", "27,000", "4,500", "45"] in lines
    assert any(line[:4] == ["not", "usable:", "resisc45", "is"] for line in lines)


def test_what_cannot_be_used_does_not_end_the_table_and_is_told_why(tmp_path, capsys):
    for name, written in (("a", b"no image"), ("b", None)):
        (tmp_path / "damaged" / name).mkdir(parents=True)
        for n in range(2):
            file = tmp_path / "damaged" / name / f"{n}.png"
            Image.new("RGB", (4, 4)).save(file) if written is None else file.write_bytes(written)
    missing, damaged = f"folder:{tmp_path}/missing", f"folder:{tmp_path}/damaged"
    table1.main(table1.Table1Options(datasets=(missing, damaged, "digits")))
    out = capsys.readouterr().out
    assert f"not usable: {missing} is not there: {tmp_path}/missing is no directory" in out
    assert f"not usable: cannot read image {tmp_path}/damaged/a/" in out
    assert ["digits", "found", "8×8"] in [line.split()[:3] for line in out.splitlines()]
    with pytest.raises(ValueError, match="share .--test-share. must lie in"):
        table1.main(table1.Table1Options(datasets=(damaged,), test_share=2.0))


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="dataset must be digits, cifar10, resisc45, aid"):
        table1.main(table1.Table1Options(datasets=("mnist",)))
    with pytest.raises(ValueError, match="NAME needs the name of a data set, 'tfds:' has none"):
        load_dataset("tfds:", "train")
