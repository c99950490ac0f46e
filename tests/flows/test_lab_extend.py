"""``lab-extend``: one end, for a lab that is held."""

from __future__ import annotations

from datetime import timedelta

from flows.lab_extend import lab_extend
from lab.durations import now
from tests.flows.recorder import Story


def test_the_story_of_an_extension(story: Story) -> None:
    """should move the end, counted from now, while it holds the lab"""
    before = now()
    lab_extend.fn("demo", "90m")
    assert story.names == ["find_site", "hold_lease", "move_end", "release_lease"]
    moved = story.only("move_end")
    assert moved["lab"] == "demo"
    assert before + timedelta(minutes=90) <= moved["expires_at"] <= now() + timedelta(minutes=90)
    assert story.only("hold_lease")["doing"] == "lab-extend"


def test_the_end_counts_from_when_the_lab_is_held(story: Story) -> None:
    """should promise the whole time to a caller who had to wait"""
    story.hold("demo", "lab-up")
    came = []
    story.will("wait_for_holder", lambda **_: came.append(now()))
    lab_extend.fn("demo", "90m")
    story.assert_order("wait_for_holder", "hold_lease", "move_end")
    assert story.only("move_end")["expires_at"] >= came[0] + timedelta(minutes=90)
