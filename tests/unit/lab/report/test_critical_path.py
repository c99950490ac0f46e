"""The account of a run: which stages it waited for, with every second accounted for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lab.report.critical_path import AFTER, BETWEEN, StageTime, account, critical_path, tool_seconds
from tasks.outcome import STAGES

AT = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)


def stage(name: str, began: float, ended: float, *, failed: bool = False) -> StageTime:
    return StageTime(
        name=name,
        started_at=AT + timedelta(seconds=began),
        seconds=round(ended - began, 3),
        failed=failed,
    )


#: An up on a small machine: the push waits for the foundation, the rollout for provisioning.
UP = [
    stage("preflight", 0.0, 1.0),
    stage("schedule end", 2.0, 2.5),
    stage("plan image", 2.0, 3.0),
    stage("foundation", 3.0, 13.0),
    stage("build image", 3.0, 3.1),
    stage("provision", 3.0, 39.0),
    stage("push image", 13.0, 38.5),
    stage("rollout", 39.25, 50.0),
    stage("validate", 50.0, 53.0),
]


def names(stages: list[StageTime]) -> list[str]:
    return [step.name for step in critical_path(stages) if step.is_stage]


def replaced(*others: StageTime) -> list[StageTime]:
    return [next((o for o in others if o.name == s.name), s) for s in UP]


def test_the_path_goes_through_the_slower_branch() -> None:
    """should be provisioning if it ends last, else foundation and push"""
    straight = ["preflight", "plan image"]
    assert names(UP) == [*straight, "provision", "rollout", "validate"]
    slow_end = names(replaced(stage("plan image", 2.0, 2.25), stage("schedule end", 2.0, 3.0)))
    assert slow_end == ["preflight", "schedule end", "provision", "rollout", "validate"]
    slow_push = replaced(stage("provision", 3.0, 30.0), stage("push image", 13.0, 39.0))
    assert names(slow_push) == [*straight, "foundation", "push image", "rollout", "validate"]
    slow_build = replaced(
        stage("build image", 3.0, 60.0),
        stage("push image", 60.0, 90.0),
        stage("rollout", 90.0, 100.0),
        stage("validate", 100.0, 103.0),
    )
    assert names(slow_build) == [*straight, "build image", "push image", "rollout", "validate"]


def test_a_stage_waits_only_for_what_it_needs() -> None:
    """should not take a stage for a cause because it ended just before: provision, for a push"""
    stages = replaced(stage("provision", 3.0, 13.04), stage("push image", 13.04, 39.2))
    assert "foundation" in names(stages)
    assert "provision" not in names(stages)


def test_every_second_is_accounted_for() -> None:
    """should add up to the whole run, with separate rows for gaps between stages"""
    path = critical_path(UP)
    assert sum(step.seconds for step in path) == pytest.approx(53.0)
    between = [(s.started_at - AT, s.seconds) for s in path if not s.is_stage]
    assert between == [(timedelta(seconds=1), 1.0), (timedelta(seconds=39), 0.25)]
    assert tool_seconds(path) == pytest.approx(53.0 - 1.25)
    assert sum(row.waited for row in account(UP)) == pytest.approx(53.0)


def test_the_account_has_every_stage_once_in_order() -> None:
    """should show that a stage off the path was not waited for, and each gap at its place"""
    rows = account(UP)
    assert [row.name for row in rows[:4]] == ["preflight", BETWEEN, "schedule end", "plan image"]
    assert sorted(r.name for r in rows if r.took is not None) == sorted(s.name for s in UP)
    waited = {row.name: row.waited for row in rows}
    assert waited["push image"] == waited["foundation"] == waited["build image"] == 0.0
    assert waited["provision"] == 36.0
    assert all(row.spent_on for row in rows)


def test_stages_that_overlap_are_counted_once() -> None:
    """should not count time twice if a stage's clock started before the earlier stage's end"""
    path = critical_path([stage("provision", 0, 10.03), stage("rollout", 10.0, 20.0)])
    assert [step.seconds for step in path] == [10.03, pytest.approx(9.97)]


def test_the_path_of_a_rebuild_has_the_destruction() -> None:
    """should place unknown stages by their times"""
    stages = [
        stage("preflight", 0, 1),
        stage("destroy", 1.5, 20),
        stage("look for leftovers", 20, 22),
        stage("schedule end", 22, 23),
    ]
    assert names(stages) == ["preflight", "destroy", "look for leftovers", "schedule end"]


def test_a_run_that_failed_or_never_began_has_a_path() -> None:
    """should end at the failed stage, and be empty if no stage ended"""
    assert names([*UP[:3], stage("foundation", 3.0, 5.0, failed=True)])[-1] == "foundation"
    assert critical_path([]) == []
    assert account([]) == []


def test_the_known_order_is_that_of_the_flow() -> None:
    """should name only stages of an up, and those before it in a rebuild"""
    assert set(AFTER) <= set(STAGES)
    assert {s for after in AFTER.values() for s in after} <= {*STAGES, "look for leftovers"}
    assert set(STAGES) - set(AFTER) == {"find place"}
