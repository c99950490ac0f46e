"""A change of the hosts of a live lab changes the firewall and the record, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab.errors import InvalidInputError, PermanentError, TransientError
from lab.live import LabSeen, LabState, LiveLab
from lab.record import LabRecord
from lab.report.cost import load_prices
from lab.settings import Settings
from tasks import allow, provision, records
from tests.unit.tasks.sites import FakeSite, MemoryBucket

MADE = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
FRIEND, GUEST, HOME, AWAY = "1.1.1.1/32", "8.8.4.4/32", "9.9.9.9/32", "9.9.9.10/32"
RECORD = LabRecord(
    lab="demo",
    created_at=MADE,
    expires_at=MADE + timedelta(hours=2),
    owner="me",
    cidrs=[FRIEND, HOME],
    deployer=HOME,
    key_version=3,
)
SETTINGS = Settings(follow_address=True)


class Lab(MemoryBucket):
    """A lab whose Terraform does what a test says and records its calls."""

    def __init__(self, *records: LabRecord) -> None:
        super().__init__(*records)
        self.is_up = True
        self.applied: list[tuple[dict[str, Any], list[str]]] = []
        self.before_apply: Callable[[], None] = lambda: None
        self.published: list[LiveLab] = []
        self.events: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.site = FakeSite(SETTINGS, bucket=self, service=self)

    def describe(self) -> dict[str, str] | None:
        return {"status": "ACTIVE"} if self.is_up else None

    def up(self, variables: dict[str, Any], only: list[str]) -> dict[str, Any]:
        self.before_apply()
        self.applied.append((variables, only))
        return {}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, logged: list[str]) -> Lab:
    made = Lab(RECORD)
    made.said = logged
    monkeypatch.setattr(provision, "lab_root", lambda *_: made)
    monkeypatch.setattr(allow, "publish_live", made.published.append)
    monkeypatch.setattr(allow, "emit_event", lambda **event: made.events.append(event))
    return made


def die() -> None:
    raise KeyboardInterrupt


def change(lab: Lab, add: list[str], remove: list[str]) -> list[str]:
    return allow.change_allowed.fn("demo", lab.site, add, remove)


def test_only_the_firewall_is_applied(lab: Lab) -> None:
    """should target its rules, with the record's hosts, owner and key, and remember the hosts"""
    assert change(lab, [GUEST], [HOME]) == [FRIEND, GUEST]
    ((variables, only),) = lab.applied
    assert only == ["aws_vpc_security_group_ingress_rule.gateway"]
    assert variables["allowed_cidrs"] == [FRIEND, GUEST]
    assert (variables["lab"], variables["owner"], variables["key_version"]) == ("demo", "me", 3)
    assert lab.record("demo") == RECORD.allowing([GUEST], [HOME])


def test_an_existing_state_is_applied_again(lab: Lab) -> None:
    """should bring the cloud to the record, from which an interrupted run may have kept it"""
    assert change(lab, [FRIEND], [GUEST]) == [FRIEND, HOME]
    assert [variables["allowed_cidrs"] for variables, _ in lab.applied] == [[FRIEND, HOME]]
    assert lab.record("demo") == RECORD


def test_the_next_run_completes_the_removal_of_a_dead_run(lab: Lab) -> None:
    """should not give a host access again that a run without an end was to remove"""
    lab.before_apply = die
    with pytest.raises(KeyboardInterrupt):
        change(lab, [], [FRIEND])
    lab.before_apply = lambda: None
    assert change(lab, [GUEST], []) == [GUEST, HOME]


def test_a_refused_change_changes_nothing(lab: Lab) -> None:
    """should leave record and firewall if no host would have access"""
    with pytest.raises(InvalidInputError, match="no hosts"):
        change(lab, [], [FRIEND, HOME])
    assert lab.applied == []
    assert lab.record("demo") == RECORD


@pytest.mark.parametrize("known", [True, False])
def test_only_a_lab_that_is_up_can_be_opened(lab: Lab, known: bool) -> None:
    """should make no network for an unknown lab, or one that has none yet"""
    lab.is_up = False
    if not known:
        lab.objects.clear()
    with pytest.raises(PermanentError) as caught:
        change(lab, [GUEST], [])
    assert "demo" in caught.value.message
    assert "lab-up" in caught.value.hint
    assert lab.applied == []


def test_a_record_that_was_written_meanwhile_is_not_overwritten(lab: Lab) -> None:
    """should be tried again: a notice that the watch has recorded must not be given twice"""

    def note(record: LabRecord) -> LabRecord:
        noted = RECORD.model_copy(update={"notices": [30]})
        lab.keep(noted)
        return record.allowing([GUEST], [])

    with pytest.raises(TransientError, match="another run"):
        records.change_record("demo", lab.site, note)
    assert lab.record("demo").notices == [30]


def live(**changes: Any) -> LiveLab:
    seen: dict[str, Any] = {
        "lab": "demo",
        "owner": "me",
        "endpoint": None,
        "ready": True,
        "created_at": MADE,
        "expires_at": RECORD.expires_at,
        "left": "1h",
        "models": ["one"],
        "allowed": [FRIEND, HOME],
        "deployer": AWAY,
        "deployer_allowed": False,
        "deployer_rule": HOME,
        "cost": load_prices(SETTINGS.prices_path).report(RECORD, MADE),
    }
    return LiveLab(**(seen | changes))


def seen(state: LabState = LabState.UP, held_by: str | None = None) -> LabSeen:
    return LabSeen(lab="demo", state=state, why="so", record=RECORD, held_by=held_by)


def test_the_firewall_follows_the_deployer(lab: Lab) -> None:
    """should let it in only at its new address, remember that, and emit an event"""
    assert allow.follow_deployer.fn(live(), lab.site) is True
    ((variables, only),) = lab.applied
    assert (variables["allowed_cidrs"], only) == ([FRIEND, AWAY], [provision.FIREWALL_RULES])
    assert lab.record("demo") == RECORD.following(AWAY)
    (published,) = lab.published
    assert (published.allowed, published.moved_from) == ([FRIEND, AWAY], HOME)
    assert published.deployer_allowed is True
    assert published.has_lost_deployer is False
    (event,) = lab.events
    assert event["event"] == "lab.deployer-followed"
    assert event["payload"] == {"before": HOME, "now": AWAY, "shut_out": [HOME]}


def test_the_next_run_completes_a_dead_run(lab: Lab) -> None:
    """should remember the new address only after the firewall has it"""
    lab.before_apply = die
    with pytest.raises(KeyboardInterrupt):
        allow.follow_deployer.fn(live(), lab.site)
    assert lab.record("demo").deployer == HOME
    lab.before_apply = lambda: None
    assert allow.follow_deployer.fn(live(), lab.site) is True


@pytest.mark.parametrize("deployer", [None, AWAY])
def test_a_change_since_the_look_is_respected(lab: Lab, deployer: str | None) -> None:
    """should read the record again after the lab is held: a person may have been faster"""
    now = RECORD.model_copy(update={"deployer": deployer})
    lab.keep(now)
    assert allow.follow_deployer.fn(live(), lab.site) is False
    assert lab.applied == lab.events == []


@pytest.mark.parametrize(
    ("settings", "look"),
    [
        (Settings(), (seen(), live())),
        (SETTINGS, (seen(held_by="lab-up"), live())),
        (SETTINGS, (seen(LabState.EXPIRED), live())),
        (SETTINGS, (seen(LabState.ORPHANED), None)),
        (SETTINGS, (seen(), live(deployer=HOME))),
        (SETTINGS, (seen(), live(deployer=None))),
        (SETTINGS, (seen(), live(deployer_rule=None))),
    ],
    ids=["off", "held", "past its end", "unknown", "at home", "nowhere", "given by somebody"],
)
def test_some_labs_are_left_alone(
    lab: Lab, settings: Settings, look: tuple[LabSeen, LiveLab | None]
) -> None:
    """should not open or wait for a lab without permission, or if the deployer is not known"""
    assert allow.to_follow([look], FakeSite(settings)) == []


@pytest.mark.parametrize("state", [LabState.UP, LabState.NO_TASK])
def test_labs_without_their_deployer_follow(lab: Lab, state: LabState) -> None:
    """should be those that know the deployer by another address, even one with access"""
    one, other = live(), live(deployer_allowed=True)
    looks = [(seen(state), one), (seen(held_by="lab-up"), live()), (seen(state), other)]
    assert allow.to_follow(list(looks), lab.site) == [one, other]
    assert any("lab-up" in line for line in lab.said)
