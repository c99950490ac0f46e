"""``lab-rebuild``: down and up again in one hold. How it comes up is in test_bring_up.py."""

from __future__ import annotations

import pytest

from adapters.aws.lease import LabHeldError
from flows.lab_rebuild import lab_rebuild
from lab.errors import PermanentError
from lab.record import LabRecord
from lab.spec import OnFailure
from tests.flows.recorder import CHECKED, Story, record_of

ERROR = PermanentError("a model is retired")


def rebuild(**values: object) -> None:
    lab_rebuild.fn(**{"lab": "demo", **values})


def test_the_story_of_a_rebuild(story: Story) -> None:
    """should check, hold, mark the record, take the lab down, and bring it up"""
    story.bucket.keep(record_of("demo"))
    rebuild()
    assert story.names == [
        "find_site",
        "preflight",
        "hold_lease",
        "write_json",
        "destroy_lab",
        "check_nothing_left",
        "plan_image",
        "schedule_end",
        "provision_foundation",
        "scan_image",
        "audit_image",
        "build_image",
        "push_image",
        "provision_lab",
        "roll_out",
        "check_model_list",
        "validate_model",
        "validate_model",
        "verify_lab",
        "take_inventory",
        "save_apply_fingerprint",
        "release_lease",
        "publish_report",
    ]
    story.assert_order(
        "preflight", "hold_lease", "write_json", "destroy_lab", "check_nothing_left", "plan_image"
    )
    assert story.only("check_nothing_left")["to_return"] is True
    assert story.only("hold_lease")["doing"] == "lab-rebuild"


def test_a_lab_that_cannot_come_up_is_not_taken_down(story: Story) -> None:
    """should find every known fault in preflight, while the lab still serves"""
    story.bucket.keep(record_of("demo"))
    story.will("preflight", ERROR)
    with pytest.raises(PermanentError) as caught:
        rebuild()
    assert caught.value is ERROR
    assert story.names == ["find_site", "preflight", "publish_report"]


def test_a_crash_after_the_mark_counts_as_a_failed_up(story: Story) -> None:
    """should mark the record before it destroys anything, so that another run can clean up"""
    found: list[LabRecord] = []
    story.bucket.keep(record_of("demo", on_failure=OnFailure.KEEP, up_run="the up"))
    story.will("destroy_lab", lambda lab, **_: found.append(story.bucket.record(lab)))
    rebuild()
    (marked,) = found
    assert marked.on_failure is OnFailure.DESTROY
    assert marked.up_run != "the up"


def test_a_lab_without_a_record_is_rebuilt_too(story: Story) -> None:
    """should have nothing to mark, and go on"""
    rebuild()
    assert not story.happened("write_json")
    story.assert_order("destroy_lab", "check_nothing_left", "schedule_end", "roll_out")


@pytest.mark.parametrize("on_failure", ["keep", "destroy"])
def test_a_failed_rebuild_is_always_destroyed(story: Story, on_failure: str) -> None:
    """should leave no half lab, even if a failed up is to be kept"""
    story.will("roll_out", ERROR)
    with pytest.raises(PermanentError) as caught:
        rebuild(on_failure=on_failure)
    assert caught.value is ERROR
    assert story.names[-5:] == [
        "roll_out",
        "destroy_lab",
        "check_nothing_left",
        "release_lease",
        "publish_report",
    ]
    assert [call["to_return"] for call in story.all_of("check_nothing_left")] == [True, False]
    assert story.only("schedule_end")["spec"].on_failure is OnFailure.DESTROY


@pytest.mark.parametrize("stage", ["destroy_lab", "check_nothing_left"])
def test_a_lab_that_cannot_be_taken_down_does_not_come_up(story: Story, stage: str) -> None:
    """should try once more to destroy it, and report the first error"""
    story.will(stage, ERROR)
    with pytest.raises(PermanentError) as caught:
        rebuild()
    assert caught.value is ERROR
    assert not story.happened("plan_image", "schedule_end", "provision_lab")
    assert len(story.all_of("destroy_lab")) == 2
    assert "a model is retired" in (story.report.error or "")


def test_the_end_counts_from_the_beginning(story: Story) -> None:
    """should bring up what preflight chose, until the end in the report"""
    rebuild(ttl="45m")
    end = story.only("schedule_end")
    assert end["checked"] == CHECKED
    assert end["expires_at"] == story.report.expires_at


def test_another_rebuild_of_the_lab_is_refused(story: Story) -> None:
    """should neither change the lab nor publish a report"""
    story.hold("demo", "lab-rebuild")
    with pytest.raises(LabHeldError):
        rebuild()
    assert story.names == ["find_site", "preflight"]


def test_it_waits_for_an_up(story: Story) -> None:
    """should rebuild the lab that the up has made"""
    story.hold("demo", "lab-up")
    rebuild()
    story.assert_order("wait_for_holder", "hold_lease", "destroy_lab")
