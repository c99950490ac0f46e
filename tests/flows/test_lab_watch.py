"""``lab-watch``: looks at all labs, then lets firewalls follow the deployer."""

from __future__ import annotations

import pytest

from flows.lab_watch import lab_watch
from lab.durations import now
from lab.errors import InvalidInputError, PermanentError
from lab.live import LabSeen, LabState, LiveLab
from lab.report.cost import load_prices
from lab.settings import Settings
from tests.flows.recorder import Story, record_of

PRICES = load_prices(Settings.model_construct().prices_path)
LABS = ("one", "two", "three")


def seen(lab: str, **changes: object) -> LabSeen:
    return LabSeen(lab=lab, state=LabState.UP, why="why", record=record_of(lab)).model_copy(
        update=changes
    )


def live(seen: LabSeen, **_: object) -> LiveLab:
    """What a look finds of a lab whose deployer has a new address."""
    record = seen.record or record_of(seen.lab)
    return LiveLab(
        lab=seen.lab,
        owner=record.owner,
        endpoint=None,
        ready=True,
        created_at=record.created_at,
        expires_at=record.expires_at,
        left="1h",
        models=[],
        allowed=["8.8.4.4/32"],
        deployer="8.8.8.8/32",
        deployer_allowed=False,
        cost=PRICES.report(record, now()),
        deployer_rule="8.8.4.4/32",
    )


@pytest.fixture
def moved(story: Story, monkeypatch: pytest.MonkeyPatch) -> Story:
    """Three labs whose deployer has a new address, which their firewalls are to follow."""
    monkeypatch.setenv("LAB_FOLLOW_ADDRESS", "true")
    story.will("survey", [seen(lab) for lab in LABS])
    story.will("watch_lab", live)
    return story


def followed(story: Story) -> list[str]:
    return [call["live"].lab for call in story.all_of("follow_deployer")]


def test_the_story_of_a_watch(moved: Story) -> None:
    """should look at every lab, then change each firewall while the lab is held"""
    lab_watch.fn()
    move = ["hold_lease", "follow_deployer", "release_lease"]
    assert moved.names == ["find_site", "survey", *["watch_lab"] * 3, *move * 3]
    assert [call["seen"].lab for call in moved.all_of("watch_lab")] == [*LABS]
    assert followed(moved) == [*LABS]
    assert moved.only("survey")["deep"] is False
    assert {one["doing"] for one in moved.all_of("hold_lease")} == {"lab-watch"}


def test_no_firewall_changes_before_all_labs_were_checked(moved: Story) -> None:
    """should give every notice in time, even if a firewall takes long"""
    lab_watch.fn()
    moved.assert_order("survey", "watch_lab", "hold_lease")
    moved.assert_order("watch_lab", "follow_deployer")


def test_labs_are_checked_in_parallel(moved: Story) -> None:
    """should make no lab wait for another's answer"""
    lab_watch.fn()
    looks = moved.all_of("watch_lab")
    assert not any(one.after & set(looks) for one in looks)
    assert {one["at"] for one in looks} == {moved.only("survey")["at"]}


def test_no_firewall_changes_unless_requested(
    moved: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should only look"""
    monkeypatch.delenv("LAB_FOLLOW_ADDRESS")
    lab_watch.fn()
    assert moved.names == ["find_site", "survey", *["watch_lab"] * 3]


def test_one_lab_may_be_watched(moved: Story) -> None:
    """should look at that lab, and change its firewall only"""
    lab_watch.fn(lab="two")
    assert moved.only("watch_lab")["seen"].lab == "two"
    assert followed(moved) == ["two"]


def test_a_lab_that_does_not_exist_cannot_be_watched(moved: Story) -> None:
    """should name the labs that exist"""
    with pytest.raises(InvalidInputError, match="labs: one, two, three"):
        lab_watch.fn(lab="four")
    assert moved.names == ["find_site", "survey"]


def test_no_labs_are_success(story: Story) -> None:
    """should look at nothing"""
    lab_watch.fn()
    assert story.names == ["find_site", "survey"]


def test_labs_that_are_held_or_past_their_end_are_left(moved: Story) -> None:
    """should look at them, and change neither their firewall nor their lease"""
    labs = [seen("one", held_by="lab-up"), seen("two", state=LabState.EXPIRED), seen("three")]
    moved.will("survey", labs)
    lab_watch.fn()
    assert followed(moved) == ["three"]
    assert moved.only("hold_lease")["lab"] == "three"


def test_a_lab_that_another_run_holds_meanwhile_is_left(moved: Story) -> None:
    """should not wait for it, and change the other firewalls"""
    moved.hold("one", "lab-down")
    lab_watch.fn()
    assert followed(moved) == ["two", "three"]
    assert not moved.happened("wait_for_holder")


def test_a_firewall_that_fails_does_not_stop_the_others(moved: Story) -> None:
    """should change the others, and name the failed one at the end"""
    moved.will("follow_deployer", PermanentError("access denied"), True)
    with pytest.raises(PermanentError, match="not followed: one: access denied\n"):
        lab_watch.fn()
    assert followed(moved) == [*LABS]


def test_a_lab_whose_check_fails_does_not_stop_the_others(moved: Story) -> None:
    """should look at the others, and fail at the end"""
    moved.will("watch_lab", PermanentError("access denied"), live)
    with pytest.raises(PermanentError, match="access denied"):
        lab_watch.fn()
    assert len(moved.all_of("watch_lab")) == 3
