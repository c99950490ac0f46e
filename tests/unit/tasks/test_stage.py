"""A run's progress is told beside the run, and its end always."""

from __future__ import annotations

import threading
from uuid import uuid4

import pytest

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
