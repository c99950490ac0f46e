"""An image's contents as a CycloneDX document; equal inputs give equal bytes. Pure.

It names wheels and Debian packages, but not what is bundled inside them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from lab import names
from lab.image.contents import BaseContents, DebianPackage, WheelFile

#: The namespace of serial numbers: the same image always has the same one.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, f"sbom.{names.PROJECT}")
_WHEEL_FILE = f"{names.PROJECT}:wheel"


def write_sbom(tag: str, wheels: Iterable[WheelFile], base: BaseContents) -> str:
    """The CycloneDX 1.6 document, as JSON, of the image ``tag`` made of ``wheels`` and ``base``.

    It holds no time and no random number: equal arguments give equal text.
    """
    image = Component(
        type=ComponentType.CONTAINER, name=names.PROJECT, version=tag, bom_ref=names.PROJECT
    )
    components = [
        *(_wheel(wheel) for wheel in wheels),
        *(_package(package, base) for package in base.packages),
        *_rest_of(base),
    ]
    metadata = BomMetaData(component=image)
    # The library's type forbids it, the format allows it: a time would make equal builds differ.
    metadata.timestamp = None  # type: ignore[assignment]
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, tag), metadata=metadata, components=components)
    bom.register_dependency(image, components)
    written = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return str(written.output_as_string(indent=1)) + "\n"


def _wheel(wheel: WheelFile) -> Component:
    purl = PackageURL("pypi", None, wheel.name, wheel.version)
    return Component(
        type=ComponentType.LIBRARY,
        name=wheel.name,
        version=wheel.version,
        purl=purl,
        bom_ref=purl.to_string(),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=wheel.sha256)],
        properties=[Property(name=_WHEEL_FILE, value=wheel.file_name)],
    )


def _package(package: DebianPackage, base: BaseContents) -> Component:
    purl = PackageURL(
        "deb",
        base.distribution,
        package.name,
        package.version,
        {"arch": package.architecture, "distro": f"{base.distribution}-{base.release}"},
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=purl,
        bom_ref=purl.to_string(),
    )


def _rest_of(base: BaseContents) -> list[Component]:
    found = [
        Component(
            type=ComponentType.OPERATING_SYSTEM,
            name=base.distribution,
            version=base.release,
            bom_ref=f"os:{base.distribution}-{base.release}",
        )
    ]
    if base.python:
        purl = PackageURL("generic", None, "python", base.python)
        found.append(
            Component(
                type=ComponentType.PLATFORM,
                name="python",
                version=base.python,
                purl=purl,
                bom_ref=purl.to_string(),
            )
        )
    return found
