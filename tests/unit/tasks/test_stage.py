"""A run's progress is published in a thread of its own, and its end always."""

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
    """Prefect's server, which may be slow or answer nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> None:
        self.shown: list[float] = []
        self.said = logged
        self.free = threading.Event()
        self.asked = threading.Event()
        self.broken = False
        monkeypatch.setattr(stages, "update_progress_artifact", self._update)

    def _update(self, _: object, *, progress: float) -> None:
        self.asked.set()
        assert self.free.wait(SECONDS)
        if self.broken:
            raise RuntimeError("the server does not answer")
        self.shown.append(progress)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> Server:
    return Server(monkeypatch, logged)


def test_no_stage_waits_for_the_server(server: Server) -> None:
    """should skip values that are outdated when the server answers, and show the last"""
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
    """should log it"""
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


def test_a_good_part_does_not_hide_a_failed_one() -> None:
    """should count the stage as failed: its parts are separate tasks"""
    log = StageLog(["validate"])
    error = fail(log, "validate", PermanentError("the gateway lists other models"))
    with log.stage("validate"):
        pass
    assert failed(log) == ["validate"]
    assert log.failed_stage(error) == "validate"


def test_a_stage_that_succeeds_at_a_later_try_has_not_failed() -> None:
    """should forget a transient error"""
    log = StageLog(["provision"])
    error = fail(log, "provision", TransientError("throttled"))
    assert failed(log) == ["provision"]
    with log.stage("provision"):
        pass
    assert failed(log) == []
    assert log.failed_stage(error) is None


def test_an_error_belongs_to_the_stage_that_raised_it() -> None:
    """should not name another stage that failed at the same time, even if it began earlier"""
    log = StageLog(["build image", "provision"])
    fail(log, "provision", PermanentError("no capacity"))
    error = fail(log, "build image", PermanentError("no space"))
    assert log.failed_stage(error) == "build image"
    assert log.failed_stage(PermanentError("raised by no stage")) == "provision"


def test_no_stage_begins_in_a_run_that_is_ending() -> None:
    """should do nothing that another run may be doing now"""
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
