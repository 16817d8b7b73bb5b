"""Files that are whole or not there."""

import concurrent.futures
import json

import pytest

from jist.staging import replaced, write_text


def test_what_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a.json", "old")

    def fail():
        with replaced(tmp_path / "a.json") as staging:
            staging.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_programs_that_write_one_file_at_once_do_not_meet(tmp_path):
    texts = [json.dumps([i] * 1000) for i in range(4)]

    def write(text):
        for _ in range(50):
            write_text(tmp_path / "a.json", text)

    with concurrent.futures.ThreadPoolExecutor(len(texts)) as pool:
        list(pool.map(write, texts))
    assert (tmp_path / "a.json").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
