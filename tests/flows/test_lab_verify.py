"""``lab-verify``: checks a lab's posture, and fails for each missed check."""

from __future__ import annotations

import pytest

from flows.lab_verify import lab_verify
from lab.errors import PermanentError
from tests.flows.recorder import MISSED, Story


def test_the_story_of_a_verification(story: Story) -> None:
    """should hold nothing: it may check while another run works"""
    story.hold("demo", "lab-up")
    lab_verify.fn("demo")
    assert story.names == ["find_site", "verify_lab"]
    assert story.only("verify_lab")["lab"] == "demo"


def test_a_missed_check_fails_the_run(story: Story) -> None:
    """should name the missed check"""
    story.will("verify_lab", MISSED)
    with pytest.raises(PermanentError, match="key required: found 200, wanted 401"):
        lab_verify.fn("demo")
