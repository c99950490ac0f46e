"""Shows a run in a terminal: each stage live while it runs, then the tables.

On a terminal the table redraws itself; elsewhere (a log file, CI) each change is one line.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lab.durations import format_duration, now
from lab.endpoint import call_with_curl, call_with_python
from lab.posture import Posture
from lab.report.cost import CostReport, cost_rows, cost_words
from lab.report.critical_path import account
from lab.report.model import LabReport, Verdict
from lab.report.tables import model_rows
from workstation.prefect_api import Api

_SIGNS = {
    "COMPLETED": ("✓", "green"),
    "FAILED": ("✗", "red"),
    "CRASHED": ("✗", "red"),
    "CANCELLED": ("✗", "red"),
    "CANCELLING": ("…", "yellow"),
    "RUNNING": ("●", "cyan"),
}
_BAR_WIDTH = 40


def follow(api: Api, run_id: str, title: str, console: Console) -> dict[str, Any]:
    """Show the run until it has ended; return it in its final state."""
    view = _RunView(api, run_id, title)
    run: dict[str, Any] = {}
    if console.is_terminal:
        with Live(view, console=console, refresh_per_second=8, transient=False):
            for run in api.final_states(run_id):
                view.update(run)
        return run
    for run in api.final_states(run_id):
        for line in view.update(run):
            console.print(line, highlight=False, markup=False)
    return run


class _RunView:
    """The state of a run, drawn by rich whenever it refreshes."""

    def __init__(self, api: Api, run_id: str, title: str) -> None:
        self._api, self._run_id, self._title = api, run_id, title
        self._tasks: list[dict[str, Any]] = []
        self._states: dict[str, str] = {}
        self._last_line: dict[str, str] = {}
        self._seen = 0
        self._run: dict[str, Any] = {}
        self._spinner = Spinner("dots")

    def update(self, run: dict[str, Any]) -> list[str]:
        """Read what is new; return it as lines for an output that cannot redraw."""
        lines = []
        if self._run.get("state_name") != run["state_name"]:
            lines.append(f"{self._title}: {run['state_name'].lower()}")
        self._run = run
        self._tasks = self._api.task_runs(self._run_id)
        for task in self._tasks:
            if self._states.get(task["id"]) != task["state_name"]:
                self._states[task["id"]] = task["state_name"]
                lines.append(f"  {task['name']}: {task['state_name'].lower()}{_took(task)}")
        for record in self._api.logs(self._run_id, self._seen):
            self._seen += 1
            if record.get("task_run_id"):
                first = (record["message"].splitlines() or [""])[0]
                self._last_line[record["task_run_id"]] = first
        return lines

    def __rich__(self) -> RenderableType:
        table = Table(box=None, padding=(0, 1), show_header=False, expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
        for task in self._tasks:
            sign, colour = _SIGNS.get(task["state_type"], ("·", "dim"))
            running = task["state_type"] == "RUNNING"
            said = self._last_line.get(task["id"], "") if running else ""
            table.add_row(
                self._spinner if running else Text(sign, style=colour),
                Text(task["name"], style=colour if not running else "bold"),
                _elapsed(task),
                said,
            )
        state = self._run.get("state_name", "scheduled").lower()
        waiting = "waiting for the worker" if not self._tasks and state != "running" else ""
        return Group(Text(f"{self._title}: {state} {waiting}", style="bold"), table)


def _elapsed(task: dict[str, Any]) -> str:
    if task["state_type"] == "RUNNING" and task.get("start_time"):
        started = datetime.fromisoformat(task["start_time"])
        return f"{(datetime.now(UTC) - started).total_seconds():.0f} s"
    seconds = task.get("total_run_time") or 0.0
    return f"{seconds:.1f} s" if task["state_type"] in _SIGNS else ""


def _took(task: dict[str, Any]) -> str:
    ended = task["state_type"] in {"COMPLETED", "FAILED", "CRASHED"}
    return f" ({task.get('total_run_time') or 0.0:.1f} s)" if ended else ""


def show_report(report: LabReport, ui: str, console: Console) -> None:
    """Show models, posture, stages, where the lab answers, how to call it, and when it ends."""
    if report.models:
        console.print(_model_table(report))
    if report.model_notes:
        console.print(_note_table(report))
    if report.posture:
        console.print(_posture(report.posture))
    if report.stages:
        console.print(_stage_table(report))
    if report.cost:
        console.print(_cost_table(report.cost))
    if report.endpoint and report.models:
        console.print(_usage(report))
    left = format_duration(report.expires_at - now())
    console.print(f"Prefect UI   {ui}", highlight=False)
    console.print(f"Destroyed at {report.expires_at:%Y-%m-%d %H:%M:%S} UTC (in {left})")


def _model_table(report: LabReport) -> Table:
    table = Table(title=f"Models of lab {report.lab}", title_justify="left")
    rows = model_rows(report)
    columns = ["model", "verdict", "first token", "total", "tokens"]
    if any(row["error"] for row in rows):
        columns.append("error")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column != "error")
    for row, model in zip(rows, report.models, strict=True):
        good = model.verdict is Verdict.OK
        table.add_row(*(str(row[c]) for c in columns), style=None if good else "red")
    return table


def _posture(posture: Posture) -> Group:
    missed = [Text(f"  ✗ {c.name}: {c.found}; wanted: {c.wanted}", "red") for c in posture.missed]
    return Group(Text(f"Posture      {posture.summary}"), *missed)


def _note_table(report: LabReport) -> Table:
    table = Table(title="Notes on models", title_justify="left")
    for column in ("model", "note", "Bedrock ID", "why"):
        table.add_column(column, overflow="fold")
    for note in report.model_notes:
        table.add_row(note.alias, note.action.value, note.model_id or "-", Text(note.why))
    return table


def _stage_table(report: LabReport) -> Table:
    table = Table(title="Stages", title_justify="left")
    for column in ("stage", "seconds", "waited", "when"):
        table.add_column(column, justify="right" if column in {"seconds", "waited"} else "left")
    origin = min(s.started_at for s in report.stages)
    ends = [(s.started_at - origin).total_seconds() + s.seconds for s in report.stages]
    scale = _BAR_WIDTH / max(*ends, 1.0)
    rows = account(report.stages)
    between = sum(row.waited for row in rows if row.took is None)
    for row in rows:
        if row.took is None:
            continue
        before = round((row.started_at - origin).total_seconds() * scale)
        bar = "█" * max(1, round(row.took * scale))
        colour = "red" if row.failed else "yellow" if row.waited else "cyan"
        table.add_row(
            row.name,
            f"{row.took:.1f}",
            f"{row.waited:.1f}" if row.waited else "",
            Text(" " * before + bar, style=colour),
        )
    table.add_row("between them", "", f"{between:.1f}", "")
    table.add_section()
    table.add_row("all", f"{max(ends):.1f}", f"{sum(row.waited for row in rows):.1f}", "")
    return table


def _cost_table(cost: CostReport) -> Group:
    rows = cost_rows(cost)
    table = Table(title="Cost", title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*row.values())
    said = (f"{what}: {words}" for what, words in cost_words(cost).items())
    return Group(table, *(Text(line) for line in said))


def _usage(report: LabReport) -> Panel:
    alias = report.models[0].alias
    text = f"""eval "$(LAB={report.lab} LAB_TARGET={report.target} make -s env)"

{call_with_curl(alias)}
python3 - <<'PYTHON'
{call_with_python(alias)}PYTHON"""
    return Panel(Text(text), title=f"{report.endpoint}/v1", title_align="left", expand=False)
