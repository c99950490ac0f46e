"""The gateway in its container, for the tests that call it. They need an engine, and no cloud.

Uses the image that this machine has, or builds it. ``tests/conftest.py`` makes fixtures of these
functions.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from adapters.image.base_image import PUBLIC_PYTHON, BaseImage, ensure_base_image, read_contents
from adapters.image.wheels import fetch_wheels, read_lock, sha256_of
from bench.containers import Gateway, Size, gateway, hardened
from bench.stubs import host_seen_by_containers, stub
from lab.errors import PermanentError
from lab.image import recipe
from lab.image.contents import WheelFile
from lab.image.sbom import write_sbom
from lab.models.catalog import load_catalog
from lab.models.render import litellm_config
from lab.settings import Settings
from workstation.engine import ensure_engine, stop_engine
from workstation.localcloud import REGISTRY_HOST, connect
from workstation.targets import state_home

SIZE = Size(2, 2048)
REPOSITORY = "gateway-lab-reproducible"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}


def log(text: str) -> None:
    sys.stderr.write(f"· {text}\n")


def engine() -> Iterator[docker.DockerClient]:
    """An engine; if it was started for these tests, it is stopped again."""
    try:
        connect()
        ran_before = True
    except PermanentError:
        ran_before = False
        ensure_engine(state_home(), log)
    yield connect()
    if not ran_before:
        stop_engine(state_home(), log)


@dataclass(frozen=True)
class Inputs:
    """Everything that goes into the image, and its tag."""

    base: BaseImage
    config: str
    tag: str
    wheels: list[Path]
    sbom: str

    def build(self, engine: docker.DockerClient, name: str, folder: Path) -> str:
        """Build the image without the engine's cache, from its own context; returns its name."""
        context = recipe.prepare_context(
            recipe.GATEWAY, folder, self.wheels, config_text=self.config, sbom_text=self.sbom
        )
        arguments = recipe.build_arguments(
            context, base_reference=self.base.reference, architecture=self.base.architecture
        )
        reference = f"{REPOSITORY}:{name}"
        for event in engine.api.build(tag=reference, nocache=True, decode=True, **arguments):
            assert "error" not in event, event
        return reference


def inputs(engine: docker.DockerClient) -> Inputs:
    """The inputs of the image; what this machine lacks is fetched."""
    architecture = ARCHITECTURES[str(engine.version()["Arch"])]
    base = ensure_base_image(engine, architecture, public_reference=PUBLIC_PYTHON, log=log)
    config = litellm_config(load_catalog(Settings().catalog_path).choose(None))
    tag = recipe.image_tag(
        recipe.GATEWAY,
        base_identity=base.identity,
        architecture=architecture,
        config_text=config,
    )
    wheels = fetch_wheels(recipe.GATEWAY.lock, architecture, state_home() / "wheels", log)
    installed = [
        WheelFile(entry.name, str(entry.version), wheel.name, sha256_of(wheel))
        for entry, wheel in zip(read_lock(recipe.GATEWAY.lock, architecture), wheels, strict=True)
        if entry.name != recipe.INSTALLER
    ]
    sbom = write_sbom(tag, installed, read_contents(engine, base.reference))
    return Inputs(base, config, tag, wheels, sbom)


def image(engine: docker.DockerClient, inputs: Inputs, scratch: Path) -> Iterator[str]:
    """The image by name: the existing one of this machine under the tag, or one built here."""
    ours = f"{REGISTRY_HOST}/gateway-lab:{inputs.tag}"
    try:
        engine.images.get(ours)
        log(f"{ours} is here: it is not built")
        yield ours
    except ImageNotFound:
        yield inputs.build(engine, "first", scratch / "first")
    forget(engine, "first")


def forget(engine: docker.DockerClient, name: str) -> None:
    """When it returns, no image that these tests built has the name."""
    with contextlib.suppress(ImageNotFound):
        engine.images.remove(f"{REPOSITORY}:{name}")


def running(engine: docker.DockerClient, image: str) -> Iterator[Gateway]:
    """The gateway, ready, with its task's limits and a stand-in for its models."""
    with (
        stub(delay=0.001, host=host_seen_by_containers(engine)) as bedrock,
        gateway(engine, hardened(image), SIZE, bedrock) as ready,
    ):
        yield ready
