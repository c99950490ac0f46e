"""Terraform is skipped if it would change nothing, and never if that is not certain."""

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
from lab.spec import LabSpec
from tasks import provision
from tasks.provision import Provisioned
from tests.unit.tasks.sites import PLACE, FakeSite, MemoryBucket

AT = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
SPEC = LabSpec(lab="demo")
RECORD = LabRecord(
    lab="demo", created_at=AT, expires_at=AT + timedelta(hours=2), cidrs=["8.8.4.4/32"]
)
CHECKED = PreflightResult(models=[], cidrs=["8.8.4.4/32"], architecture=Architecture.X86_64)
IMAGE = ImagePlan(
    repository=PLACE.repository, tag="t", base_reference="b", base_source="s", config="c"
)
OUTPUTS = {"task_definition_arn": "t", "service_name": "s"}


class Lab(MemoryBucket):
    """A lab as Terraform and the sweep see it; each apply makes another state."""

    def __init__(self, module: Path) -> None:
        super().__init__()
        self.module = module
        self.applied: list[dict[str, Any]] = []
        self.secrets: list[dict[str, Any]] = []
        self.things = ["cluster", "service"]
        self.repository = True
        self.certificate = 1
        self.site = FakeSite(bucket=self, registry=Repository(self), service=Cluster())

    def up(self, variables: dict[str, Any], **more: Any) -> dict[str, Any]:
        self.applied.append(variables)
        self.secrets.append(more)
        for key in (names.lab_state_key("demo"), names.FOUNDATION_STATE_KEY):
            self.write_json(key, {"serial": len(self.applied)})
        return OUTPUTS

    def look(self, lab: str) -> tuple[list[str], list[Leftover]]:
        return [], [Leftover(lab, thing, lab, "", lambda: None) for thing in self.things]


class Repository:
    """The image repository, as long as ``lab`` has one."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def exists(self) -> bool:
        return self._lab.repository


class Cluster:
    """The lab's service, whose cluster exists already."""

    def ensure_cluster(self, _: object) -> bool:
        return False


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    (tmp_path / "main.tf").write_text("code")
    (tmp_path / ".terraform.lock.hcl").write_text("lock")
    made = Lab(tmp_path)

    def certificate(*_: Any) -> Certificate:
        return Certificate("PEM", Trust(ca="CA", version=made.certificate, not_after=AT))

    monkeypatch.setattr(provision, "_root", lambda *_, **__: made)
    monkeypatch.setattr(provision, "Sweeper", lambda _: made)
    monkeypatch.setattr(provision, "certify", certificate)
    return made


def up(lab: Lab, record: LabRecord = RECORD, **spec: Any) -> Provisioned:
    wanted = SPEC.model_copy(update=spec)
    return provision.provision_lab.fn(wanted, lab.site, CHECKED, IMAGE, record)


def finish(lab: Lab, made: Provisioned) -> None:
    """The end of an up that found everything good."""
    there = provision.take_inventory.fn("demo", lab.site)
    provision.save_apply_fingerprint("demo", lab.site, made, there)


def test_every_apply_has_the_record_s_key_and_the_current_certificate(lab: Lab) -> None:
    """should pass their numbers, and the certificate only in the environment"""
    made = up(lab, RECORD.with_new_key())
    (applied,) = lab.applied
    assert (applied["key_version"], applied["tls_version"]) == (2, 1)
    assert lab.secrets == [{"secrets": {"tls_pem": "PEM"}}]
    assert "PEM" not in str(applied)
    assert made.trust.ca == "CA"


def test_an_up_with_the_same_values_applies_nothing(lab: Lab) -> None:
    """should return the same outputs, even if the end has moved"""
    first = up(lab)
    finish(lab, first)
    later = RECORD.model_copy(update={"expires_at": AT + timedelta(hours=5)})
    second = up(lab, later)
    assert len(lab.applied) == 1
    assert second == first
    finish(lab, second)
    up(lab, later)
    assert len(lab.applied) == 1


def test_the_first_number_of_tasks_does_not_count(lab: Lab) -> None:
    """should not apply again because the image was pushed meanwhile"""
    finish(lab, up(lab))
    pushed = IMAGE.model_copy(update={"pushed_digest": "sha256:1"})
    provision.provision_lab.fn(SPEC, lab.site, CHECKED, pushed, RECORD)
    assert len(lab.applied) == 1


def change_code(lab: Lab) -> None:
    (lab.module / "main.tf").write_text("other code")


def change_state(lab: Lab) -> None:
    lab.write_json(names.lab_state_key("demo"), {"serial": "of somebody else's apply"})


def lose_state(lab: Lab) -> None:
    lab.objects.pop(names.lab_state_key("demo"))


def lose_service(lab: Lab) -> None:
    lab.things.remove("service")


def change_certificate(lab: Lab) -> None:
    lab.certificate += 1


def garble(lab: Lab) -> None:
    lab.write_json(names.lab_applied_key("demo"), {"of": "another version"})


@pytest.mark.parametrize(
    "change",
    [change_code, change_state, lose_state, lose_service, change_certificate, garble],
)
def test_any_change_is_applied(lab: Lab, change: Any) -> None:
    """should apply everything, not only the change"""
    finish(lab, up(lab))
    change(lab)
    up(lab)
    assert len(lab.applied) == 2
    assert lab.applied[1]["expires_at"] == "2030-01-31T14:00:00Z"


def test_another_specification_is_applied(lab: Lab) -> None:
    """should depend on each value of the specification"""
    finish(lab, up(lab))
    up(lab, cpu=2048, memory=4096)
    assert len(lab.applied) == 2


def test_a_whole_apply_follows_a_failed_up(lab: Lab) -> None:
    """should skip only if no up of the lab has failed since"""
    finish(lab, up(lab))
    up(lab)
    assert len(lab.applied) == 1
    # That up did not get to its end.
    up(lab)
    assert len(lab.applied) == 2


def test_a_failed_inventory_is_no_failure(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """should cost the next up some time, and nothing else"""
    made = up(lab)

    def fails(_: str) -> None:
        raise TransientError("the cloud is busy")

    monkeypatch.setattr(lab, "look", fails)
    finish(lab, made)
    assert names.lab_applied_key("demo") not in lab.objects


def test_an_unchanged_foundation_is_left_alone(lab: Lab) -> None:
    """should be applied once, and again when it or its code has changed"""

    def foundation() -> int:
        provision.provision_foundation.fn(lab.site)
        return len(lab.applied)

    assert [foundation(), foundation()] == [1, 1]
    lab.repository = False
    assert foundation() == 2
    lab.repository = True
    change_code(lab)
    assert [foundation(), foundation()] == [3, 3]


def test_the_fingerprint_has_no_secret(lab: Lab) -> None:
    """should hash no secret, and write none"""
    finish(lab, up(lab))
    assert "PEM" not in str(lab.objects[names.lab_applied_key("demo")])
    assert "tls_pem" not in lab.applied[0]
    assert SimpleNamespace(**lab.applied[0]).tls_version == 1
