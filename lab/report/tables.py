"""The report as people read it: tables as rows, and the chart of its stages. Pure."""

from __future__ import annotations

import json
from typing import Any

from lab.durations import format_duration
from lab.posture import Posture
from lab.report.critical_path import StageTime, critical_path
from lab.report.model import LabReport


def model_rows(report: LabReport) -> list[dict[str, Any]]:
    """The table of models, one row per model, for an artifact or a terminal."""
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
    """The table of a lab's posture, one row per check; missed checks come first."""
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
    """:func:`model_rows` with the notes about each model, and with the models left out."""
    rows = model_rows(report)
    asked = {row["model"] for row in rows}
    left_out = dict.fromkeys(n.alias for n in report.model_notes if n.alias not in asked)
    rows += [{"model": alias, "verdict": "-"} for alias in left_out]
    if report.model_notes:
        for row in rows:
            notes = [f"{n.action}: {n.why}" for n in report.model_notes if n.alias == row["model"]]
            row["note"] = "; ".join(notes)
    return rows


#: Prefect's UI draws charts on a dark background even in its light theme, and shrinks a chart that
#: is wider than its column. The axis is 50 above the lower edge, whatever the padding.
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
    """A mermaid Gantt chart of ``stages``: what ran when, and what ran in parallel.

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
            # mermaid's own marks; "active" is the one that remains for a failure.
            mark = "active, " if stage.failed else "crit, " if stage.name in waited_for else ""
            name = stage.name.replace(":", " ")
            took = f"{stage.seconds:.1f}s" if stage.seconds < 10 else format_duration(stage.seconds)
            label = f"{name} ({took})"
            lines.append(f"    {label} :{mark}{start}, {end}")
    return "\n".join(lines)
