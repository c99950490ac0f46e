"""The log of a run that does not exist: no unit test of a task has a run of Prefect's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tasks import stage


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that the tested tasks write to the log of their run."""
    lines: list[str] = []
    monkeypatch.setattr(stage, "get_run_logger", lambda: SimpleNamespace(info=lines.append))
    return lines
