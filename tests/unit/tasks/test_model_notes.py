"""What a run reports about its models: in the terminal, in Prefect's artifacts, by an event."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from lab.live import LiveLab
from lab.models.lifecycle import ModelAction, ModelNote
from lab.record import LabRecord
from lab.report.cost import load_prices
from lab.report.model import LabReport, ModelResult, Verdict
from lab.settings import Settings
from tasks import publish, watch
from workstation.view import show_report

AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
NOTES = [
    ModelNote(alias="one", action=ModelAction.SUBSTITUTED, model_id="v.new", why="v.old: [gone]"),
    ModelNote(alias="two", action=ModelAction.SKIPPED, model_id=None, why="not offered"),
]


def report(notes: list[ModelNote]) -> LabReport:
    return LabReport(
        lab="demo",
        target="local",
        endpoint="http://203.0.113.10:4000",
        created_at=AT,
        expires_at=AT + timedelta(hours=2),
        models=[ModelResult(alias="one", model_id="v.new", verdict=Verdict.OK)],
        model_notes=notes,
    )


def shown(made: LabReport) -> str:
    console = Console(file=io.StringIO(), width=140)
    show_report(made, "http://127.0.0.1:4200", console)
    said: str = console.file.getvalue()  # type: ignore[attr-defined]
    return said


def test_the_terminal_shows_the_notes_on_models() -> None:
    """should name the substitute and the reason unchanged, and nothing if there are no notes"""
    said = shown(report(NOTES))
    assert "Notes on models" in said
    row = next(line for line in said.splitlines() if "substituted" in line)
    assert "v.new" in row
    assert "v.old: [gone]" in row
    assert "not offered" in said
    assert "Notes on models" not in shown(report([]))


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    made: dict[str, Any] = {}

    def make(content: Any, *, key: str, description: str) -> None:
        made[key] = content

    monkeypatch.setattr(publish, "create_table_artifact", make)
    monkeypatch.setattr(publish, "create_markdown_artifact", make)
    return made


def test_the_models_artifact_shows_it_too(artifacts: dict[str, Any], tmp_path: Any) -> None:
    """should begin with the verdict, end with the note, and have a row for a model left out"""
    publish.publish_report(report(NOTES), Settings(home=tmp_path))
    one, two = artifacts["lab-demo-models"]
    assert list(one)[:3] == ["model", "verdict", "first token"]
    assert list(one)[-1] == "note"
    assert one["note"] == "substituted: v.old: [gone]"
    assert (two["model"], two["note"]) == ("two", "skipped: not offered")
    assert list(two) == list(one)
    publish.publish_report(report([]), Settings(home=tmp_path))
    assert "note" not in artifacts["lab-demo-models"][0]


def live(ending: list[str]) -> LiveLab:
    return LiveLab(
        lab="demo",
        owner="me",
        endpoint=None,
        ready=False,
        created_at=AT,
        expires_at=AT,
        left="1h",
        models=["one", "two"],
        ending=ending,
        allowed=[],
        deployer=None,
        deployer_allowed=None,
        cost=load_prices(Settings().prices_path).report(
            LabRecord(lab="demo", created_at=AT, expires_at=AT + timedelta(hours=2)), AT
        ),
    )


def test_the_watch_shows_which_models_end(artifacts: dict[str, Any]) -> None:
    """should name them and the day in the row of the lab's models"""
    publish.publish_live(live(["two (2030-02-07)"]))
    assert (
        "| Models | one, two (Bedrock retires two (2030-02-07)) |" in artifacts["lab-demo-endpoint"]
    )
    publish.publish_live(live([]))
    assert "| Models | one, two |" in artifacts["lab-demo-endpoint"]


def test_the_watch_reports_once_that_a_model_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """should emit an event when a model's end comes within the notice, and only then"""
    kept: dict[str, Any] = {}
    events: list[dict[str, Any]] = []

    class Variable:
        @staticmethod
        def get(name: str, default: Any) -> Any:
            return json.loads(kept[name]) if name in kept else default

        @staticmethod
        def set(name: str, value: Any, overwrite: bool) -> None:
            kept[name] = json.dumps(value)

    monkeypatch.setattr(watch, "Variable", Variable)
    monkeypatch.setattr(watch, "emit_event", lambda **event: events.append(event))
    for ending in ([], [], ["two (2030-02-07)"], ["two (2030-02-07)"]):
        watch._report_changes(live(ending))
    (event,) = events
    assert event["event"] == "lab.changed"
    assert event["payload"]["before"]["ending_models"] == []
    assert event["payload"]["now"]["ending_models"] == ["two (2030-02-07)"]
