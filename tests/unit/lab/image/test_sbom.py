"""The bill of materials: valid for CycloneDX, equal for equal images, and complete."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from types import SimpleNamespace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from docker.errors import ImageNotFound

from adapters.image.base_image import read_contents
from lab.errors import PermanentError
from lab.image import recipe as image
from lab.image.contents import (
    BaseContents,
    DebianPackage,
    WheelFile,
    describe_sbom,
    image_of_sbom,
    read_dpkg,
    read_os_release,
)
from lab.image.sbom import write_sbom

WHEELS = [
    WheelFile("litellm", "1.106.2", "litellm-1.106.2-cp310-abi3-linux.whl", "a" * 64),
    WheelFile("aiohttp", "3.14.5", "aiohttp-3.14.5-cp311-linux.whl", "b" * 64),
]
BASE = BaseContents(
    "debian",
    "12",
    (
        DebianPackage("libstdc++6", "12.2.0-14+deb12u1", "amd64"),
        DebianPackage("tzdata", "2025b-0+deb12u2", "all"),
    ),
    python="3.11.16",
)
STATUS = """Package: tzdata
Status: install ok installed
Architecture: all
Version: 2025b
Description: time zones
 Version: not a field

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""
#: The hash of what lab/image/sbom.py writes for the values above, in the form of this number.
WRITTEN = (1, "d654a891")


def written() -> str:
    return write_sbom("0123abcd", WHEELS, BASE)


def components() -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in json.loads(written())["components"]}


def test_the_document_fits_the_schema() -> None:
    """should be strictly CycloneDX 1.6"""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written()) is None


def test_the_schema_finds_a_fault() -> None:
    """should find a fault in a faulty document, or the test above shows nothing"""
    faulty = written().replace('"bom-ref"', '"bomref"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(faulty) is not None


def test_equal_images_have_equal_documents() -> None:
    """should have no time and nothing random, whatever the order of the inputs"""
    other = BaseContents(BASE.distribution, BASE.release, BASE.packages[::-1], BASE.python)
    assert write_sbom("0123abcd", WHEELS[::-1], other) == written()
    assert write_sbom("0123abce", WHEELS, BASE) != written()


def test_another_form_has_another_number() -> None:
    """should raise SBOM_FORM when the form changes: it is a part of the image, and so of its tag"""
    assert (image.SBOM_FORM, hashlib.sha256(written().encode()).hexdigest()[:8]) == WRITTEN


def test_a_wheel_is_named_with_its_file_and_hash() -> None:
    """should be found by scanners, and differ from another file of the release"""
    wheel = components()["litellm"]
    assert wheel["purl"] == "pkg:pypi/litellm@1.106.2"
    assert wheel["version"] == "1.106.2"
    assert wheel["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert wheel["properties"][0]["value"] == WHEELS[0].file_name


def test_a_debian_package_is_named_with_its_release() -> None:
    """should be found by scanners, whatever characters its name and version have"""
    purl = components()["libstdc++6"]["purl"]
    assert purl == "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"


def test_parts_that_are_no_package_are_named_too() -> None:
    """should name the distribution, and a Python that is not one of its packages"""
    assert components()["debian"]["version"] == "12"
    assert components()["python"]["purl"] == "pkg:generic/python@3.11.16"


def test_everything_is_a_part_of_the_image() -> None:
    """should make the image depend on each component"""
    document = json.loads(written())
    root = document["metadata"]["component"]
    assert (root["name"], root["version"]) == ("gateway-lab", "0123abcd")
    (all_of_it,) = [d["dependsOn"] for d in document["dependencies"] if d["ref"] == root["bom-ref"]]
    assert set(all_of_it) == {found["bom-ref"] for found in document["components"]}


def test_the_report_has_the_hash_of_the_file() -> None:
    """should let anybody check the file that is stored with it"""
    summary = describe_sbom(written())
    assert summary.sha256 == hashlib.sha256(written().encode()).hexdigest()
    assert (summary.python_packages, summary.debian_packages) == (2, 2)
    assert summary.name == image.SBOM_NAME
    assert image_of_sbom(written()) == "0123abcd"
    assert [image_of_sbom(text) for text in ("", "[]", "{}", "no JSON")] == [None] * 4


def test_only_installed_packages_are_read() -> None:
    """should skip packages with only configuration left, and not take a description for a field"""
    assert read_dpkg(STATUS) == [DebianPackage("tzdata", "2025b", "all")]


def test_os_release_is_read_without_its_quotes() -> None:
    """should return values without quotes"""
    assert read_os_release('ID=debian\nVERSION_ID="12"\n# comment\n') == {
        "ID": "debian",
        "VERSION_ID": "12",
    }


class Engine:
    """Stands in for the engine: one image, whose files it returns as tar archives."""

    def __init__(self, files: dict[str, str], environment: list[str]) -> None:
        self.files = files
        self.left: set[str] = set()
        attrs = {"Config": {"Env": environment}}
        self.images = SimpleNamespace(get=lambda reference: SimpleNamespace(attrs=attrs))
        self.api = self

    def create_container(self, reference: str, command: list[str]) -> dict[str, str]:
        self.left.add("c1")
        return {"Id": "c1"}

    def remove_container(self, container: str, force: bool) -> None:
        self.left.remove(container)

    def get_archive(self, container: str, path: str) -> tuple[list[bytes], dict[str, Any]]:
        above = path.rpartition("/")[0] + "/"
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for name, text in self.files.items():
                if name.startswith(path):
                    entry = tarfile.TarInfo(name.removeprefix(above))
                    entry.size = len(text)
                    tar.addfile(entry, io.BytesIO(text.encode()))
        return [content.getvalue()[:700], content.getvalue()[700:]], {}


RELEASE = {"/usr/lib/os-release": 'ID=debian\nVERSION_ID="12"\n'}
ONE_BY_ONE = {
    "/var/lib/dpkg/status.d/tzdata": STATUS.partition("\n\n")[0],
    "/var/lib/dpkg/info/tzdata.list": "Package: no record\n",
}


@pytest.mark.parametrize(
    ("files", "environment", "python"),
    [
        (ONE_BY_ONE, ["PATH=/usr/bin"], None),
        ({"/var/lib/dpkg/status": STATUS}, ["PYTHON_VERSION=3.11.16"], "3.11.16"),
    ],
)
def test_a_base_images_contents_are_read(
    files: dict[str, str], environment: list[str], python: str | None
) -> None:
    """should read dpkg's records in both forms, and leave no container"""
    engine = Engine(files | RELEASE, environment)
    contents = read_contents(engine, "base:1")  # type: ignore[arg-type]
    packages = (DebianPackage("tzdata", "2025b", "all"),)
    assert contents == BaseContents("debian", "12", packages, python)
    assert not engine.left


@pytest.mark.parametrize("files", [RELEASE, ONE_BY_ONE])
def test_a_base_image_without_records_is_refused(files: dict[str, str]) -> None:
    """should not make a bill of materials without the base's packages"""
    engine = Engine(files, [])
    with pytest.raises(PermanentError, match="base:1 does not say"):
        read_contents(engine, "base:1")  # type: ignore[arg-type]
    assert not engine.left


def test_a_missing_base_image_is_an_error() -> None:
    """should be an error of the project's"""

    def get(reference: str) -> None:
        raise ImageNotFound("no such image")

    engine = SimpleNamespace(images=SimpleNamespace(get=get))
    with pytest.raises(PermanentError, match="base:1 cannot be read"):
        read_contents(engine, "base:1")  # type: ignore[arg-type]
