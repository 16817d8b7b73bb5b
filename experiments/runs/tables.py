"""Records as a file for other programs: CSV, JSON, JSON lines or Parquet, by the file's ending."""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.command.errors import UsageError
from jist.data import DataError
from jist.staging import replaced


def check_out(path: pathlib.Path | None, suffixes: Sequence[str]) -> None:
    """Checks that a table can be written to a path.

    Raises:
        UsageError: it has another ending.
        DataError: Parquet without pyarrow.
    """
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"out must end in {', '.join(suffixes)}, got {path}")
    if path.suffix.lower() == ".parquet":
        _parquet()


def write_records(records: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Writes flat records, whole or not at all.

    Args:
        records: one for each row; what one lacks is empty.
        path: ends in .csv, .jsonl or .parquet; its directory is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    with replaced(path) as file:
        if suffix == ".parquet":
            pa, parquet = _parquet()
            parquet.write_table(pa.Table.from_pylist([*map(_in_unicode, records)]), file)
        elif suffix == ".csv":
            with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as opened:
                names = list(dict.fromkeys(name for record in records for name in record))
                writer = csv.DictWriter(opened, names)
                writer.writeheader()
                writer.writerows(records)
        else:
            file.write_text("".join(json.dumps(record) + "\n" for record in records))


def _in_unicode(record: dict[str, Any]) -> dict[str, Any]:
    """The record with names of files that are not Unicode as they are printed."""
    return {
        name: of.encode("utf-8", "backslashreplace").decode() if isinstance(of, str) else of
        for name, of in record.items()
    }


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("Parquet needs the package pyarrow: pip install -e '.[parquet]'") from error
    return pa, parquet
