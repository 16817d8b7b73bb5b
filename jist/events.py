"""Scalars for TensorBoard, written by whoever calls, before the call returns.

tensorboardX's `SummaryWriter` hands them to a thread, over a queue of ten. What fails there is not
told, and a clock that is set back by 25 days ends the thread: the queue fills up, and the training
stands still. Its writer of files is enough.
"""

import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any


class Events:
    """A file of events, to which scalars are added.

    Args:
        directory: where the file is made; the directory, too, if need be.
        purge_step: from which step on earlier files of the directory do not count any more.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, directory: pathlib.Path, purge_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        self._event, self._summary, log, writer = _tensorboard()
        self._file = writer(str(directory / "events"))
        start = log(status=log.START)
        self._file.write_event(
            self._event(wall_time=time.time(), step=purge_step, session_log=start)
        )

    def append(self, scalars: Mapping[str, int | float], step: int) -> None:
        """Writes scalars by name; they are on disk when it returns.

        Raises:
            OSError: they cannot be written.
        """
        values = [self._summary.Value(tag=name, simple_value=of) for name, of in scalars.items()]
        summary = self._summary(value=values)
        self._file.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        self._file.flush()

    def close(self) -> None:
        """Closes the file.

        Raises:
            OSError: what is left cannot be written.
        """
        self._file.close()


def _tensorboard() -> tuple[Any, ...]:
    """Messages and writer, imported without PyTorch, which takes a second and is of no use here."""
    known = "torch" in sys.modules
    if not known:
        sys.modules["torch"] = None  # type: ignore[assignment]  # which means: not installed
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2
    finally:
        if not known:
            del sys.modules["torch"]
    made: Any = (event_pb2, summary_pb2)  # protobuf makes their classes when they are imported
    return made[0].Event, made[1].Summary, made[0].SessionLog, EventsWriter
