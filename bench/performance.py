"""Writes docs/performance.md from the results: tables, and charts that GitHub draws from text.

Usage: python -m bench.performance
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from string import Template
from typing import Any

import yaml

from lab.report.critical_path import StageTime, account
from lab.settings import ROOT

RESULTS = ROOT / "bench" / "results" / "latest.json"
RAW = ROOT / "bench" / "results" / "raw.json"
IDEAS = ROOT / "bench" / "ideas.yaml"
TEMPLATE = ROOT / "bench" / "performance.md.in"
PAGE = ROOT / "docs" / "performance.md"

#: The usual time from a task's request to its container's start, in seconds; source on the page.
LAUNCH = (30.0, 45.0)
START_ROWS = {
    "reference": "container start to ready at 0.25 vCPU and 512 MB",
    "ours": "container start to ready at 1 vCPU and 2048 MB",
}
#: How the names of the rows of task sizes begin; the figures of each are ``SIZE_FIGURES``.
TASK = "task of "
#: How the names of the rows of several labs end; they are compared with one lab by itself.
AT_ONCE = " labs at once, each"
SIZE_FIGURES = ("start to ready", "requests per second", "price")
#: The stages of each side's up that contain a task's launch and the gateway's start.
ROLLOUT = {"reference": {"poll", "address", "fixed wait"}, "ours": {"rollout"}}


def render(results: dict[str, Any], raw: dict[str, Any], ideas: dict[str, Any]) -> str:
    """The page. Equal input gives equal text."""
    rows = results["rows"]
    details = raw["details"]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        date=raw["date"],
        commit=results["commit"],
        machine=_machine(results["machine"]),
        runs="A quick run: each figure was taken once, and is not for the record."
        if raw["quick"]
        else "",
        table=_results(rows, raw),
        failures=_failures(raw["failures"]),
        ratio_chart=_ratio_chart(rows),
        gantt=_gantt(details.get("first up", {})),
        floor_first=_floor(details, "first up"),
        floor_rebuild=_floor(details, "rebuild"),
        sizes=_sizes(rows),
        fleet=_fleet(rows),
        missed=_missed(rows, ideas),
        projection=_projection(rows, details),
        launch_low=f"{LAUNCH[0]:.0f}",
        launch_high=f"{LAUNCH[1]:.0f}",
    )


def main() -> None:
    """Write the page."""
    results, raw = json.loads(RESULTS.read_text()), json.loads(RAW.read_text())
    ideas = yaml.safe_load(IDEAS.read_text(encoding="utf-8")) or {}
    PAGE.write_text(render(results, raw, ideas), encoding="utf-8")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} processors, {machine['memory_gb']} GB, "
        f"{machine['system']}, Docker {machine['docker']}, Terraform {machine['terraform']}, "
        f"Python {machine['python']}"
    )


def _results(rows: list[dict[str, Any]], raw: dict[str, Any]) -> str:
    lines = []
    for row in rows:
        known = raw["rows"][row["name"]]
        judged = "ratio" if known["aim_of"] == "ratio" else row["unit"]
        aim = "-" if row["aim"] is None else f"at most {row['aim']:g}"
        lines.append(
            [
                row["name"],
                row["unit"],
                _number(row["reference"]),
                _number(row["ours"]),
                _number(row["ratio"]),
                aim if row["aim"] is None or judged == "ratio" else f"{aim} {judged}",
                {True: "yes", False: "**no**", None: "-"}[row["met"]],
                known["note"],
            ]
        )
    return _table(["what", "unit", "reference", "ours", "ratio", "aim", "met", ""], lines)


def _failures(failures: list[dict[str, Any]]) -> str:
    if not failures:
        return ""
    lines = [
        f"- {f['series']}, {f['side']}, run {f['run']}: {f['said'].splitlines()[0]}"
        for f in failures
    ]
    return "Runs that failed:\n\n" + "\n".join(lines)


def _ratio_chart(rows: list[dict[str, Any]]) -> str:
    shown = [row for row in rows if row["ratio"] is not None]
    if not shown:
        return ""
    names = ", ".join(f'"{row["name"]}"' for row in shown)
    ratios = ", ".join(f"{row['ratio']:.2f}" for row in shown)
    most = max(1.0, *(row["ratio"] for row in shown))
    return f"""```mermaid
---
config:
    xyChart:
        width: 900
        height: {120 + 34 * len(shown)}
---
xychart-beta horizontal
    title "Ours, the reference being 1"
    x-axis [{names}]
    y-axis "ratio" 0 --> {most:.2f}
    bar [{ratios}]
```"""


def _stages(details: dict[str, list[Any]], side: str) -> list[StageTime]:
    """The stages of the side's run with the median length."""
    runs = [[StageTime.model_validate(stage) for stage in run] for run in details.get(side, [])]
    if not runs:
        return []
    return sorted(runs, key=_length)[len(runs) // 2]


def _length(stages: list[StageTime]) -> float:
    return sum(row.waited for row in account(stages))


def _gantt(details: dict[str, list[Any]]) -> str:
    lines = ["gantt", "    dateFormat x", "    axisFormat %M:%S", "    todayMarker off"]
    for side in ("reference", "ours"):
        stages = _stages(details, side)
        if not stages:
            continue
        lines.append(f"    section {side}")
        origin = min(stage.started_at for stage in stages)
        waited = {row.name for row in account(stages) if row.waited}
        for stage in stages:
            start = round((stage.started_at - origin).total_seconds() * 1000)
            end = start + max(1, round(stage.seconds * 1000))
            mark = "crit, " if stage.name in waited else ""
            lines.append(f"    {stage.name} ({stage.seconds:.0f}s) :{mark}{start}, {end}")
    if len(lines) == 4:
        return "Not measured."
    return "\n".join(["```mermaid", *lines, "```"])


def _floor(details: dict[str, Any], what: str) -> str:
    rows = [row for row in account(_stages(details.get(what, {}), "ours")) if row.waited]
    if not rows:
        return "Not measured."
    lines = [[row.name, f"{row.waited:.1f}", row.spent_on] for row in rows]
    lines.append(["**all**", f"**{sum(row.waited for row in rows):.1f}**", ""])
    return _table(["stage", "seconds", "waits for"], lines)


def _sizes(rows: list[dict[str, Any]]) -> str:
    """A table of the task sizes, and a chart of each of their figures."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        size, colon, what = row["name"].removeprefix(TASK).partition(": ")
        if row["name"].startswith(TASK) and colon and row["ours"] is not None:
            found.setdefault(size, {})[what] = row["ours"]
    whole = {size: of for size, of in found.items() if of.keys() == set(SIZE_FIGURES)}
    if not whole:
        return "Not measured."
    lines = [
        [
            size,
            *(_number(of[what]) for what in SIZE_FIGURES),
            _number(1e6 * of["price"] / (3600 * of["requests per second"])),
        ]
        for size, of in whole.items()
    ]
    head = ["task", "start to ready, s", "requests/s", "USD an hour", "USD a million requests"]
    charts = [
        _size_chart(whole, "requests per second", "requests per second"),
        _size_chart(whole, "start to ready", "seconds from start to ready"),
        _size_chart(whole, "price", "USD an hour"),
    ]
    return "\n\n".join([_table(head, lines), *charts])


def _size_chart(sizes: dict[str, dict[str, float]], what: str, title: str) -> str:
    names = ", ".join(f'"{size.partition(" ")[0]}"' for size in sizes)
    values = [of[what] for of in sizes.values()]
    return f"""```mermaid
xychart-beta
    title "{title}"
    x-axis "vCPU" [{names}]
    y-axis "{title}" 0 --> {1.1 * max(values):.3g}
    bar [{", ".join(f"{value:.3g}" for value in values)}]
```"""


def _fleet(rows: list[dict[str, Any]]) -> str:
    """A table and a chart of the time for each lab when several come up at once."""
    found = {
        int(row["name"].partition(" ")[0]): row
        for row in rows
        if row["name"].endswith(AT_ONCE) and row["ours"] is not None
    }
    if not found:
        return "Not measured."
    alone = next(iter(found.values()))["reference"]
    each = {1: alone} | {number: row["ours"] for number, row in sorted(found.items())}
    lines = [
        [str(number), _number(number * value), _number(value), _number(value / alone)]
        for number, value in each.items()
    ]
    table = _table(["labs", "until the last is up, s", "each, s", "of one by itself"], lines)
    chart = f"""```mermaid
xychart-beta
    title "seconds for each lab"
    x-axis "labs at once" [{", ".join(f'"{number}"' for number in each)}]
    y-axis "seconds" 0 --> {1.1 * max(each.values()):.3g}
    bar [{", ".join(f"{value:.3g}" for value in each.values())}]
```"""
    return f"{table}\n\n{chart}"


def _missed(rows: list[dict[str, Any]], ideas: dict[str, Any]) -> str:
    missed = [row for row in rows if row["met"] is False]
    parts = [] if missed else ["Every aim is met."]
    by_name = {row["name"]: row for row in rows}
    for name in dict.fromkeys([*(row["name"] for row in missed), *ideas]):
        state = "missed" if by_name.get(name, {}).get("met") is False else "met"
        unit = by_name[name]["unit"] if name in by_name else ""
        lines = [
            [
                str(idea["idea"]),
                f"{idea['before']} {unit}",
                f"{idea['after']} {unit}",
                "yes" if idea["kept"] else "no",
            ]
            for idea in ideas.get(name, [])
        ]
        tried = _table(["tried", "before", "after", "kept"], lines) if lines else "Nothing tried."
        parts.append(f"### {name}: {state}\n\n{tried}")
    return "\n\n".join(parts)


def _projection(rows: list[dict[str, Any]], details: dict[str, Any]) -> str:
    by_name = {row["name"]: row for row in rows}
    lines = []
    for what in ("first up", "rebuild"):
        for side in ("reference", "ours"):
            whole = by_name.get(what, {}).get(side)
            start = by_name.get(START_ROWS[side], {}).get(side)
            stages = _stages(details.get(what, {}), side)
            if whole is None or start is None or not stages:
                continue
            launched = sum(s.seconds for s in stages if s.name in ROLLOUT[side])
            if side == "reference":
                # It waits its fixed time, whatever the gateway does meanwhile.
                fixed = sum(s.seconds for s in stages if s.name in {"address", "fixed wait"})
                start = max(start, fixed)
            low, high = (whole - launched + launch + start for launch in LAUNCH)
            lines.append(
                [
                    what,
                    side,
                    _number(whole),
                    _number(launched),
                    _number(start),
                    f"{low:.0f} to {high:.0f}",
                ]
            )
    if not lines:
        return "Not measured."
    head = ["what", "side", "measured here", "of which rollout", "container start", "on AWS"]
    return _table(head, lines)


if __name__ == "__main__":
    main()
