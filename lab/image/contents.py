"""The contents of an image, and how to read those of a base image. Pure.

lab.image.sbom writes them as a document; it is a module of its own, as its library imports slowly.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from lab.image.recipe import SBOM_NAME


@dataclass(frozen=True)
class WheelFile:
    """A wheel that is installed into the image."""

    name: str
    version: str
    file_name: str
    sha256: str


@dataclass(frozen=True)
class DebianPackage:
    """A package of the base image, as dpkg knows it."""

    name: str
    version: str
    architecture: str


@dataclass(frozen=True)
class BaseContents:
    """What a base image declares: its release, its packages, its own Python."""

    distribution: str
    release: str
    packages: tuple[DebianPackage, ...]
    python: str | None = None


def read_dpkg(text: str) -> list[DebianPackage]:
    """The installed packages in ``text``, a dpkg status file or several one after another."""
    found = []
    for paragraph in text.split("\n\n"):
        fields = {}
        for line in paragraph.splitlines():
            name, colon, value = line.partition(":")
            # A continuation line begins with a blank, so its text before a colon names no field.
            if colon:
                fields[name] = value.strip()
        if fields.get("Status", "").endswith(" installed"):
            found.append(
                DebianPackage(fields["Package"], fields["Version"], fields["Architecture"])
            )
    return sorted(found, key=lambda package: package.name)


def read_os_release(text: str) -> dict[str, str]:
    """The values of an ``os-release`` file, without their quotes."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name: value.strip().strip('"') for name, value in pairs}


def image_of_sbom(text: str) -> str | None:
    """The tag of the image that the document ``text`` describes; ``None`` for another text."""
    try:
        return str(json.loads(text)["metadata"]["component"]["version"])
    except (ValueError, KeyError, TypeError):
        return None


def describe_sbom(text: str) -> SbomFile:
    """The report's entry for the document ``text``."""
    packages = [str(one.get("purl", "")) for one in json.loads(text)["components"]]
    return SbomFile(
        name=SBOM_NAME,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        python_packages=sum(package.startswith("pkg:pypi/") for package in packages),
        debian_packages=sum(package.startswith("pkg:deb/") for package in packages),
    )


class SbomFile(BaseModel):
    """The image's bill of materials, a file next to the report: its hash and what it lists."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    python_packages: int
    debian_packages: int
