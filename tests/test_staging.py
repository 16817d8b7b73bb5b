"""Files are written whole or not at all."""

import concurrent.futures
import json
import pathlib

import pytest

from jist.staging import named, replaced, write_text


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


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_with_the_file(tmp_path):
    """The system's error names the problem but not the file."""
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.json'"), named("a.json"):
        pathlib.Path("/dev/full").write_text("text")


def test_programs_that_write_one_file_at_once_do_not_meet(tmp_path):
    texts = [json.dumps([i] * 1000) for i in range(4)]

    def write(text):
        for _ in range(50):
            write_text(tmp_path / "a.json", text)

    with concurrent.futures.ThreadPoolExecutor(len(texts)) as pool:
        list(pool.map(write, texts))
    assert (tmp_path / "a.json").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_holds_the_text_already_is_left_alone(tmp_path):
    """So a finished run can be read on a read-only mount."""
    write_text(tmp_path / "a.json", "text")
    before = (tmp_path / "a.json").stat()
    write_text(tmp_path / "a.json", "text")
    after = (tmp_path / "a.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_cannot_be_written_is_told_by_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError) as told:
        write_text(tmp_path / "missing" / "a.json", "text")
    assert told.value.filename == str(tmp_path / "missing" / "a.json")
