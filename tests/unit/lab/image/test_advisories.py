"""A release with a known fault is refused, whichever source knows it, except for a limited time."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from adapters.image.wheels import read_lock, releases
from lab.errors import InvalidInputError, PermanentError
from lab.image.advisories import Advisories, Finding, load_advisories
from lab.image.recipe import GATEWAY, LOCAL_CLOUD
from lab.settings import ADVISORIES_PATH

TODAY = date(2030, 1, 31)
KNOWN = {
    "id": "CVE-2030-1",
    "aliases": ["GHSA-aaaa"],
    "package": "demo",
    "affected": [">=1.2,<1.4", "==2.0"],
    "fixed": "1.4",
    "summary": "lets anybody in",
    "source": "OSV",
    "entered": "2030-01-01",
}
ALLOWED = {"id": "GHSA-aaaa", "package": "demo", "reason": "not called", "expires": "2030-01-31"}


def advisories(*exceptions: dict[str, Any], **changes: Any) -> Advisories:
    file = {"as_of": "2030-01-02", "advisories": [KNOWN | changes], "exceptions": exceptions}
    return Advisories.model_validate(file)


def found(version: str = "1.3", **changes: Any) -> list[Finding]:
    return advisories(**changes).find({"demo": Version(version)})


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        *(("1.1", False), ("1.2", True), ("1.3.9", True), ("1.3.post1", True), ("1.4", False)),
        *(("2.0", True), ("2.0.1", False), ("1.3rc1", True), ("1.3.dev0", True)),
    ],
)
def test_a_release_is_found_by_any_of_the_specifiers(version: str, affected: bool) -> None:
    """should also find a pre-release of the range"""
    assert bool(found(version)) is affected


def test_another_package_is_not_found() -> None:
    """should apply an advisory to its own package only"""
    assert not advisories().find({"demo-two": Version("1.3")})


def test_a_refusal_names_the_fault_and_what_to_do() -> None:
    """should name package, version, every ID, the fixed release and how to get it"""
    with pytest.raises(PermanentError) as caught:
        advisories().check(found(), TODAY)
    for word in ("demo 1.3", "CVE-2030-1", "GHSA-aaaa", "fixed in 1.4", "lets anybody in"):
        assert word in caught.value.message
    assert "2030-01-02" in caught.value.message
    assert "make lock" in caught.value.hint


def test_a_fault_without_a_remedy_says_so() -> None:
    """should not send anybody to look for a release that does not exist"""
    with pytest.raises(PermanentError, match="no release fixes it yet"):
        advisories().check(found(fixed=None), TODAY)


def test_an_exception_is_valid_up_to_its_last_day() -> None:
    """should let the finding pass, and report it with the reason"""
    said = advisories(ALLOWED).check(found(), TODAY)
    assert len(said) == 1
    assert "CVE-2030-1" in said[0]
    assert "allowed until 2030-01-31: not called" in said[0]


def test_an_expired_exception_has_no_effect() -> None:
    """should refuse, and name the day on which it ended"""
    with pytest.raises(PermanentError, match="its exception ended on 2030-01-31"):
        advisories(ALLOWED).check(found(), date(2030, 2, 1))


@pytest.mark.parametrize("change", [{"package": "other"}, {"id": "CVE-2030-2"}])
def test_an_exception_is_for_one_fault_of_one_package(change: dict[str, str]) -> None:
    """should except nothing else"""
    with pytest.raises(PermanentError, match="CVE-2030-1"):
        advisories(ALLOWED | change).check(found(), TODAY)


@pytest.mark.parametrize("change", [{"malicious": True}, {"aliases": ["GHSA-aaaa", "MAL-2030-1"]}])
def test_a_malicious_release_is_never_excepted(change: dict[str, Any]) -> None:
    """should be refused whatever the file allows, and be called malicious"""
    with pytest.raises(PermanentError, match=r"demo 1\.3 is malicious"):
        advisories(ALLOWED).check(found(**change), TODAY)


def test_an_exception_that_nothing_needs_is_reported() -> None:
    """should be removed one day: it would hide the next finding of the same name"""
    said = advisories(ALLOWED).check([], TODAY)
    assert said == ["demo: nothing found needs the exception for GHSA-aaaa"]


def test_one_fault_from_two_sources_is_reported_once() -> None:
    """should be recognized by any name, and keep the more severe facts"""
    other = Finding(
        package="demo", version="1.3", id="PYSEC-1", aliases=("CVE-2030-1", "MAL-1"), source="OSV"
    )
    with pytest.raises(PermanentError) as caught:
        advisories().check([*found(), other], TODAY)
    assert caught.value.message.count("demo 1.3") == 1
    assert "malicious" in caught.value.message
    assert "PYSEC-1" in caught.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"affected": ["1.2 to 1.4"]}, "no version specifier"),
        ({"affected": [""]}, "empty"),
        ({"affected": []}, "affected"),
        ({"fixed": "soon"}, "'soon' is no version"),
        ({"id": "a flaw"}, "id"),
        ({"severity": "high"}, "severity"),
        ({"entered": "lately"}, "entered"),
    ],
)
def test_a_faulty_entry_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """should name field and file: an entry that cannot be read protects nobody"""
    path = tmp_path / "advisories.yaml"
    path.write_text(yaml.safe_dump({"as_of": TODAY, "advisories": [KNOWN | change]}))
    with pytest.raises(InvalidInputError, match=r"advisories\.yaml") as caught:
        load_advisories(path)
    assert said in caught.value.message


@pytest.mark.parametrize("missing", ["reason", "expires"])
def test_an_exception_needs_a_reason_and_an_end(missing: str, tmp_path: Path) -> None:
    """should be refused without either"""
    allowed = {name: value for name, value in ALLOWED.items() if name != missing}
    path = tmp_path / "advisories.yaml"
    file = {"as_of": TODAY, "advisories": [KNOWN], "exceptions": [allowed]}
    path.write_text(yaml.safe_dump(file))
    with pytest.raises(InvalidInputError, match=f"exceptions.0.{missing}"):
        load_advisories(path)


@pytest.mark.parametrize("text", ["", "advisories: [", "[]", "as_of: 2030-01-01\nadvisories: []"])
def test_a_malformed_list_of_advisories_is_refused(text: str, tmp_path: Path) -> None:
    """should not count as a list without advisories"""
    path = tmp_path / "advisories.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match="not a list of advisories"):
        load_advisories(path)


@pytest.mark.parametrize(
    ("version", "fault"),
    [
        ("1.82.7", "MAL-2026-2144"),
        ("1.82.8", "MAL-2026-2144"),
        ("1.81.16", "CVE-2026-42208"),
        ("1.83.6", "CVE-2026-42208"),
        ("1.83.9", "CVE-2026-49468"),
        ("1.60.0", "CVE-2026-49468"),
    ],
)
def test_the_project_refuses_the_releases_in_its_own_list(version: str, fault: str) -> None:
    """should refuse them without any public source"""
    known = load_advisories(ADVISORIES_PATH)
    with pytest.raises(PermanentError, match=fault):
        known.check(known.find({"litellm": Version(version)}), TODAY)


@pytest.mark.parametrize("lock", [GATEWAY.lock, LOCAL_CLOUD.lock])
@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
def test_the_real_locks_pass(lock: Path, architecture: str) -> None:
    """should have no release that the project knows to be faulty"""
    known = load_advisories(ADVISORIES_PATH)
    assert not known.find(releases(read_lock(lock, architecture)))
