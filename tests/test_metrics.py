"""Metrics of a run on disk: what TensorBoard reads of them, whatever the clock says."""

import threading
import time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jist.metrics import MetricsLog, read_metrics

DAY = 86400.0


def test_a_clock_that_is_set_back_stops_nothing(tmp_path, monkeypatch):
    """With 25 days and more a thread that waits by the clock would end, or wait for so long."""
    threads = threading.active_count()
    now, back = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: now() - back)
    with MetricsLog(tmp_path, "one") as log:
        log.rewind(0)
        for epoch in range(1, 31):
            log.append({"epoch": epoch, "loss": 1 / epoch, "round": epoch, "note": "text"})
            assert threading.active_count() == threads
            back = 34 * DAY if epoch >= 10 else 0.0
    (path,) = (tmp_path / "tensorboard" / "one").iterdir()
    found = EventAccumulator(str(path)).Reload()
    assert found.Tags()["scalars"] == ["loss", "round"]
    assert [event.step for event in found.Scalars("loss")] == [*range(1, 31)]
    assert [event.value for event in found.Scalars("round")] == [*range(1, 31)]
    assert len(read_metrics(tmp_path)) == 30


def test_epochs_that_are_done_again_count_once(tmp_path, monkeypatch):
    """A run was killed between the line of epoch 3 and its checkpoint."""
    began = time.time()
    for number, (restored, reached) in enumerate(((0, 3), (2, 4))):
        monkeypatch.setattr(time, "time", lambda number=number: began + 10 * number)
        with MetricsLog(tmp_path, "one") as log:
            assert [of["epoch"] for of in log.rewind(restored)] == [*range(1, restored + 1)]
            for epoch in range(restored + 1, reached + 1):
                log.append({"epoch": epoch, "loss": epoch + number / 10})
    found = EventAccumulator(str(tmp_path / "tensorboard" / "one")).Reload().Scalars("loss")
    assert [(event.step, round(event.value, 1)) for event in found] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.1),
        (4, 4.1),
    ]
    assert [of["loss"] for of in read_metrics(tmp_path)] == [1.0, 2.0, 3.1, 4.1]
