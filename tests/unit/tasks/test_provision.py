"""Terraform is left out where it would change nothing, and never where that is not certain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.aws.sweep import Leftover
from lab import names
from lab.certificate import Certificate, Trust
from lab.errors import TransientError
from lab.fargate import Architecture
from lab.image.plan import ImagePlan
from lab.plan import PreflightResult
from lab.record import LabRecord
from lab.settings import Settings
from lab.spec import LabSpec
from tasks import provision
from tasks.provision import Provisioned
from tests.unit.tasks.sites import PLACE, MemoryBucket

AT = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
SETTINGS = Settings()
SPEC = LabSpec(lab="demo")
RECORD = LabRecord(
    lab="demo", created_at=AT, expires_at=AT + timedelta(hours=2), cidrs=["8.8.4.4/32"]
)
CHECKED = PreflightResult(
    place=PLACE, models=[], cidrs=["8.8.4.4/32"], architecture=Architecture.X86_64
)
IMAGE = ImagePlan(
    repository=PLACE.repository, tag="t", base_reference="b", base_source="s", config="c"
)
OUTPUTS = {
    "cluster_name": "c",
    "service_name": "s",
    "task_definition_arn": "t",
    "log_group_name": "l",
    "secret_name": "n",
}


class Lab(MemoryBucket):
    """A lab as Terraform and the sweep see it; each apply leaves another state."""

    def __init__(self, module: Path) -> None:
        super().__init__()
        self.module = module
        self.applied: list[dict[str, Any]] = []
        self.secrets: list[dict[str, Any]] = []
        self.tagged: list[datetime] = []
        self.things = ["cluster", "service"]
        self.repository = True
        self.certificate = 1

    def up(self, variables: dict[str, Any], **more: Any) -> dict[str, Any]:
        self.applied.append(variables)
        self.secrets.append(more)
        for key in (names.lab_state_key("demo"), names.FOUNDATION_STATE_KEY):
            self.put_record("", key, {"serial": len(self.applied)})
        return OUTPUTS

    def object_version(self, _: str, key: str) -> str | None:
        return self.objects.get(key, (b"", None))[1]

    def forget_object(self, _: str, key: str) -> None:
        self.objects.pop(key, None)

    def has_repository(self, _: str) -> bool:
        return self.repository

    def ensure_cluster(self, *_: Any) -> bool:
        return False

    def tag_end(self, _: str, at: datetime) -> None:
        self.tagged.append(at)

    def look(self, lab: str) -> tuple[list[str], list[Leftover]]:
        return [], [Leftover(lab, thing, lab, "", lambda: None) for thing in self.things]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    (tmp_path / "main.tf").write_text("code")
    (tmp_path / ".terraform.lock.hcl").write_text("lock")
    made = Lab(tmp_path)

    def certificate(*_: Any) -> Certificate:
        return Certificate("PEM", Trust(ca="CA", version=made.certificate, not_after=AT))

    monkeypatch.setattr(provision, "open_cloud", lambda _: made)
    monkeypatch.setattr(provision, "_root", lambda *_, **__: made)
    monkeypatch.setattr(provision, "Sweeper", lambda _: made)
    monkeypatch.setattr(provision, "certify", certificate)
    monkeypatch.setattr(provision, "run_log", lambda: lambda _: None)
    return made


def up(record: LabRecord = RECORD, **spec: Any) -> Provisioned:
    wanted = SPEC.model_copy(update=spec)
    return provision.provision_lab.fn(wanted, SETTINGS, CHECKED, IMAGE, record)


def vouch(made: Provisioned) -> None:
    there = provision.take_inventory.fn("demo", SETTINGS)
    provision.save_apply_fingerprint("demo", made, there, SETTINGS, PLACE)


def test_every_apply_has_the_key_of_the_record_and_the_present_certificate(lab: Lab) -> None:
    """should tell Terraform their numbers, and the certificate by its environment alone"""
    made = up(RECORD.with_new_key())
    (applied,) = lab.applied
    assert (applied["key_version"], applied["tls_version"]) == (2, 1)
    assert lab.secrets == [{"secrets": {"tls_pem": "PEM"}}]
    assert "PEM" not in str(applied)
    assert made.trust.ca == "CA"


def test_an_up_that_wants_the_same_applies_nothing(lab: Lab) -> None:
    """should give the same outputs, and move the end past Terraform"""
    first = up()
    vouch(first)
    later = RECORD.model_copy(update={"expires_at": AT + timedelta(hours=5)})
    second = up(later)
    assert len(lab.applied) == 1
    assert second == first
    assert lab.tagged == [later.expires_at]
    vouch(second)
    up(later)
    assert len(lab.applied) == 1


def test_the_number_of_tasks_at_the_first_apply_does_not_count(lab: Lab) -> None:
    """should not apply again because the image has been pushed meanwhile"""
    vouch(up())
    pushed = IMAGE.model_copy(update={"pushed_digest": "sha256:1"})
    provision.provision_lab.fn(SPEC, SETTINGS, CHECKED, pushed, RECORD)
    assert len(lab.applied) == 1


def change_code(lab: Lab) -> None:
    (lab.module / "main.tf").write_text("other code")


def change_state(lab: Lab) -> None:
    lab.put_record("", names.lab_state_key("demo"), {"serial": "of somebody else's apply"})


def lose_state(lab: Lab) -> None:
    lab.objects.pop(names.lab_state_key("demo"))


def lose_service(lab: Lab) -> None:
    lab.things.remove("service")


def change_certificate(lab: Lab) -> None:
    lab.certificate += 1


def garble(lab: Lab) -> None:
    lab.put_record("", names.lab_applied_key("demo"), {"of": "another version"})


@pytest.mark.parametrize(
    "change",
    [change_code, change_state, lose_state, lose_service, change_certificate, garble],
)
def test_whatever_has_changed_is_applied(lab: Lab, change: Any) -> None:
    """should apply everything, not only what changed"""
    vouch(up())
    change(lab)
    up()
    assert len(lab.applied) == 2
    assert lab.applied[1]["expires_at"] == "2030-01-31T14:00:00Z"


def test_another_wish_is_applied(lab: Lab) -> None:
    """should see each value of the specification"""
    vouch(up())
    up(cpu=2048, memory=4096)
    assert len(lab.applied) == 2


def test_an_up_that_failed_is_followed_by_a_whole_one(lab: Lab) -> None:
    """should trust a lab only as long as no up of it went wrong"""
    vouch(up())
    up()
    assert len(lab.applied) == 1
    # That one was not vouched for.
    up()
    assert len(lab.applied) == 2


def test_what_cannot_be_vouched_for_is_no_failure(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should cost the next up its time, and nothing else"""
    made = up()

    def fails(_: str) -> None:
        raise TransientError("the cloud is busy")

    monkeypatch.setattr(lab, "look", fails)
    vouch(made)
    assert names.lab_applied_key("demo") not in lab.objects


def test_a_foundation_that_is_as_it_was_is_left_alone(lab: Lab) -> None:
    """should be applied once, and again when it or its code has changed"""

    def foundation() -> int:
        provision.provision_foundation.fn(SETTINGS, PLACE)
        return len(lab.applied)

    assert [foundation(), foundation()] == [1, 1]
    lab.repository = False
    assert foundation() == 2
    lab.repository = True
    change_code(lab)
    assert [foundation(), foundation()] == [3, 3]


def test_no_secret_is_in_what_is_remembered(lab: Lab) -> None:
    """should hash no secret, and write none"""
    vouch(up())
    assert "PEM" not in str(lab.objects[names.lab_applied_key("demo")])
    assert "tls_pem" not in lab.applied[0]
    assert SimpleNamespace(**lab.applied[0]).tls_version == 1
