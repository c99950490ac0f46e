"""``lab-reap``: one lab after another; a lab that fails does not stop the others."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flows.lab_reap import lab_reap
from lab.durations import now
from lab.errors import InterruptedWorkError, PermanentError
from lab.live import LabSeen, LabState
from tests.flows.recorder import Story, record_of


def seen(lab: str, state: LabState = LabState.EXPIRED) -> LabSeen:
    return LabSeen(lab=lab, state=state, why="why")


def reap(story: Story, *found: LabSeen, dry_run: bool = False) -> list[str]:
    """Reap what was ``found``; the labs that were destroyed and looked for."""
    story.will("survey", list(found))
    lab_reap.fn(dry_run=dry_run)
    destroyed = [call["lab"] for call in story.all_of("destroy_lab")]
    assert destroyed == [call["lab"] for call in story.all_of("check_nothing_left")]
    return destroyed


def test_the_story_of_a_reaper(story: Story) -> None:
    """should look, log its plan, and take each lab down while it holds the lab"""
    assert reap(story, seen("one"), seen("two", LabState.ORPHANED)) == ["one", "two"]
    taken = ["hold_lease", "destroy_lab", "check_nothing_left", "release_lease"]
    assert story.names == ["find_site", "survey", "name_run", *taken, *taken]
    story.assert_order("survey", "name_run", "hold_lease")
    assert story.only("survey")["deep"] is True
    assert [one["lab"] for one in story.all_of("hold_lease")] == ["one", "two"]
    assert {one["doing"] for one in story.all_of("hold_lease")} == {"lab-reap"}


def test_only_labs_past_their_end_and_orphans_are_reaped(story: Story) -> None:
    """should leave a lab that is up or has no task"""
    found = [seen(state.name.lower().replace("_", "-"), state) for state in LabState]
    assert reap(story, *found) == ["expired", "orphaned"]


def test_a_dry_run_destroys_nothing(story: Story) -> None:
    """should report what would be reaped, and hold nothing"""
    assert reap(story, seen("one"), dry_run=True) == []
    assert story.names == ["find_site", "survey", "name_run"]
    named = story.only("name_run")
    assert ([one.lab for one in named["doomed"]], named["dry_run"]) == (["one"], True)


def test_nothing_to_reap_is_success(story: Story) -> None:
    """should still report it"""
    assert reap(story) == []
    assert story.names == ["find_site", "survey", "name_run"]


def test_a_lab_that_fails_does_not_stop_the_others(story: Story) -> None:
    """should take the others down, and name each failed lab at the end"""
    story.will("destroy_lab", PermanentError("access denied"), None, PermanentError("no answer"))
    with pytest.raises(PermanentError, match="not reaped: one: access denied; three: no answer"):
        reap(story, seen("one"), seen("two"), seen("three"))
    assert [call["lab"] for call in story.all_of("destroy_lab")] == ["one", "two", "three"]
    assert story.only("check_nothing_left")["lab"] == "two"
    assert len(story.all_of("release_lease")) == 3


def test_a_lab_that_is_held_is_left(story: Story) -> None:
    """should not wait for it, reap the others, and count no failure"""
    story.hold("one", "lab-extend")
    assert reap(story, seen("one"), seen("two")) == ["two"]
    assert not story.happened("wait_for_holder")
    assert any("left for the next time" in line for line in story.said)


def test_a_lab_that_was_extended_meanwhile_is_left(story: Story) -> None:
    """should read the record again after it holds the lab"""
    story.bucket.keep(record_of("one"))
    story.bucket.keep(record_of("two", expires_at=now() - timedelta(minutes=1)))
    assert reap(story, seen("one"), seen("two")) == ["two"]
    assert [one["lab"] for one in story.all_of("hold_lease")] == ["one", "two"]


def test_a_reaper_that_is_ending_begins_no_other_lab(story: Story) -> None:
    """should destroy nothing more after a lost lease, and name what was not reaped"""

    def interrupted(**_: object) -> None:
        story.lose_lease()
        raise InterruptedWorkError("terraform was interrupted")

    story.will("destroy_lab", interrupted)
    with pytest.raises(PermanentError, match="not reaped: one: terraform was interrupted; two: "):
        reap(story, seen("one"), seen("two"))
    assert story.only("destroy_lab")["lab"] == "one"
