"""The report is a contract: other programs read its file."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from lab.report.model import LabReport, read_report, write_report
from tests.unit.lab.report.reports import AT, BAD, NOTES, OK, report


def test_the_file_has_the_promised_fields(tmp_path: Path) -> None:
    """should have every field that the contract names, with the same spelling"""
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
    assert written["image"] == "registry/gateway-lab:01@sha256:0123"
    assert [m["verdict"] for m in written["models"]] == ["ok", "throttled"]
    assert datetime.fromisoformat(written["expires_at"]) == AT + timedelta(hours=2)


def test_reads_what_was_written(tmp_path: Path) -> None:
    """should be the same report after a round trip"""
    write_report(report(OK, BAD), tmp_path)
    assert read_report(tmp_path) == report(OK, BAD)


def test_a_missing_report_is_none(tmp_path: Path) -> None:
    """should be None if there was no up"""
    assert read_report(tmp_path) is None


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    """should put a new file in the old one's place, never write into a file that somebody reads"""
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


def test_notes_are_in_the_file(tmp_path: Path) -> None:
    """should name the substitute, and read a report that has no notes"""
    noted = report(OK).model_copy(update={"model_notes": NOTES})
    written = json.loads(write_report(noted, tmp_path).read_text())
    assert written["model_notes"][0] == {
        "alias": "one",
        "action": "substituted",
        "model_id": "vendor.one",
        "why": "old.one: gone",
    }
    assert read_report(tmp_path) == noted
    del written["model_notes"]
    assert LabReport.model_validate(written).model_notes == []


def test_a_report_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """should find a note by the name that it had in the file of 0.1.0"""
    noted = report(OK).model_copy(update={"model_notes": NOTES})
    path = write_report(noted, tmp_path)
    path.write_text(path.read_text().replace('"action":', '"told":'))
    assert "action" not in path.read_text()
    assert read_report(tmp_path) == noted
