"""``lab-list``: one look, one table."""

from __future__ import annotations

from flows.lab_list import lab_list
from lab.live import LabSeen, LabState
from tests.flows.recorder import Story


def test_the_story_of_a_list(story: Story) -> None:
    """should publish what was found at one moment, and hold nothing"""
    seen = [LabSeen(lab="demo", state=LabState.UP, why="why")]
    story.will("survey", seen)
    lab_list.fn()
    assert story.names == ["find_site", "survey", "list_labs"]
    survey, table = story.only("survey"), story.only("list_labs")
    assert table["seen"] == seen
    assert table["at"] == survey["at"]
    assert survey["deep"] is False
