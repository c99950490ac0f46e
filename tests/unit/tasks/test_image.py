"""A known fault stops an image before it is built; the pushed image is the one that was built."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from adapters.aws.registry import HeldImage, Registry
from adapters.image import engine
from adapters.image.audit import Audit
from adapters.image.wheels import LockedRequirement
from lab.errors import InterruptedWorkError, PermanentError, TransientError
from lab.image import recipe
from lab.image.advisories import Advisories, Finding
from lab.image.contents import BaseContents, DebianPackage, SbomFile
from lab.image.plan import ImagePlan, PushedImage
from lab.report.model import ImageScan, LabReport
from lab.settings import Settings
from tasks import image as tasks
from tasks import publish
from tasks.draft import drafting
from tests.unit.tasks.sites import FakeSite

ENTRIES = [
    LockedRequirement(name, Version("1.0"), frozenset({"a" * 64}), Requirement(f"{name}==1.0"))
    for name in ("demo", "pip")
]
ADVISORIES = Advisories.model_validate(
    {
        "as_of": "2030-01-02",
        "advisories": [
            {
                "id": "CVE-2030-1",
                "package": "demo",
                "affected": ["==0.9"],
                "summary": "lets anybody in",
                "source": "OSV",
                "entered": "2030-01-01",
            }
        ],
    }
)
FAULT = Finding(package="demo", version="1.0", id="CVE-2030-2", source="OSV")
DIGEST = "sha256:01"


def plan(**changes: Any) -> ImagePlan:
    values = {
        "repository": "registry/gateway-lab",
        "tag": "0123abcd",
        "base_reference": "base:1",
        "base_source": "debian",
        "config": "models: []",
    }
    return ImagePlan(**(values | changes))


CHECKED = create_autospec(tasks.PreflightResult, instance=True, architecture="x86_64")


class World:
    """The surroundings of the tasks: the steps that were taken, and their results."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path, said: list[str]) -> None:
        self.settings = Settings(home=home)
        self.steps: list[str] = []
        self.said = said
        self.audit = Audit("OSV")
        self.unreachable: Exception | None = None
        self.registry = create_autospec(Registry, instance=True)
        self.site = FakeSite(self.settings, registry=self.registry)
        wheels = [home / f"{entry.name}-1.0-py3-none-any.whl" for entry in ENTRIES]
        for wheel in wheels:
            wheel.write_text(wheel.name)

        def fetch_wheels(*_: object) -> list[Path]:
            self.steps.append("fetch")
            if self.unreachable:
                raise self.unreachable
            return wheels

        def asked(*_: object) -> Audit:
            self.steps.append("audit")
            return self.audit

        base = BaseContents("debian", "12", (DebianPackage("tzdata", "2025b", "all"),))
        for name, value in {
            "read_lock": lambda *_: ENTRIES,
            "load_advisories": lambda _: ADVISORIES,
            "fetch_wheels": fetch_wheels,
            "check_wheels": lambda *_: self.steps.append("look"),
            "audit": asked,
            "read_contents": lambda *_: base,
        }.items():
            monkeypatch.setattr(tasks, name, value)
        monkeypatch.setattr(engine, "connect", lambda: "engine")

    def scan(self, **changes: Any) -> tasks.Scanned:
        return tasks.scan_image.fn("demo", self.site, CHECKED, plan(**changes))

    def asked(self, **changes: Any) -> tasks.Audited:
        return tasks.audit_image.fn(CHECKED, plan(**changes))

    def push(self, **changes: Any) -> PushedImage:
        scanned = tasks.Scanned(scan=ImageScan(advisories_of=date(2030, 1, 2)), sbom_text=None)
        audited = tasks.Audited(by="OSV", notes=["a note"])
        return tasks.push_image.fn(self.site, plan(**changes), scanned, audited, True)

    @property
    def sbom(self) -> Path:
        return self.settings.lab_home("demo") / recipe.SBOM_NAME


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, logged: list[str], tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path, logged)


def test_an_image_is_scanned_audited_and_described(world: World) -> None:
    """should scan the wheels, ask about their releases, and write the bill of materials"""
    scanned = world.scan()
    assert world.asked().by == "OSV"
    assert world.steps == ["fetch", "look", "audit"]
    assert scanned.scan.advisories_of == date(2030, 1, 2)
    assert scanned.scan.sbom is not None
    written = world.sbom.read_bytes()
    assert written.decode() == scanned.sbom_text
    assert hashlib.sha256(written).hexdigest() == scanned.scan.sbom.sha256


def test_the_installer_is_not_in_the_bill_of_materials(world: World) -> None:
    """should not name the packages that the builder removes"""
    scanned = world.scan()
    assert scanned.sbom_text is not None
    assert "pkg:pypi/demo@1.0" in scanned.sbom_text
    assert "pkg:pypi/pip@" not in scanned.sbom_text


def test_a_fault_in_a_public_source_stops_the_image(world: World) -> None:
    """should refuse the image before its push"""
    world.audit = Audit("OSV", [FAULT])
    with pytest.raises(PermanentError, match=r"demo 1\.0 is vulnerable, CVE-2030-2"):
        world.asked()


def test_silent_sources_leave_the_projects_own_list(world: World) -> None:
    """should go on, log why each gave no answer, and name the list with its date"""
    world.audit = Audit(None, silent=["OSV: refused", "PyPI: refused"])
    assert world.asked().by == "nobody: no public source could be asked"
    world.scan()
    said = "\n".join(world.said)
    assert "OSV: refused" in said
    assert "config/advisories.yaml of 2030-01-02" in said


def test_releases_that_no_source_knows_are_reported(world: World) -> None:
    """should be in the report: nothing is known about them"""
    world.audit = Audit("OSV", unknown=["demo 1.0"])
    assert world.asked().notes == ["OSV does not know demo 1.0"]


def test_the_projects_own_list_always_applies(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should refuse a listed release before the build, and also when nothing is built"""
    listed = ADVISORIES.advisories[0].model_copy(update={"affected": ("==1.0",)})
    known = ADVISORIES.model_copy(update={"advisories": (listed,)})
    monkeypatch.setattr(tasks, "load_advisories", lambda _: known)
    with pytest.raises(PermanentError, match="CVE-2030-1"):
        world.scan()
    assert not world.sbom.exists()
    with pytest.raises(PermanentError, match="CVE-2030-1"):
        world.scan(pushed_digest=DIGEST)


def test_a_listed_release_is_refused_before_anything_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should be refused while the image is planned, when nothing that costs money exists"""
    listed = ADVISORIES.advisories[0].model_copy(update={"affected": ("==1.0",)})
    known = ADVISORIES.model_copy(update={"advisories": (listed,)})
    monkeypatch.setattr(tasks, "load_advisories", lambda _: known)
    monkeypatch.setattr(tasks, "ensure_base_image", lambda *_, **__: world.steps.append("base"))
    with pytest.raises(PermanentError, match="CVE-2030-1"):
        tasks.plan_image.fn(world.site, CHECKED)
    assert not world.steps


def test_an_image_in_the_registry_is_not_audited_again(world: World) -> None:
    """should still have its bill of materials here"""
    scanned = world.scan(pushed_digest=DIGEST)
    assert world.asked(pushed_digest=DIGEST).by == "nobody: the image was built before"
    assert world.steps == ["fetch"]
    assert scanned.scan.sbom
    assert world.sbom.exists()


def test_a_bill_of_materials_that_is_here_is_not_written_again(world: World) -> None:
    """should need no wheels for an image whose document is already here"""
    first = world.scan(pushed_digest=DIGEST)
    second = world.scan(pushed_digest=DIGEST)
    assert world.steps == ["fetch"]
    assert (second.sbom_text, second.scan.sbom) == (first.sbom_text, first.scan.sbom)
    world.sbom.write_text("no document")
    assert world.scan(pushed_digest=DIGEST).sbom_text == first.sbom_text
    assert world.steps == ["fetch", "fetch"]


def test_an_image_in_the_registry_needs_no_package_index(world: World) -> None:
    """should come up without its bill of materials here, and leave none of another image"""
    world.scan()
    world.unreachable = TransientError("the index does not answer")
    scanned = world.scan(pushed_digest=DIGEST, tag="another")
    assert scanned.sbom_text is None
    assert scanned.scan.sbom is None
    assert not world.sbom.exists()
    with pytest.raises(TransientError):
        world.scan()


def test_an_interruption_is_no_missing_index(world: World) -> None:
    """should end the run"""
    world.unreachable = InterruptedWorkError("the run is ending")
    with pytest.raises(InterruptedWorkError):
        world.scan(pushed_digest=DIGEST)


@pytest.mark.parametrize("built", ["sha256:0c", DIGEST])
def test_the_registry_has_the_image_that_was_built(
    world: World, monkeypatch: pytest.MonkeyPatch, built: str
) -> None:
    """should compare configuration or manifest, as the engine stores images"""
    monkeypatch.setattr(engine, "push", lambda *_: None)
    monkeypatch.setattr(engine, "image_id", lambda *_: built)
    world.registry.held_image.return_value = HeldImage(DIGEST, "sha256:0c")
    pushed = world.push()
    assert pushed == PushedImage(repository="registry/gateway-lab", tag="0123abcd", digest=DIGEST)
    assert str(pushed) == f"registry/gateway-lab:0123abcd@{DIGEST}"


def test_another_image_in_the_registry_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """should name the digest that was built and the one in the registry"""
    monkeypatch.setattr(engine, "push", lambda *_: None)
    monkeypatch.setattr(engine, "image_id", lambda *_: "sha256:built")
    world.registry.held_image.return_value = HeldImage(DIGEST, "sha256:0c")
    with pytest.raises(PermanentError) as caught:
        world.push()
    for digest in ("sha256:built", DIGEST, "sha256:0c"):
        assert digest in caught.value.message


AT = datetime(2030, 1, 31, 12, tzinfo=UTC)


def test_the_report_has_the_pushed_image(world: World) -> None:
    """should have digest, scan and audit, also for an image that was built earlier"""
    report = LabReport(lab="demo", target="local", created_at=AT, expires_at=AT)
    with drafting(report):
        pushed = world.push(pushed_digest=DIGEST)
    assert report.image == pushed
    assert report.image_built
    assert report.base_image == "debian: base:1"
    assert report.scan is not None
    assert (report.scan.audited_by, report.scan.notes) == ("OSV", ["a note"])


SBOM = SbomFile(name=recipe.SBOM_NAME, sha256="0" * 64, python_packages=97, debian_packages=55)


@pytest.mark.parametrize("sbom", [SBOM, None])
def test_the_artifact_describes_the_image(sbom: SbomFile | None) -> None:
    """should be a page with the path of the file, not the file"""
    scan = ImageScan(
        advisories_of=date(2030, 1, 2), audited_by="OSV", notes=["demo is allowed"], sbom=sbom
    )
    report = LabReport(lab="demo", target="local", created_at=AT, expires_at=AT, scan=scan)
    text = publish._sbom_text(report, scan, Path("/home/labs/demo"))
    assert "/usr/share/sbom/sbom.cdx.json" in text
    assert "2030-01-02" in text
    assert "OSV" in text
    assert "- demo is allowed" in text
    assert ("/home/labs/demo/sbom.cdx.json" in text) is (sbom is not None)
    assert len(text) < 2000
