"""The lab's end in the cloud: a schedule that changes only its time, and a tag of the cluster."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from adapters.aws.end import LabEnd
from lab.errors import PermanentError
from tests.unit.adapters.aws.stubs import ARN, AT, LAB, NAME, Stubs, session_of


@pytest.fixture
def end(stubs: Stubs) -> LabEnd:
    return LabEnd(stubs.cloud, LAB)


def members(operation: str, shape: str) -> set[str]:
    model = session_of("us-east-1").client("scheduler").meta.service_model
    return set(getattr(model.operation_model(operation), shape).members)


def test_a_moved_stop_changes_only_its_time(stubs: Stubs, end: LabEnd) -> None:
    """should send every value again that an update would otherwise reset to its default"""
    kept: dict[str, Any] = {
        "Name": "stop",
        "GroupName": NAME,
        "ActionAfterCompletion": "DELETE",
        "Description": "stops the lab",
        "EndDate": AT,
        "StartDate": AT,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/k",
        "ScheduleExpressionTimezone": "UTC",
        "State": "ENABLED",
        "Target": {"Arn": "arn:aws:states:::x", "RoleArn": "arn:aws:iam::1:role/x", "Input": "{}"},
    }
    # The test must notice a setting of AWS that it does not know yet.
    settable = members("UpdateSchedule", "input_shape") - {"ClientToken"}
    assert set(kept) | {"ScheduleExpression"} == settable
    read_only = {
        "Arn": "arn:aws:scheduler:us-east-1:1:schedule/x/stop",
        "CreationDate": AT,
        "LastModificationDate": AT,
    }
    assert settable | set(read_only) == members("GetSchedule", "output_shape")
    before = {**kept, **read_only, "ScheduleExpression": "at(2030-01-31T12:15:00)"}
    stubs.says("scheduler", "get_schedule", before, Name="stop", GroupName=NAME)
    stubs.says(
        "scheduler",
        "update_schedule",
        {"ScheduleArn": read_only["Arn"]},
        **kept,
        ScheduleExpression="at(2030-01-31T14:30:05)",
    )
    berlin = timezone(timedelta(hours=1))
    assert end.move_stop(datetime(2030, 1, 31, 15, 30, 5, tzinfo=berlin)) is True


def test_a_lab_without_a_stop_has_none_to_move(stubs: Stubs, end: LabEnd) -> None:
    """should return that there is none, and make none"""
    stubs.fails("scheduler", "get_schedule", "ResourceNotFoundException", 404)
    assert end.move_stop(AT) is False


def test_a_stop_that_cannot_be_read_is_an_error(stubs: Stubs, end: LabEnd) -> None:
    """should not take a refusal for a lab without a stop"""
    stubs.fails("scheduler", "get_schedule", "AccessDeniedException", 403)
    with pytest.raises(PermanentError, match="moving the stop of demo"):
        end.move_stop(AT)


def test_only_a_live_cluster_is_tagged_with_the_end(stubs: Stubs, end: LabEnd) -> None:
    """should write the time in the usual form, and skip a deleted cluster"""
    live, gone = f"{ARN}cluster/{NAME}", f"{ARN}cluster/gone"
    found = [
        {"clusterArn": gone, "status": "INACTIVE"},
        {"clusterArn": live, "status": "ACTIVE"},
    ]
    stubs.says("ecs", "describe_clusters", {"clusters": found}, clusters=[NAME])
    tag = {"key": "lab:expires-at", "value": "2030-01-31T12:00:00Z"}
    stubs.says("ecs", "tag_resource", {}, resourceArn=live, tags=[tag])
    end.write_tag(AT)
