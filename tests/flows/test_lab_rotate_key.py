"""``lab-rotate-key``: makes a key, rolls it out and checks it; and how it fails."""

from __future__ import annotations

import pytest

from adapters.aws.lease import LabHeldError
from flows.lab_rotate_key import lab_rotate_key
from lab.errors import PermanentError
from tests.flows.recorder import LIVE, PROVISIONED, Story

ERROR = PermanentError("the task stopped", "Look at its log.")


def test_the_story_of_a_new_key(story: Story) -> None:
    """should make it, roll it out, and try it at the new address, in one hold"""
    lab_rotate_key.fn("demo")
    assert story.names == [
        "find_site",
        "hold_lease",
        "make_new_key",
        "roll_out",
        "check_keys",
        "release_lease",
    ]
    story.assert_order("hold_lease", "make_new_key", "roll_out", "check_keys", "release_lease")
    rollout = story.only("roll_out")
    # The image stays the same, and is not checked.
    assert (rollout["made"], rollout["image"]) == (PROVISIONED, None)
    assert story.only("check_keys")["endpoint"] == LIVE.endpoint


def test_without_a_new_key_the_error_is_unchanged(story: Story) -> None:
    """should raise the error of the failed stage unchanged, and roll nothing out"""
    story.will("make_new_key", ERROR)
    with pytest.raises(PermanentError) as caught:
        lab_rotate_key.fn("demo")
    assert caught.value is ERROR
    assert not story.happened("roll_out", "check_keys")


@pytest.mark.parametrize("stage", ["roll_out", "check_keys"])
def test_an_error_after_the_key_was_made_explains_the_state(story: Story, stage: str) -> None:
    """should say what failed, which key opens the gateway, and what to do"""
    story.will(stage, ERROR)
    with pytest.raises(PermanentError) as caught:
        lab_rotate_key.fn("demo")
    assert caught.value.message.startswith("the task stopped\n")
    assert "The secret of lab demo has the new key already" in caught.value.message
    assert "Run lab-rotate-key again" in caught.value.hint
    assert caught.value.hint.endswith("Look at its log.")
    assert caught.value.__cause__ is ERROR
    assert story.names[-2:] == [stage, "release_lease"]


def test_another_rotation_is_refused(story: Story) -> None:
    """should make no second key"""
    story.hold("demo", "lab-rotate-key")
    with pytest.raises(LabHeldError):
        lab_rotate_key.fn("demo")
    assert story.names == ["find_site"]


def test_it_waits_for_another_kind_of_run(story: Story) -> None:
    """should make the key after that run has ended"""
    story.hold("demo", "lab-up")
    lab_rotate_key.fn("demo")
    story.assert_order("wait_for_holder", "hold_lease", "make_new_key")
