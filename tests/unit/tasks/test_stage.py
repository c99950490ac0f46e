"""A run's progress is told beside the run, and its end always."""

from __future__ import annotations

import threading
from uuid import uuid4

import pytest

from adapters.process import interrupt_children, interruptible
from lab.errors import InterruptedWorkError, PermanentError, TransientError
from tasks import stage as stages
from tasks.stage import Progress, StageLog

SECONDS = 30.0


class Server:
    """Prefect's, which may take its time or answer nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[float] = []
        self.said: list[str] = []
        self.free = threading.Event()
        self.asked = threading.Event()
        self.broken = False
        monkeypatch.setattr(stages, "update_progress_artifact", self._update)
        monkeypatch.setattr(stages, "run_log", lambda: self.said.append)

    def _update(self, _: object, *, progress: float) -> None:
        self.asked.set()
        assert self.free.wait(SECONDS)
        if self.broken:
            raise RuntimeError("the server does not answer")
        self.shown.append(progress)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def test_no_stage_waits_for_the_server(server: Server) -> None:
    """should pass over what was overtaken while the server took its time, and show the last"""
    progress = Progress(uuid4())
    log = StageLog(["a", "b", "c", "d"], progress.show)
    with log.stage("a"):
        pass
    assert server.asked.wait(SECONDS)
    for name in ("b", "c", "d"):
        with log.stage(name):
            pass
    assert server.shown == []
    server.free.set()
    progress.close()
    assert server.shown == [25.0, 100.0]


def test_a_server_that_does_not_answer_ends_no_run(server: Server) -> None:
    """should say so in the log"""
    server.broken = True
    server.free.set()
    progress = Progress(uuid4())
    progress.show(50.0)
    progress.close()
    assert server.said == ["the progress could not be shown: the server does not answer"]


def fail(log: StageLog, stage: str, error: Exception) -> Exception:
    with pytest.raises(type(error)), log.stage(stage):
        raise error
    return error


def failed(log: StageLog) -> list[str]:
    return [stage.name for stage in log.times() if stage.failed]


def test_a_part_that_goes_well_does_not_hide_one_that_failed() -> None:
    """should call the stage failed: its parts are tasks of their own"""
    log = StageLog(["validate"])
    error = fail(log, "validate", PermanentError("the gateway lists other models"))
    with log.stage("validate"):
        pass
    assert failed(log) == ["validate"]
    assert log.failed_stage(error) == "validate"


def test_a_stage_that_went_well_at_another_try_has_not_failed() -> None:
    """should forget what was transient"""
    log = StageLog(["provision"])
    error = fail(log, "provision", TransientError("throttled"))
    assert failed(log) == ["provision"]
    with log.stage("provision"):
        pass
    assert failed(log) == []
    assert log.failed_stage(error) is None


def test_an_error_is_that_of_the_stage_which_raised_it() -> None:
    """should not name another stage that failed at the same time, though it began before"""
    log = StageLog(["build image", "provision"])
    fail(log, "provision", PermanentError("no capacity"))
    error = fail(log, "build image", PermanentError("no space"))
    assert log.failed_stage(error) == "build image"
    assert log.failed_stage(PermanentError("raised by no stage")) == "provision"


def test_no_stage_begins_in_a_run_that_is_ending() -> None:
    """should do nothing that another run may do by now"""
    done: list[str] = []
    provision = stages.stage("provision", run_name="provision")(lambda: done.append("provision"))
    with interruptible():
        interrupt_children()
        with pytest.raises(InterruptedWorkError, match="provision"):
            provision.fn()
    assert done == []
    with interruptible():
        provision.fn()
    assert done == ["provision"]
