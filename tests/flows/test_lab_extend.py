"""``lab-extend``: sets one new end, for a lab that is held."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flows import lab_extend as flow
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


def test_the_end_counts_from_when_the_lab_is_held(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should give the whole time to a caller that had to wait"""
    clock = [now()]
    monkeypatch.setattr(flow, "now", lambda: clock[-1])
    story.hold("demo", "lab-up")
    story.will("wait_for_holder", lambda **_: clock.append(clock[0] + timedelta(minutes=10)))
    lab_extend.fn("demo", "90m")
    story.assert_order("wait_for_holder", "hold_lease", "move_end")
    assert story.only("move_end")["expires_at"] == clock[0] + timedelta(minutes=100)
