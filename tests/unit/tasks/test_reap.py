"""Which labs are chosen, which are reaped, and which run waits for which."""

from __future__ import annotations

import pytest

from adapters.aws.lease import Holder
from lab.errors import InvalidInputError
from lab.live import LabSeen, LabState
from tasks.hold import always_wait, never_wait, refuse_same_kind
from tasks.reap import to_reap
from tasks.survey import choose

SEEN = [LabSeen(lab=state.value.replace(" ", "-"), state=state, why="so") for state in LabState]


def holder(doing: str) -> Holder:
    return Holder(doing=doing, run="r", host="h", since="2030-01-31T12:00:00Z")


def test_all_labs_or_one_are_chosen() -> None:
    """should be all if none is named, and no lab is no error"""
    assert choose(SEEN, None) == SEEN
    assert choose(SEEN, "up") == [SEEN[0]]
    assert choose([], None) == []


@pytest.mark.parametrize(("seen", "known"), [(SEEN[:2], "up, no-task"), ([], "none")])
def test_a_lab_that_does_not_exist_is_an_error(seen: list[LabSeen], known: str) -> None:
    """should name the labs that exist"""
    with pytest.raises(InvalidInputError) as caught:
        choose(seen, "demo")
    assert caught.value.message == f"there is no lab 'demo'; labs: {known}"


def test_only_expired_labs_and_orphans_are_reaped() -> None:
    """should never take a lab whose end is still to come, even if no task of it runs"""
    assert [s.state for s in to_reap(SEEN)] == [LabState.EXPIRED, LabState.ORPHANED]


def test_a_second_up_is_refused_and_waits_for_other_runs() -> None:
    """should wait for a run of another kind, not for one of the same kind"""
    patience = refuse_same_kind("lab-up")
    assert patience(holder("lab-up")) == 0
    assert patience(holder("lab-down")) > 600
    assert always_wait(holder("lab-up")) > 600
    assert never_wait(holder("lab-down")) == 0
