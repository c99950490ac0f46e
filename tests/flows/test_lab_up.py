"""``lab-up``: what it calls, in which order, and what it leaves when something fails.

What lab-rebuild shares with it is in test_bring_up.py.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from adapters.aws.lease import LabHeldError
from flows.lab_up import lab_up
from lab.durations import now
from lab.errors import InvalidInputError, PermanentError
from lab.record import LabRecord
from lab.spec import LabSpec
from tasks.hold import PATIENCE
from tests.flows.recorder import (
    CHECKED,
    DIGEST,
    INVENTORY,
    LIVE,
    MODELS,
    PLAN,
    PROVISIONED,
    SCANNED,
    Story,
)

ERROR = PermanentError("ECS has no capacity")


def up(**values: object) -> None:
    lab_up.fn(**{"lab": "demo", **values})


def test_the_story_of_an_up(story: Story) -> None:
    """should check, hold, register the end, make the image and the lab, roll out, prove, report"""
    up()
    assert story.names == [
        "find_site",
        "preflight",
        "hold_lease",
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


def test_each_stage_gets_the_results_of_earlier_stages(story: Story) -> None:
    """should roll out the pushed image, and ask every model at the rollout's address"""
    before = now()
    up(ttl="45m", on_failure="destroy")
    wanted = LabSpec(lab="demo", ttl="45m", on_failure="destroy")
    end = story.only("schedule_end")
    assert (end["spec"], end["checked"]) == (wanted, CHECKED)
    assert before + timedelta(minutes=45) <= end["expires_at"] <= now() + timedelta(minutes=45)
    assert story.report.expires_at == end["expires_at"]

    provision = story.only("provision_lab")
    assert (provision["spec"], provision["image"]) == (wanted, PLAN)
    assert isinstance(provision["record"], LabRecord)
    assert provision["record"].expires_at == end["expires_at"]

    for stage in ("scan_image", "audit_image", "build_image", "push_image"):
        assert story.only(stage)["image"] == PLAN
    assert story.only("build_image")["scanned"] == SCANNED

    rollout = story.only("roll_out")
    assert rollout["made"] == PROVISIONED
    assert (rollout["image"].tag, rollout["image"].digest) == (PLAN.tag, DIGEST)

    asked = story.all_of("validate_model")
    assert [one["case"].alias for one in asked] == [model.alias for model in MODELS]
    assert {one["endpoint"] for one in asked} == {LIVE.endpoint}
    assert story.only("check_model_list")["endpoint"] == LIVE.endpoint
    saved = story.only("save_apply_fingerprint")
    assert (saved["made"], saved["inventory"]) == (PROVISIONED, INVENTORY)


def test_an_invalid_value_is_refused_first(story: Story) -> None:
    """should call nothing and report nothing"""
    with pytest.raises(InvalidInputError, match="ttl '99h' is out of bounds"):
        up(ttl="99h")
    assert story.calls == []


def test_another_up_of_the_lab_is_refused(story: Story) -> None:
    """should change nothing, and leave the report to the run that holds the lab"""
    story.hold("demo", "lab-up")
    with pytest.raises(LabHeldError):
        up()
    assert story.names == ["find_site", "preflight"]


@pytest.mark.parametrize("doing", ["lab-down", "lab-rebuild", "lab-extend", "lab-reap"])
def test_it_waits_for_another_kind_of_run(story: Story, doing: str) -> None:
    """should go on after that run has ended"""
    story.hold("demo", doing)
    up()
    assert story.only("wait_for_holder")["seconds"] == PATIENCE
    story.assert_order("wait_for_holder", "hold_lease", "schedule_end")


def test_a_failed_up_is_kept_by_default(story: Story) -> None:
    """should destroy nothing"""
    story.will("roll_out", ERROR)
    with pytest.raises(PermanentError) as caught:
        up()
    assert caught.value is ERROR
    assert not story.happened("destroy_lab", "check_nothing_left")


def test_a_failed_up_is_destroyed_if_requested(story: Story) -> None:
    """should destroy, and look for what is left, while it still holds the lab"""
    story.will("roll_out", ERROR)
    with pytest.raises(PermanentError) as caught:
        up(on_failure="destroy")
    assert caught.value is ERROR
    story.assert_order("roll_out", "destroy_lab", "check_nothing_left", "release_lease")
    assert story.only("check_nothing_left")["to_return"] is False


@pytest.mark.parametrize("stage", ["find_site", "preflight"])
def test_an_up_that_never_held_the_lab_destroys_nothing(story: Story, stage: str) -> None:
    """should leave an existing lab of this name alone"""
    story.will(stage, ERROR)
    with pytest.raises(PermanentError):
        up(on_failure="destroy")
    assert not story.happened("hold_lease", "schedule_end", "destroy_lab")


def test_nothing_billable_follows_a_refused_end(story: Story) -> None:
    """should begin neither the foundation nor anything of the lab or its image"""
    story.will("schedule_end", InvalidInputError("the lab would live too long"))
    with pytest.raises(InvalidInputError):
        up()
    assert not story.happened("provision_foundation", "provision_lab", "build_image", "push_image")
