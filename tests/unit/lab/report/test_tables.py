"""The report is a contract: other programs read its file, and people its table and its chart."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.models.lifecycle import ModelAction, ModelNote
from lab.report.critical_path import StageTime
from lab.report.model import LabReport, ModelResult, Verdict, read_report, write_report
from lab.report.tables import model_rows, noted_rows, stage_chart

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


def report(*models: ModelResult, error: str | None = None) -> LabReport:
    return LabReport(
        lab="demo",
        target="local",
        endpoint="https://203.0.113.10:4000",
        image="registry/gateway-lab@sha256:0123",
        created_at=AT,
        expires_at=AT + timedelta(hours=2),
        stages=[StageTime(name="preflight", started_at=AT, seconds=1.5)],
        models=list(models),
        error=error,
    )


def test_file_has_the_promised_fields(tmp_path: Path) -> None:
    """should hold every field that the contract names, spelt as there"""
    written = json.loads(write_report(report(OK, BAD), tmp_path).read_text())
    assert (tmp_path / "report.json").exists()
    top = {"lab", "endpoint", "image", "created_at", "expires_at", "stages", "models"}
    assert top <= set(written)
    assert {"name", "started_at", "seconds"} <= set(written["stages"][0])
    assert set(written["models"][0]) == {
        "alias",
        "model_id",
        "verdict",
        "error",
        "first_token_ms",
        "total_ms",
        "prompt_tokens",
        "completion_tokens",
        "streamed",
    }
    assert [m["verdict"] for m in written["models"]] == ["ok", "throttled"]
    assert datetime.fromisoformat(written["expires_at"]) == AT + timedelta(hours=2)


def test_reads_what_was_written(tmp_path: Path) -> None:
    """should be the same report after a round trip"""
    write_report(report(OK, BAD), tmp_path)
    assert read_report(tmp_path) == report(OK, BAD)


def test_no_report_is_none(tmp_path: Path) -> None:
    """should be None where no up has been"""
    assert read_report(tmp_path) is None


def test_write_replaces_the_file_whole(tmp_path: Path) -> None:
    """should put a new file in the old one's place, never write into what somebody reads"""
    folder = tmp_path / "labs" / "demo"
    path = write_report(report(OK), folder)
    before = path.stat().st_ino
    with path.open(encoding="utf-8") as reader:
        write_report(report(OK, BAD), folder)
        assert len(json.load(reader)["models"]) == 1
    assert path.stat().st_ino != before
    assert [p.name for p in folder.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("made", "passed"),
    [
        (report(OK), True),
        (report(OK, BAD), False),
        (report(), False),
        (report(OK, error="rollout: failed"), False),
    ],
)
def test_passed_means_every_model_answered(made: LabReport, passed: bool) -> None:
    """should not be passed without models, with a bad one, or with an error"""
    assert made.passed is passed


def test_rows_tell_what_was_not_reached() -> None:
    """should show a dash where there is no measure, and the error beside it"""
    good, bad = model_rows(report(OK, BAD))
    assert good["first token"] == "12 ms"  # pragma: allowlist secret: a table's cell
    assert good["tokens"] == "7 in, 9 out"  # pragma: allowlist secret: a table's cell
    assert (bad["first token"], bad["total"], bad["tokens"]) == ("-", "-", "-")
    assert bad["error"] == "slow down"
    assert bad["verdict"] == "throttled"


NOTES = [
    ModelNote(
        alias="one", action=ModelAction.SUBSTITUTED, model_id="vendor.one", why="old.one: gone"
    ),
    ModelNote(alias="one", action=ModelAction.WARNED, model_id="vendor.one", why="it ends"),
    ModelNote(alias="three", action=ModelAction.SKIPPED, model_id=None, why="gone"),
]


def test_notes_are_in_the_file(tmp_path: Path) -> None:
    """should say what answers instead, and read a report that has none"""
    noted = report(OK).model_copy(update={"model_notes": NOTES})
    written = json.loads(write_report(noted, tmp_path).read_text())
    assert written["model_notes"][0] == {
        "alias": "one",
        "told": "substituted",
        "model_id": "vendor.one",
        "why": "old.one: gone",
    }
    assert read_report(tmp_path) == noted
    del written["model_notes"]
    assert LabReport.model_validate(written).model_notes == []


def test_rows_carry_the_notes() -> None:
    """should have what was done about each model, and a row for one that was left out"""
    assert noted_rows(report(OK, BAD)) == model_rows(report(OK, BAD))
    rows = noted_rows(report(OK, BAD).model_copy(update={"model_notes": NOTES}))
    assert [(row["model"], row["verdict"], row["note"]) for row in rows] == [
        ("one", "ok", "substituted: old.one: gone; warned: it ends"),
        ("two", "throttled", ""),
        ("three", "-", "skipped: gone"),
    ]


def test_chart_is_mermaid() -> None:
    """should have one valid line a stage, from the first beginning, and mark path and failure"""
    stages = [
        StageTime(name="foundation", started_at=AT, seconds=1.5),
        StageTime(name="build: image", started_at=AT, seconds=90),
        StageTime(name="preflight", started_at=AT - timedelta(seconds=2), seconds=2),
        StageTime(name="its end", started_at=AT + timedelta(seconds=90), seconds=1.25, failed=True),
    ]
    head, *rest = stage_chart(stages).splitlines()
    assert head == "gantt"
    tasks = [line for line in rest if re.search(r":(\w+, )?\d", line)]
    line = re.compile(r" +[^:#;,]+ :(?:(crit|active), )?(\d+), (\d+)")
    found = [line.fullmatch(task) for task in tasks]
    assert all(found)
    spans = [(m[1], int(m[2]), int(m[3])) for m in found if m]
    assert spans == [
        (None, 2000, 3500),
        ("crit", 2000, 92000),
        ("crit", 0, 2000),
        ("active", 92000, 93250),
    ]
    assert "    dateFormat x" in rest
    assert tasks[0].startswith("    foundation (1.5s) ")
    assert tasks[1].startswith("    build  image (1m30s) ")


def test_chart_says_how_it_looks() -> None:
    """should carry its own colours and width, in the form that mermaid reads, beside no stage"""
    (line,) = [x for x in stage_chart([]).splitlines() if "init" in x]
    found = re.fullmatch(r" +%%\{init: (.*)\}%%", line)
    assert found
    look = json.loads(found[1])
    assert look["gantt"]["useWidth"] == 560
    assert look["themeVariables"]["taskTextOutsideColor"].startswith("#e")


def test_chart_of_nothing() -> None:
    """should be a chart also where the run ended before its first stage did"""
    assert stage_chart([]).startswith("gantt")
