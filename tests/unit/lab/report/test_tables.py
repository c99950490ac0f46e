"""People read the report as tables and as a chart of its stages."""

from __future__ import annotations

import json
import re
from datetime import timedelta

from lab.report.critical_path import StageTime
from lab.report.tables import model_rows, noted_rows, stage_chart
from tests.unit.lab.report.reports import AT, BAD, NOTES, OK, report


def test_rows_show_what_was_not_reached() -> None:
    """should show a dash instead of a missing measurement, and the error in the same row"""
    good, bad = model_rows(report(OK, BAD))
    assert good["first token"] == "12 ms"  # pragma: allowlist secret: a table's cell
    assert good["tokens"] == "7 in, 9 out"  # pragma: allowlist secret: a table's cell
    assert (bad["first token"], bad["total"], bad["tokens"]) == ("-", "-", "-")
    assert bad["error"] == "slow down"
    assert bad["verdict"] == "throttled"


def test_rows_have_the_notes() -> None:
    """should have the action for each model, and a row for one that was left out"""
    assert noted_rows(report(OK, BAD)) == model_rows(report(OK, BAD))
    rows = noted_rows(report(OK, BAD).model_copy(update={"model_notes": NOTES}))
    assert [(row["model"], row["verdict"], row["note"]) for row in rows] == [
        ("one", "ok", "substituted: old.one: gone; warned: it ends"),
        ("two", "throttled", ""),
        ("three", "-", "skipped: gone"),
    ]


def test_the_chart_is_mermaid() -> None:
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


def test_the_chart_has_its_own_style() -> None:
    """should have its own colours and width, as mermaid reads them, and in no stage's line"""
    (line,) = [x for x in stage_chart([]).splitlines() if "init" in x]
    found = re.fullmatch(r" +%%\{init: (.*)\}%%", line)
    assert found
    look = json.loads(found[1])
    assert look["gantt"]["useWidth"] == 560
    assert look["themeVariables"]["taskTextOutsideColor"].startswith("#e")


def test_the_chart_of_an_empty_run_is_valid() -> None:
    """should be a chart even if the run ended before its first stage did"""
    assert stage_chart([]).startswith("gantt")
