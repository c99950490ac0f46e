"""``lab-down``: destroys a lab for a reason that still holds, and then looks for what is left."""

from __future__ import annotations

import pytest

from flows.lab_down import lab_down
from lab.errors import PermanentError
from lab.record import Reason
from tasks.hold import PATIENCE
from tasks.teardown import TeardownIncompleteError
from tests.flows.recorder import Story

DOWN = ["find_site", "reason_holds", "hold_lease", "reason_holds", "destroy_lab"]


def test_the_story_of_a_down(story: Story) -> None:
    """should check the reason, hold, check again, destroy, and look for what is left"""
    lab_down.fn("demo")
    assert story.names == [*DOWN, "check_nothing_left", "release_lease"]
    story.assert_order("hold_lease", "destroy_lab", "check_nothing_left", "release_lease")
    assert story.only("check_nothing_left")["to_return"] is False
    assert story.only("hold_lease").arguments == {"lab": "demo", "doing": "lab-down"}


def test_the_given_reason_is_checked(story: Story) -> None:
    """should check the same reason and the same run both times"""
    lab_down.fn("demo", Reason.FAILED_UP, of_run="the up")
    asked = [(one["lab"], one["reason"], one["of_run"]) for one in story.all_of("reason_holds")]
    assert asked == [("demo", Reason.FAILED_UP, "the up")] * 2


def test_a_down_without_a_valid_reason_does_not_wait_for_the_lab(story: Story) -> None:
    """should end at once, although another run holds the lab"""
    story.hold("demo", "lab-up")
    story.will("reason_holds", False)
    lab_down.fn("demo", Reason.END)
    assert story.names == ["find_site", "reason_holds"]


def test_a_reason_that_ended_while_waiting_destroys_nothing(story: Story) -> None:
    """should leave a lab that was extended meanwhile"""
    story.hold("demo", "lab-extend")
    story.will("reason_holds", True, False)
    lab_down.fn("demo", Reason.END)
    assert story.names == [
        "find_site",
        "reason_holds",
        "wait_for_holder",
        "hold_lease",
        "reason_holds",
        "release_lease",
    ]


@pytest.mark.parametrize("doing", ["lab-up", "lab-down", "lab-reap"])
def test_it_waits_for_every_other_run(story: Story, doing: str) -> None:
    """should destroy the lab after that run has ended"""
    story.hold("demo", doing)
    lab_down.fn("demo")
    assert story.only("wait_for_holder")["seconds"] == PATIENCE
    story.assert_order("wait_for_holder", "destroy_lab")


def test_a_down_works_where_no_lab_ever_was(story: Story) -> None:
    """should need no bucket to hold the lab, and still look for what is left"""
    story.bucket.there = False
    lab_down.fn("demo")
    assert story.names[2:] == ["reason_holds", "destroy_lab", "check_nothing_left"]


def test_nothing_is_purged_unless_requested(story: Story) -> None:
    """should keep what labs share for the other labs"""
    lab_down.fn("demo")
    assert not story.happened("purge_foundation")


def test_shared_resources_are_removed_last(story: Story) -> None:
    """should purge after the lab is gone and its lease is released"""
    lab_down.fn("demo", purge=True)
    story.assert_order("destroy_lab", "check_nothing_left", "release_lease", "purge_foundation")


def test_a_purge_needs_no_lab(story: Story) -> None:
    """should also purge where the lab is not destroyed: the purge itself refuses"""
    story.will("reason_holds", False)
    lab_down.fn("demo", Reason.END, purge=True)
    assert story.names == ["find_site", "reason_holds", "purge_foundation"]


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        ("destroy_lab", PermanentError("access denied")),
        ("check_nothing_left", TeardownIncompleteError("demo", [])),
    ],
)
def test_a_lab_that_is_not_gone_fails_the_run(story: Story, stage: str, error: Exception) -> None:
    """should purge nothing, and release the lease"""
    story.will(stage, error)
    with pytest.raises(PermanentError) as caught:
        lab_down.fn("demo", purge=True)
    assert caught.value is error
    assert story.names[-2:] == [stage, "release_lease"]
