"""The bench itself: the order of runs, the handling of failures, and the results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from bench import performance
from bench.harness import Aim, Measured, Row, Series, choose, result_rows, run, single
from bench.rows import SERIES
from bench.stubs import event_message

FAST, SLOW, FREE = Row("fast", "s", Aim(0.5)), Row("slow", "s", Aim(5, "ours")), Row("free", "s")
SHARE = Row("share", "%", Aim(5, "ours"))


class Journal:
    """The context of these tests: the actions, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []


def side(
    name: str, *figures: tuple[str, float], fails: str = ""
) -> Callable[[Journal], Iterator[tuple[str, float]]]:
    def measure(journal: Journal) -> Iterator[tuple[str, float]]:
        journal.done.append(name)
        try:
            for figure in figures:
                yield figure
                journal.done.append(f"{name} after {figure[0]}")
            if fails:
                raise RuntimeError(fails)
        finally:
            journal.done.append(f"{name} cleaned up")

    return measure


def series(**options: Any) -> Series[Journal]:
    return Series("both", (FAST, SLOW), **options)


def measure(*chosen: Series[Journal], only: tuple[str, ...] = (), **options: Any) -> Any:
    journal, said = Journal(), list[str]()
    measured = run(choose(chosen, only), journal, said.append, **options)
    return measured, journal.done, said


def test_sides_take_turns() -> None:
    """should alternate reference and lab, so that a slow phase of the machine affects both"""
    one = single(FAST, lambda j: _noted(j, "o", 1.0), lambda j: _noted(j, "r", 4.0), runs=2)
    measured, done, _ = measure(one)
    assert done == ["r", "o", "r", "o"]
    assert measured.figures == {"fast": {"reference": [4.0, 4.0], "ours": [1.0, 1.0]}}


def _noted(journal: Journal, name: str, value: float) -> float:
    journal.done.append(name)
    return value


def test_a_failure_is_logged_and_stops_nothing_else() -> None:
    """should keep earlier results, and go on with the other side and the next series"""
    broken = series(
        ours=side("ours", ("fast", 1.0), ("slow", 2.0)),
        reference=side("ref", ("fast", 4.0), fails="no engine"),
        runs=1,
    )
    after = single(FREE, lambda j: _noted(j, "free", 9.0), runs=1)
    measured, done, said = measure(broken, after)
    assert measured.figures["fast"] == {"reference": [4.0], "ours": [1.0]}
    assert measured.figures["free"] == {"ours": [9.0]}
    assert [(f.series, f.side, f.run, f.said) for f in measured.failures] == [
        ("both", "reference", 1, "no engine")
    ]
    assert "ref cleaned up" in done
    assert any("FAILED: no engine" in line for line in said)
    rows = {row["name"]: row for row in result_rows([broken, after], measured)}
    assert rows["slow"]["reference"] is None
    assert rows["slow"]["ratio"] is None


def test_a_side_that_keeps_failing_is_abandoned() -> None:
    """should not spend the others' time on it forever"""
    measured, done, _ = measure(series(ours=side("ours", fails="no"), runs=5))
    assert done.count("ours") == len(measured.failures) == 2


def test_only_requested_rows_are_measured() -> None:
    """should stop a series after the requested row, and let it clean up"""
    both = series(ours=side("ours", ("fast", 1.0), ("slow", 2.0)), runs=1)
    other = single(FREE, lambda j: _noted(j, "free", 9.0))
    measured, done, _ = measure(both, other, only=("fast",))
    assert measured.figures == {"fast": {"ours": [1.0]}}
    assert done == ["ours", "ours cleaned up"]
    assert measure(both, other, only=("both",))[0].figures.keys() == {"fast", "slow"}
    with pytest.raises(KeyError, match="nothing"):
        choose([both], ["nothing"])


def test_a_row_may_have_more_figures_than_runs() -> None:
    """should let a whole series run to its end, even if a row comes twice"""
    twice = series(ours=side("o", ("fast", 1.0), ("slow", 2.0), ("fast", 3.0)), runs=1)
    assert measure(twice)[0].figures["fast"] == {"ours": [1.0, 3.0]}


def test_a_figure_without_a_row_is_an_error() -> None:
    """should be reported: a row renamed in only one place would be missing without a message"""
    measured, _, _ = measure(series(ours=side("o", ("fats", 1.0)), runs=1))
    assert "fats" in measured.failures[0].said


def test_quick_is_once_and_the_budget_ends_repeats() -> None:
    """should measure everything at least once, however late it is"""
    one = single(FAST, lambda _: 1.0, runs=3)
    other = single(FREE, lambda _: 1.0, runs=3)
    measured, _, _ = measure(one, other, quick=True)
    assert [len(v["ours"]) for v in measured.figures.values()] == [1, 1]
    ticks = iter(range(0, 1000, 10))
    measured, _, said = measure(one, other, budget=35, clock=lambda: float(next(ticks)))
    assert len(measured.figures["fast"]["ours"]) == 3
    assert len(measured.figures["free"]["ours"]) == 1
    assert "free: no further run, 35s have gone" in said
    measured, _, _ = measure(one, other, budget=-1)
    assert [len(v["ours"]) for v in measured.figures.values()] == [1, 1]


@pytest.mark.parametrize(
    ("row", "reference", "ours", "ratio", "met"),
    [
        (FAST, [10, 4, 90], [5, 1, 6], 0.5, True),
        (FAST, [10], [5.1], 0.51, False),
        (FAST, [], [5], None, False),
        (FAST, [10], [], None, False),
        (SLOW, [1], [5], 5.0, True),
        (SLOW, [], [5.01], None, False),
        (FREE, [2], [1], 0.5, None),
        (FREE, [0], [1], None, None),
        (SHARE, [-0.1], [2], None, True),
        (SHARE, [0.1], [2], None, True),
    ],
)
def test_an_aim_is_met_or_not(
    row: Row, reference: list[float], ours: list[float], ratio: float | None, met: bool | None
) -> None:
    """should judge medians: the ratio, or the lab's value if the aim is about that"""
    measured = Measured({row.name: {"reference": reference, "ours": ours}})
    (result,) = result_rows([single(row, lambda _: 0.0)], measured)
    assert list(result) == ["name", "unit", "reference", "ours", "ratio", "aim", "met"]
    assert (result["ratio"], result["met"]) == (ratio, met)
    assert result["aim"] == (row.aim.at_most if row.aim else None)


def test_names_are_unique() -> None:
    """should name each row once, or --only and the results would confuse two rows"""
    names = [row.name for one in SERIES for row in one.rows]
    assert len(names) == len(set(names))
    assert all(one.runs >= one.quick_runs >= 1 for one in SERIES)


AT = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


def results(*, met: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    rows = [
        _row("first up", "s", 200.0, 50.0, 0.5, met=met),
        _row(performance.START_ROWS["ours"], "s", 14.0, 8.0, 0.6),
        _row(performance.START_ROWS["reference"], "s", 42.0, 20.0, 0.6),
        _row("alone", "%", None, 1.5, 2),
    ]
    machine = {
        "processor": "a processor",
        "cores": 2,
        "memory_gb": 8.0,
        "system": "Linux 6.1",
        "python": "3.11.2",
        "docker": "20.10",
        "terraform": "1.11.4",
    }
    ours = [_stage("provision", 0, 30), _stage("push image", 0, 20), _stage("rollout", 31, 9)]
    reference = [
        _stage("provision", 0, 40),
        _stage("poll", 40, 5),
        _stage("address", 45, 5),
        _stage("fixed wait", 50, 15),
    ]
    raw = {
        "date": "2030-01-31",
        "quick": False,
        "rows": {
            row["name"]: {"note": "", "aim_of": "ratio" if row["reference"] else "ours"}
            for row in rows
        },
        "failures": [],
        "details": {"first up": {"ours": [ours], "reference": [reference]}},
    }
    return {"commit": "0123abc", "machine": machine, "rows": rows}, raw


def _row(
    name: str, unit: str, reference: float | None, ours: float, aim: float, *, met: bool = True
) -> dict[str, Any]:
    return {
        "name": name,
        "unit": unit,
        "reference": reference,
        "ours": ours,
        "ratio": ours / reference if reference else None,
        "aim": aim,
        "met": met,
    }


def _stage(name: str, began: float, seconds: float) -> dict[str, Any]:
    at = AT + timedelta(seconds=began)
    return {"name": name, "started_at": at.isoformat(), "seconds": seconds, "failed": False}


def test_the_page_has_the_figures_and_charts_that_can_be_drawn() -> None:
    """should have every row, the critical path with its waits, and valid charts"""
    page = performance.render(*results(met=True), {})
    assert "| first up | s | 200 | 50 | 0.25 | at most 0.5 | yes |" in page
    assert "| alone | % | - | 1.5 | - | at most 2 % | yes |" in page
    assert "Every aim is met." in page
    assert "$" not in page
    charts = re.findall(r"```mermaid\n(.*?)\n```", page, re.DOTALL)
    ratio, gantt = charts
    (labels,) = re.findall(r"x-axis \[(.*)\]", ratio)
    (bars,) = re.findall(r"bar \[(.*)\]", ratio)
    assert len(labels.split('", "')) == len(bars.split(", ")) == 3
    assert "section reference" in gantt
    assert "provision (30s) :crit, 0, 30000" in gantt
    assert "push image (20s) :0, 20000" in gantt
    assert "| between stages | 1.0 | Prefect |" in page
    assert "| **all** | **40.0** |  |" in page


def test_the_projection_replaces_times_that_the_local_cloud_lacks() -> None:
    """should subtract the rollout, and add a launch and the start at each side's own size"""
    page = performance.render(*results(met=True), {})
    # 200 - 25 + 30 or 45 + 42, and 50 - 9 + 30 or 45 + 8.
    assert "| first up | reference | 200 | 25 | 42 | 247 to 262 |" in page
    assert "| first up | ours | 50 | 9 | 8 | 79 to 94 |" in page
    found, raw = results(met=True)
    found["rows"][2]["reference"] = 12.0
    # Its fixed waits are longer than that.
    assert "| 200 | 25 | 20 | 225 to 240 |" in performance.render(found, raw, {})


def test_a_missed_aim_is_listed_with_the_ideas_tried() -> None:
    """should show the ideas, or that there are none"""
    ideas = {"first up": [{"idea": "one apply less", "before": 60, "after": 50, "kept": True}]}
    page = performance.render(*results(met=False), ideas)
    assert "### first up: missed" in page
    assert "| one apply less | 60 s | 50 s | yes |" in page
    assert "Nothing tried." in performance.render(*results(met=False), {})


def test_task_sizes_have_a_table_and_charts() -> None:
    """should show start, requests and price of each size, and the cost of a million requests"""
    found, raw = results(met=True)
    for size, figures in {"0.25 vCPU": (20.0, 10.0, 0.018), "1 vCPU": (5.0, 40.0, 0.054)}.items():
        for what, value in zip(performance.SIZE_FIGURES, figures, strict=True):
            row = {**_row(f"{performance.TASK}{size}: {what}", "", None, value, 1), "aim": None}
            found["rows"].append({**row, "met": None})
            raw["rows"][row["name"]] = {"note": "", "aim_of": None}
    page = performance.render(found, raw, {})
    assert "| 0.25 vCPU | 20 | 10 | 0.018 | 0.5 |" in page
    assert 'x-axis "vCPU" ["0.25", "1"]' in page
    assert page.count('x-axis "vCPU"') == 3


def test_labs_in_parallel_are_compared_with_a_single_one() -> None:
    """should show the whole time, each lab's part, and the ratio that falls"""
    found, raw = results(met=True)
    for number, each in {3: 30.0, 6: 25.0}.items():
        row = _row(f"{number}{performance.AT_ONCE}", "s", 50.0, each, 1)
        found["rows"].append({**row, "met": True})
        raw["rows"][row["name"]] = {"note": "", "aim_of": "ratio"}
    page = performance.render(found, raw, {})
    assert "| 1 | 50 | 50 | 1 |" in page
    assert "| 6 | 150 | 25 | 0.5 |" in page
    assert 'x-axis "labs at once" ["1", "3", "6"]' in page


def test_a_run_without_the_life_has_a_page() -> None:
    """should say so where a chart has no figures, and name the runs that failed"""
    found, raw = results(met=True)
    raw |= {
        "details": {},
        "failures": [{"series": "life", "side": "ours", "run": 1, "said": "no engine\nat all"}],
    }
    page = performance.render(found, raw, {})
    assert page.count("Not measured.") == 6
    assert "- life, ours, run 1: no engine\n" in page


def test_the_stub_streams_as_bedrock_does() -> None:
    """should be readable by botocore: kind, content and checksums"""
    buffer = EventStreamBuffer()
    buffer.add_data(event_message("messageStop", {"stopReason": "end_turn"}))
    (event,) = list(buffer)
    assert event.headers[":event-type"] == "messageStop"
    assert json.loads(event.payload) == {"stopReason": "end_turn"}
