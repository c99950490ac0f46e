"""What is told of an up: stages, models, endpoint, end. One model, written to ``report.json``.

Pure but for :func:`write_report` and what it writes with, which replace files whole.
"""

from __future__ import annotations

import json
import os
import threading
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lab.durations import format_duration
from lab.models.lifecycle import ModelNote
from lab.posture import Posture
from lab.report.cost import CostReport
from lab.report.critical_path import StageTime, critical_path


class Verdict(StrEnum):
    """How a model answered: ``ok``, or the class of its failure."""

    OK = "ok"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    BAD_ANSWER = "bad_answer"
    ERROR = "error"


class ModelResult(BaseModel):
    """What validation found of one model. Times in milliseconds, ``None`` where not reached."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    alias: str
    model_id: str
    verdict: Verdict
    error: str | None = None
    first_token_ms: float | None = None
    total_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    streamed: bool = False


class SbomFile(BaseModel):
    """The image's bill of materials, a file beside the report: its hash and what it lists."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    python_packages: int
    debian_packages: int


class ImageScan(BaseModel):
    """What the image's releases were held against, and what was said of them.

    ``audited_by`` names the public source that was asked, or says why none was; ``sbom`` is None
    where the wheels of an image that was built elsewhere cannot be had here.
    """

    model_config = ConfigDict(frozen=True)

    advisories_of: date
    audited_by: str = "nobody yet"
    notes: list[str] = Field(default_factory=list)
    sbom: SbomFile | None = None


class LabReport(BaseModel):
    """What ``lab-up`` has to say, also when it failed (then ``error`` tells the stage and why)."""

    lab: str
    target: str
    endpoint: str | None = None
    #: The authority of the gateway's certificate, PEM.
    ca: str | None = None
    image: str | None = None
    image_built: bool = False
    base_image: str | None = None
    scan: ImageScan | None = None
    created_at: datetime
    expires_at: datetime
    stages: list[StageTime] = Field(default_factory=list)
    models: list[ModelResult] = Field(default_factory=list)
    model_notes: list[ModelNote] = Field(default_factory=list)
    posture: Posture | None = None
    cost: CostReport | None = None
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the lab is up, every model answered, and nothing of its posture was missed."""
        return (
            self.error is None
            and (self.posture is None or not self.posture.missed)
            and bool(self.models)
            and all(m.verdict is Verdict.OK for m in self.models)
        )


def write_report(report: LabReport, folder: Path) -> Path:
    """Write ``report.json`` into ``folder``, whole."""
    path = folder / "report.json"
    write_whole(path, report.model_dump_json(indent=2) + "\n")
    return path


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` to ``path``; readers see the old or the new file, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def read_report(folder: Path) -> LabReport | None:
    """The report in ``folder``, or ``None`` where there is none."""
    path = folder / "report.json"
    return LabReport.model_validate(json.loads(path.read_text())) if path.exists() else None


def model_rows(report: LabReport) -> list[dict[str, Any]]:
    """The per-model table, one row a model, for an artifact or a terminal."""
    return [
        {
            "model": m.alias,
            "verdict": m.verdict.value,
            "first token": "-" if m.first_token_ms is None else f"{m.first_token_ms:.0f} ms",
            "total": "-" if m.total_ms is None else f"{m.total_ms:.0f} ms",
            "tokens": "-"
            if m.prompt_tokens is None
            else f"{m.prompt_tokens} in, {m.completion_tokens} out",
            "Bedrock ID": m.model_id,
            "error": m.error or "",
        }
        for m in report.models
    ]


def posture_rows(posture: Posture) -> list[dict[str, str]]:
    """The table of a lab's posture, one row a check; what was missed comes first."""
    return [
        {
            "check": check.name,
            "result": "ok" if check.passed else "MISSED",
            "found": check.found,
            "wanted": check.wanted,
        }
        for check in sorted(posture.checks, key=lambda check: check.passed)
    ]


def noted_rows(report: LabReport) -> list[dict[str, Any]]:
    """:func:`model_rows` with what is to be known of each model, and with those left out."""
    rows = model_rows(report)
    asked = {row["model"] for row in rows}
    left_out = dict.fromkeys(n.alias for n in report.model_notes if n.alias not in asked)
    rows += [{"model": alias, "verdict": "-"} for alias in left_out]
    if report.model_notes:
        for row in rows:
            told = [f"{n.told}: {n.why}" for n in report.model_notes if n.alias == row["model"]]
            row["note"] = "; ".join(told)
    return rows


#: Prefect's UI draws charts on a dark ground in its light theme too, and shrinks what is wider
#: than its column. The axis stands 50 above the lower edge, whatever the padding.
_CHART_LOOK = {
    "theme": "base",
    "themeVariables": {
        "taskBkgColor": "#86efac",
        "taskBorderColor": "#22c55e",
        "critBkgColor": "#fcd34d",
        "critBorderColor": "#f59e0b",
        "activeTaskBkgColor": "#fca5a5",
        "activeTaskBorderColor": "#ef4444",
        "taskTextColor": "#0f172a",
        "taskTextDarkColor": "#0f172a",
        "taskTextOutsideColor": "#e2e8f0",
        "textColor": "#e2e8f0",
    },
    "gantt": {
        "useWidth": 560,
        "fontSize": 13,
        "barHeight": 24,
        "barGap": 6,
        "topPadding": 50,
        "leftPadding": 20,
        "rightPadding": 110,
    },
}


def stage_chart(stages: list[StageTime]) -> str:
    """A mermaid Gantt chart of ``stages``: what ran when, and beside what.

    Amber is the critical path, red what failed.
    """
    lines = ["gantt", f"    %%{{init: {json.dumps(_CHART_LOOK)}}}%%"]
    lines += ["    dateFormat x", "    axisFormat %M:%S", "    todayMarker off"]
    if stages:
        origin = min(s.started_at for s in stages)
        waited_for = {step.name for step in critical_path(stages)}
        for stage in stages:
            start = round((stage.started_at - origin).total_seconds() * 1000)
            end = start + max(1, round(stage.seconds * 1000))
            # mermaid's own words; "active" is the one that is left for a failure.
            mark = "active, " if stage.failed else "crit, " if stage.name in waited_for else ""
            name = stage.name.replace(":", " ")
            took = f"{stage.seconds:.1f}s" if stage.seconds < 10 else format_duration(stage.seconds)
            label = f"{name} ({took})"
            lines.append(f"    {label} :{mark}{start}, {end}")
    return "\n".join(lines)
