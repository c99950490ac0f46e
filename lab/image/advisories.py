"""Known faults of releases: the dated file of the project, the findings, and the exceptions.

Pure, except that it reads its file. It knows neither other sources of faults nor the build.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab.errors import InvalidInputError, PermanentError
from lab.spec import describe_validation

#: How OSV's IDs begin for releases that are themselves an attack.
_MALICIOUS = "MAL-"


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(f"{text!r} is no version specifier, such as '>=1.2,<1.4'") from error
    if not text.strip():
        raise ValueError("an empty specifier would match every release")
    return text


def _version(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion as error:
        raise ValueError(f"{text!r} is no version; write it in quotes") from error
    return text


Package = Annotated[str, Field(min_length=1), AfterValidator(canonicalize_name)]
AdvisoryId = Annotated[str, Field(pattern=r"^[A-Z]+-[A-Za-z0-9-]+$")]


class Advisory(BaseModel):
    """One fault, and the releases that have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: AdvisoryId
    aliases: tuple[AdvisoryId, ...] = ()
    package: Package
    affected: tuple[Annotated[str, AfterValidator(_specifier)], ...] = Field(min_length=1)
    fixed: Annotated[str, AfterValidator(_version)] | None = None
    malicious: bool = False
    summary: str = Field(min_length=1)
    source: str = Field(min_length=1)
    entered: date

    def affects(self, version: Version) -> bool:
        """Whether the release ``version`` has the fault; a pre-release counts like any other."""
        return any(SpecifierSet(text).contains(version, prereleases=True) for text in self.affected)


class Allowed(BaseModel):
    """An exception: until a day, the fault is no reason to refuse the package."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: AdvisoryId
    package: Package
    reason: str = Field(min_length=1)
    expires: date


class Finding(BaseModel):
    """A release of the image with a known fault, from any source."""

    model_config = ConfigDict(frozen=True)

    package: str
    version: str
    id: str
    aliases: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    malicious: bool = False
    summary: str = ""
    source: str

    @property
    def names(self) -> frozenset[str]:
        """Every ID of the fault."""
        return frozenset((self.id, *self.aliases))

    @property
    def is_malicious(self) -> bool:
        """Whether the release itself is the attack."""
        return self.malicious or any(name.startswith(_MALICIOUS) for name in self.names)

    def __str__(self) -> str:
        what = "malicious" if self.is_malicious else "vulnerable"
        others = f" ({', '.join(self.aliases)})" if self.aliases else ""
        remedy = f"fixed in {' or '.join(self.fixed)}" if self.fixed else "no release fixes it yet"
        said = f": {self.summary}" if self.summary else ""
        return (
            f"{self.package} {self.version} is {what}, {self.id}{others}, {remedy}{said}"
            f" [{self.source}]"
        )


class Advisories(BaseModel):
    """The dated file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date
    advisories: tuple[Advisory, ...] = Field(min_length=1)
    exceptions: tuple[Allowed, ...] = ()

    def find(self, releases: Mapping[str, Version]) -> list[Finding]:
        """The file's findings for ``releases`` (versions by canonical name)."""
        return [
            Finding(
                package=known.package,
                version=str(releases[known.package]),
                id=known.id,
                aliases=known.aliases,
                fixed=(known.fixed,) if known.fixed else (),
                malicious=known.malicious,
                summary=known.summary,
                source=f"config/advisories.yaml of {self.as_of}",
            )
            for known in self.advisories
            if known.package in releases and known.affects(releases[known.package])
        ]

    def check(self, findings: Iterable[Finding], today: date) -> list[str]:
        """Raise PermanentError unless every finding has an exception; return a note on each.

        Two sources that report one fault count once. No exception covers a malicious release. The
        notes also name exceptions that nothing needs any more.
        """
        refused: list[str] = []
        said: list[str] = []
        needed: set[Allowed] = set()
        for finding in _each_fault_once(findings):
            allowed = self._exception(finding)
            if allowed is not None:
                needed.add(allowed)
            if allowed is None or finding.is_malicious:
                refused.append(str(finding))
            elif today > allowed.expires:
                refused.append(f"{finding}; its exception ended on {allowed.expires}")
            else:
                said.append(f"{finding}; allowed until {allowed.expires}: {allowed.reason}")
        if refused:
            raise PermanentError(
                "the image may not be built: " + "\n  ".join(refused),
                "Pin a fixed release in the requirements.in of the image and run make lock. Where"
                " there is none, config/advisories.yaml takes an exception with a reason and an"
                " end, but none for a malicious release.",
            )
        said += [
            f"{allowed.package}: nothing found needs the exception for {allowed.id}"
            for allowed in self.exceptions
            if allowed not in needed
        ]
        return said

    def _exception(self, finding: Finding) -> Allowed | None:
        return next(
            (
                allowed
                for allowed in self.exceptions
                if allowed.package == finding.package and allowed.id in finding.names
            ),
            None,
        )


def load_advisories(path: Path) -> Advisories:
    """The advisories in ``path``; InvalidInputError names what is wrong with the file."""
    try:
        return Advisories.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = (
            "; ".join(describe_validation(error)) if isinstance(error, ValidationError) else error
        )
        raise InvalidInputError(
            f"{path}: not a list of advisories: {said}",
            "Correct the file; its first lines explain each field.",
        ) from error


def _each_fault_once(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each fault of a package, with all its names and fixed releases."""
    merged: list[Finding] = []
    for finding in findings:
        twin = next(
            (m for m in merged if m.package == finding.package and m.names & finding.names), None
        )
        if twin is None:
            merged.append(finding)
            continue
        merged[merged.index(twin)] = twin.model_copy(
            update={
                "aliases": tuple(sorted((twin.names | finding.names) - {twin.id})),
                "fixed": twin.fixed or finding.fixed,
                "malicious": twin.is_malicious or finding.is_malicious,
                "source": f"{twin.source}, {finding.source}",
            }
        )
    return merged
