"""Reports of an up with one model that answered and one that did not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lab.models.lifecycle import ModelAction, ModelNote
from lab.report.critical_path import StageTime
from lab.report.model import LabReport, ModelResult, Verdict

AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
OK = ModelResult(
    alias="one",
    model_id="vendor.one",
    verdict=Verdict.OK,
    first_token_ms=12.5,
    total_ms=80.0,
    prompt_tokens=7,
    completion_tokens=9,
    streamed=True,
)
BAD = ModelResult(alias="two", model_id="vendor.two", verdict=Verdict.THROTTLED, error="slow down")
NOTES = [
    ModelNote(
        alias="one", action=ModelAction.SUBSTITUTED, model_id="vendor.one", why="old.one: gone"
    ),
    ModelNote(alias="one", action=ModelAction.WARNED, model_id="vendor.one", why="it ends"),
    ModelNote(alias="three", action=ModelAction.SKIPPED, model_id=None, why="gone"),
]


def report(*models: ModelResult, error: str | None = None) -> LabReport:
    return LabReport(
        lab="demo",
        target="local",
        endpoint="https://203.0.113.10:4000",
        image="registry/gateway-lab:01@sha256:0123",
        created_at=AT,
        expires_at=AT + timedelta(hours=2),
        stages=[StageTime(name="preflight", started_at=AT, seconds=1.5)],
        models=list(models),
        error=error,
    )
