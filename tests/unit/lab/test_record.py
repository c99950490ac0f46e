"""The lab's record in the cloud: its end, and the actions that are due before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from lab.certificate import Trust
from lab.errors import InvalidInputError
from lab.fargate import Architecture, Capacity
from lab.record import LabRecord, Reason
from lab.spec import OnFailure

MADE = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
END = MADE + timedelta(hours=2)
CAP = timedelta(hours=72)
SECOND = timedelta(seconds=1)


def record(**changes: Any) -> LabRecord:
    return LabRecord(**{"lab": "demo", "created_at": MADE, "expires_at": END, **changes})


def test_a_written_record_is_read_back() -> None:
    """should be the same from the bucket, with times that every tool can read"""
    full = record(
        owner="me",
        on_failure=OnFailure.DESTROY,
        architecture=Architecture.ARM64,
        capacity=Capacity.ON_DEMAND,
        cpu=256,
        memory=512,
        models=["a"],
        model_ends={"a": END},
        cidrs=["8.8.8.8/32"],
        notices=[30],
        deployer="8.8.8.8/32",
        deployer_given=True,
        key_version=3,
        trust=Trust(ca="-----BEGIN\n", version=1893456000, not_after=END),
    )
    written = full.model_dump(mode="json")
    assert written["created_at"] == "2030-01-31T12:00:00Z"
    assert written["expires_at"] == "2030-01-31T14:00:00Z"
    assert LabRecord.model_validate(written) == full
    assert LabRecord.model_validate_json(full.model_dump_json()) == full


def test_times_are_written_in_utc() -> None:
    """should not write another time zone's clock with a Z"""
    there = record(expires_at=END.astimezone(timezone(timedelta(hours=9))))
    assert there.model_dump(mode="json")["expires_at"] == "2030-01-31T14:00:00Z"


def test_a_later_versions_record_is_read() -> None:
    """should find a lab's end even in a record with unknown fields"""
    written = {**record().model_dump(mode="json"), "version": 2, "colour": "blue"}
    assert LabRecord.model_validate(written).expires_at == END


def test_a_minimal_record_is_enough() -> None:
    """should find the end of a lab whose record an earlier version wrote"""
    times = {"created_at": "2030-01-31T12:00:00Z", "expires_at": "2030-01-31T14:00:00Z"}
    assert LabRecord.model_validate({"lab": "demo", **times}) == record()


@pytest.mark.parametrize("end", [MADE + CAP, END, MADE + timedelta(minutes=1)])
def test_the_end_moves_up_to_the_cap(end: datetime) -> None:
    """should move forwards or back, forget the notices of the old end, and change nothing else"""
    known = record(notices=[30, 5], owner="me", cpu=256)
    moved = known.moved_to(end, CAP)
    assert moved == known.model_copy(update={"expires_at": end, "notices": []})
    assert known.notices == [30, 5]


def test_the_cap_counts_from_creation() -> None:
    """should refuse one second beyond it, even in steps, and name the latest possible end"""
    late = record().moved_to(MADE + CAP - SECOND, CAP)
    with pytest.raises(InvalidInputError) as caught:
        late.moved_to(MADE + CAP + SECOND, CAP)
    assert "2030-02-03T12:00:00Z at the latest" in caught.value.message
    assert "3d from its creation at 2030-01-31T12:00:00Z" in caught.value.message
    assert "asked for was 2030-02-03T12:00:01Z" in caught.value.message


def test_a_lab_does_not_outlive_its_certificate() -> None:
    """should refuse an end after it, and say how to get another: the longest life may have grown"""
    trust = Trust(ca="CA", version=1, not_after=END + SECOND)
    known = record(trust=trust)
    assert known.moved_to(END + SECOND, CAP).trust == trust
    with pytest.raises(InvalidInputError, match="valid until 2030-01-31T14:00:01Z") as caught:
        known.moved_to(END + 2 * SECOND, CAP)
    assert "Bring the lab up again" in caught.value.hint


@pytest.mark.parametrize(
    ("left", "given", "due"),
    [
        (timedelta(minutes=30, seconds=1), [], []),
        (timedelta(minutes=30), [], [30]),
        (timedelta(minutes=30), [30], []),
        (timedelta(minutes=5), [30], [5]),
        (timedelta(minutes=4), [30, 5], []),
        (timedelta(minutes=4), [], [30, 5]),
        (SECOND, [30], [5]),
        (timedelta(0), [], []),
        (-SECOND, [], []),
    ],
)
def test_each_notice_is_due_once(left: timedelta, given: list[int], due: list[int]) -> None:
    """should be due from its minute until the end, unless it was given"""
    assert record(notices=given).due_notices(END - left, (30, 5)) == due


@pytest.mark.parametrize(
    ("reason", "kept", "at", "destroyed"),
    [
        (Reason.ASKED, OnFailure.KEEP, MADE, True),
        (Reason.ASKED, OnFailure.DESTROY, MADE, True),
        (Reason.END, OnFailure.KEEP, END - SECOND, False),
        (Reason.END, OnFailure.DESTROY, END - SECOND, False),
        (Reason.END, OnFailure.KEEP, END, True),
        (Reason.FAILED_UP, OnFailure.KEEP, END + SECOND, False),
        (Reason.FAILED_UP, OnFailure.DESTROY, MADE, True),
    ],
)
def test_each_reason_destroys_what_it_may(
    reason: Reason, kept: OnFailure, at: datetime, destroyed: bool
) -> None:
    """should not destroy at an end that has moved, nor a failed up that is to be kept"""
    assert record(on_failure=kept).to_be_destroyed(reason, at) is destroyed


A, B, HOME, AWAY = "1.1.1.1/32", "8.8.4.4/32", "9.9.9.9/32", "9.9.9.91/32"


def followed(**changes: Any) -> LabRecord:
    return record(**{"cidrs": [A, HOME], "deployer": HOME, **changes})


def test_hosts_are_added_and_removed() -> None:
    """should keep all other hosts, and accept a change that is already made"""
    changed = record(cidrs=[A], owner="me").allowing([B, A], [HOME])
    assert changed == record(cidrs=[A, B], owner="me")
    assert changed.allowing([B], [HOME]) == changed


@pytest.mark.parametrize(
    ("add", "remove", "message"),
    [([], [A, HOME], "no hosts"), ([f"8.8.8.{n}/32" for n in range(19)], [], "21 hosts")],
)
def test_no_hosts_or_too_many_are_refused(add: list[str], remove: list[str], message: str) -> None:
    """should leave a lab unchanged rather than shut everybody out of it"""
    with pytest.raises(InvalidInputError, match=message):
        followed().allowing(add, remove)


def test_the_deployers_rule_follows_its_address() -> None:
    """should let the deployer in only at its new address, and all others as before"""
    moved = followed().following(AWAY)
    assert (moved.cidrs, moved.deployer) == ([A, AWAY], AWAY)
    assert moved.following(AWAY) == moved
    assert moved.following(HOME) == followed()


def test_an_address_that_a_person_added_stays_after_the_deployer_left() -> None:
    """should never shut out a host that a person added, before the deployer used it or after"""
    given = followed().allowing([HOME], [])
    assert given.following(AWAY).cidrs == [A, HOME, AWAY]
    came = followed().following(A)
    assert came.cidrs == [A]
    assert came.following(AWAY).cidrs == [A, AWAY]


def test_a_deployer_that_was_shut_out_is_not_followed() -> None:
    """should not get access again at its next address"""
    shut = followed(deployer_given=True).allowing([], [HOME])
    assert (shut.cidrs, shut.deployer, shut.deployer_given) == ([A], None, False)


def test_a_full_firewall_keeps_the_deployer_out() -> None:
    """should refuse to follow if an address that stays leaves no room"""
    hosts = [f"8.8.8.{n}/32" for n in range(19)]
    full = record(cidrs=[*hosts, HOME], deployer=HOME, deployer_given=True)
    with pytest.raises(InvalidInputError, match="21 hosts"):
        full.following(AWAY)


def test_a_new_key_has_the_next_number() -> None:
    """should be another number for Terraform, and change nothing else"""
    assert record().key_version == 1
    assert record(key_version=4, owner="me").with_new_key() == record(key_version=5, owner="me")


def test_models_that_end_soon_are_listed() -> None:
    """should name those within the time, soonest first, with the day; none if none is known"""
    ends = {"late": END + SECOND, "b": END, "a": END - timedelta(days=1)}
    made = record(models=["a", "b", "late"], model_ends=ends)
    assert made.ending_models(END) == ["a (2030-01-30)", "b (2030-01-31)"]
    assert record(models=["a"]).ending_models(END) == []
